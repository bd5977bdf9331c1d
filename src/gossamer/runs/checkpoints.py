"""Checkpoints: atomic and durable saves of a run's state, verified by digest when they are read.

The module knows pytrees of arrays and nothing of their meaning. A typed PRNG key is stored as its key data.

A checkpoint is a directory named after its round. ``state.safetensors`` holds one array per leaf, named after its path.
``checkpoint.json`` holds the caller's metadata, the path, dtype and shape of every leaf, and digests of both files.
Checkpoints of format 1 hold a directory of Orbax instead; reading them needs the extra ``gossamer[orbax]``.
"""

import hashlib
import json
import math
import os
import re
import shutil
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax.tree_util import keystr, tree_leaves_with_path

from gossamer.errors import InputError

_FORMAT = 2
_RECORD = "checkpoint.json"
_ARRAYS = "state.safetensors"
_SAVING = "saving-"
_REMOVING = "removing-"
# Those that safetensors reads back as numpy arrays; others, such as bfloat16, are stored as bytes.
_STORED_AS_THEY_ARE = {
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64", "complex64", "bool"),
}
_HEADER_BYTES = 1 << 10  # of each leaf in the file of arrays, at most
_LARGEST_RECORD = 1 << 26  # bytes
_LARGEST_ORBAX_FILE = 1 << 40  # bytes
_KEYS = {1: ("files", "digest_of_leaves"), _FORMAT: ("sha256",)}  # of a record, by format


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A state after ``round`` rounds, and what the caller wants to know beside it.

    Args:
        round: Rounds done, at least 0.
        state: A pytree of jax and numpy arrays; typed PRNG keys are arrays of jax.
        metadata: Plain JSON data, such as the length of the metrics.
    """

    round: int
    state: Any
    metadata: dict[str, Any]


class DamagedCheckpoint(UserWarning):
    """A checkpoint cannot be read and an earlier one is used; the message names both."""


def save(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Writes a checkpoint that is complete and durable when this returns, and keeps the newest ``keep``.

    A checkpoint of the same round is replaced. Later rounds are dropped: they belong to a course of the run
    that was abandoned when an earlier checkpoint was resumed. What a killed save left is removed first.

    Args:
        folder: Where the checkpoints of one run lie; made if it is missing. One process writes to it.
        checkpoint: What to save.
        keep: How many to keep, at least 1.

    Returns:
        The checkpoint's directory.

    Raises:
        InputError: ``keep`` or the round is too small, or the metadata is not plain JSON data.
        TypeError: a leaf of the state is not an array.
        OSError: the folder cannot be written; what it held is kept.

    Example:
        >>> import tempfile
        >>> state = {"weight": jnp.ones(3)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = save(Path(folder), Checkpoint(20, state, {"offset": 80}))
        ...     restore_newest(Path(folder), like=state)
        Checkpoint(round=20, state={'weight': Array([1., 1., 1.], dtype=float32)}, metadata={'offset': 80})
    """
    _check(checkpoint, keep)
    folder.mkdir(parents=True, exist_ok=True)
    remove_left_overs(folder)
    temporary = folder / f"{_SAVING}{checkpoint.round}"
    _write(temporary, checkpoint)
    final = folder / str(checkpoint.round)
    _publish(temporary, final)
    _prune(folder, checkpoint.round, keep)
    remove_left_overs(folder)
    return final


def restore_newest(folder: Path, like: Any) -> Checkpoint:
    """The newest checkpoint that can be read, bit for bit as it was saved.

    Args:
        folder: Where the checkpoints of one run lie.
        like: As for ``restore``.

    Warns:
        DamagedCheckpoint: a newer one is damaged.

    Raises:
        InputError: there is no checkpoint, none can be read, or the newest does not fit ``like``.

    Example:
        >>> restore_newest(Path("no/such/run"), like=jnp.zeros(3))
        Traceback (most recent call last):
        gossamer.errors.InputError: no/such/run holds no checkpoint; ...
    """
    damages: list[_DamageError] = []
    for number in reversed(rounds(folder)):
        try:
            checkpoint = restore(folder, number, like)
        except _DamageError as damage:
            damages.append(damage)
            continue
        for damage in damages:
            message = f"{damage}; {folder / str(number)} is used instead"
            warnings.warn(DamagedCheckpoint(message), stacklevel=2)
        return checkpoint
    if damages:
        reasons = "; ".join(str(damage) for damage in damages)
        raise InputError(f"no checkpoint in {folder} can be read: {reasons}; start a new run")
    raise InputError(f"{folder} holds no checkpoint; give the checkpoints of a run that has saved one")


def restore(folder: Path, round: int, like: Any) -> Checkpoint:
    """The checkpoint of one round, bit for bit as it was saved.

    Args:
        folder: Where the checkpoints of one run lie.
        round: One of ``rounds(folder)``.
        like: A pytree of arrays or ``jax.ShapeDtypeStruct`` with the structure, shapes and dtypes of the
            state; numpy arrays come back where it has numpy arrays, jax arrays elsewhere.

    Raises:
        InputError: there is no such checkpoint, it does not fit ``like``, or it is damaged.

    Example:
        >>> restore(Path("no/such/run"), 20, like=jnp.zeros(3))
        Traceback (most recent call last):
        gossamer.errors.InputError: no/such/run holds no checkpoint of round 20; it holds none
    """
    present = rounds(folder)
    if round not in present:
        held = ", ".join(map(str, present)) or "none"
        raise InputError(f"{folder} holds no checkpoint of round {round}; it holds {held}")
    path = folder / str(round)
    record = _read_record(path)
    _check_fit(path, record["leaves"], like)
    arrays = (_read_arrays if record["format"] == _FORMAT else _read_orbax)(path, record)
    return Checkpoint(round, _as_like(arrays, like), record["metadata"])


def rounds(folder: Path) -> list[int]:
    """Rounds of the checkpoints that were saved completely, in ascending order; none if there is no folder.

    Example:
        >>> rounds(Path("no/such/run"))
        []
    """
    if not folder.is_dir():
        return []
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); make it readable") from error
    return sorted(int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]*", name))


def forget_after(folder: Path, number: int) -> None:
    """Remove the checkpoints of rounds after ``number``, from which the run resumes."""
    for later in rounds(folder):
        if later > number:
            _set_aside(folder / str(later))
    remove_left_overs(folder)


class _DamageError(InputError):
    """What lies on the disk is not what was written."""


def _check(checkpoint: Checkpoint, keep: int) -> None:
    if keep < 1:
        raise InputError(f"keep is {keep}; it must be at least 1")
    if checkpoint.round < 0:
        raise InputError(f"round is {checkpoint.round}; it must be at least 0")
    try:
        plain = json.loads(json.dumps(checkpoint.metadata, allow_nan=False)) == checkpoint.metadata
    except (TypeError, ValueError):
        plain = False
    if not plain:
        raise InputError(
            f"metadata is {checkpoint.metadata!r:.80}; it must be plain JSON data, without tuples"
        )


def _write(path: Path, checkpoint: Checkpoint) -> None:
    leaves = _describe(checkpoint.state)
    names = [leaf["path"] for leaf in leaves]
    data = [_data(leaf) for leaf in jax.tree.leaves(checkpoint.state)]
    arrays = safetensors.numpy.save(dict(zip(names, map(_as_stored, data), strict=True)))
    record = {
        "format": _FORMAT,
        "round": checkpoint.round,
        "metadata": checkpoint.metadata,
        "leaves": leaves,
        "sha256": hashlib.sha256(arrays).hexdigest(),
    }
    path.mkdir()
    _write_durably(path / _ARRAYS, arrays)
    _write_durably(path / _RECORD, _sealed(record).encode())
    _sync(path)


def _as_stored(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.name in _STORED_AS_THEY_ARE:
        return np.ascontiguousarray(array).reshape(array.shape)  # the former makes a scalar a vector
    return np.frombuffer(array.tobytes(), np.uint8)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _publish(temporary: Path, final: Path) -> None:
    if final.exists():
        _set_aside(final)
    os.replace(temporary, final)
    _sync(final.parent)


def _prune(folder: Path, newest: int, keep: int) -> None:
    present = rounds(folder)
    kept = [number for number in present if number <= newest][-keep:]
    for number in present:
        if number not in kept:
            _set_aside(folder / str(number))


def _set_aside(path: Path) -> None:
    # Renamed before it is removed, so that half a directory never bears the name of a complete one.
    os.replace(path, path.with_name(_REMOVING + path.name))


def remove_left_overs(folder: Path) -> None:
    """What a save that was killed has left in a folder of checkpoints, which need not exist."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith((_SAVING, _REMOVING)):
            shutil.rmtree(path)


def _read_arrays(path: Path, record: dict[str, Any]) -> list[np.ndarray]:
    leaves = record["leaves"]
    limit = sum(_bytes_of(leaf) + _HEADER_BYTES + len(leaf["path"]) for leaf in leaves) + _HEADER_BYTES
    content = _read_regular(path, _ARRAYS, limit)
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise _DamageError(f"{path} is damaged ({_ARRAYS} is not as it was written)")
    try:
        stored = safetensors.numpy.load(content)
        return [_from_stored(stored[leaf["path"]], leaf) for leaf in leaves]
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _DamageError(f"{path} is damaged ({_ARRAYS} does not hold the arrays of {_RECORD})") from error


def _bytes_of(leaf: dict[str, Any]) -> int:
    return math.prod(leaf["shape"]) * jnp.dtype(leaf["dtype"]).itemsize


def _from_stored(array: np.ndarray, leaf: dict[str, Any]) -> np.ndarray:
    if leaf["dtype"] not in _STORED_AS_THEY_ARE:
        array = array.view(jnp.dtype(leaf["dtype"])).reshape(leaf["shape"])
    if (array.dtype.name, list(array.shape)) != (leaf["dtype"], leaf["shape"]):
        raise ValueError
    return array


def _read_regular(path: Path, name: str, limit: int) -> bytes:
    """The bytes of a file of at most ``limit`` bytes; a pipe or a device would never end."""
    try:
        status = (path / name).stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
            return (path / name).read_bytes()
    except OSError as error:
        raise _DamageError(f"{path} is damaged ({name}: {error.strerror})") from error
    raise _DamageError(f"{path} is damaged ({name} is not a regular file of at most {limit} bytes)")


def _read_orbax(path: Path, record: dict[str, Any]) -> list[np.ndarray]:
    """The arrays of a checkpoint of format 1."""
    try:
        import orbax.checkpoint
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} has format 1, which needs orbax-checkpoint; install it with: pip install 'gossamer[orbax]'"
        ) from error
    leaves = record["leaves"]
    # Every file, before Orbax opens one: its readers are not made for damaged input.
    for name, expected in record["files"].items():
        if hashlib.sha256(_read_regular(path, name, _LARGEST_ORBAX_FILE)).hexdigest() != expected:
            raise _DamageError(f"{path} is damaged ({name} is not as it was written)")
    as_numpy = orbax.checkpoint.RestoreArgs(restore_type=np.ndarray)
    wanted = {f"{index:06d}": as_numpy for index, leaf in enumerate(leaves) if 0 not in leaf["shape"]}
    stored = {}
    if wanted:
        with orbax.checkpoint.PyTreeCheckpointer(use_compression=False) as checkpointer:
            stored = checkpointer.restore((path / "state").absolute(), restore_args=wanted)
    empty = (np.empty(leaf["shape"], jnp.dtype(leaf["dtype"])) for leaf in leaves)
    arrays = [stored.get(f"{index:06d}", array) for index, array in enumerate(empty)]
    digest = hashlib.sha256(json.dumps(leaves).encode())
    for array in arrays:
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    if digest.hexdigest() != record["digest_of_leaves"]:
        raise _DamageError(f"{path} is damaged (its arrays are not those that were saved)")
    return arrays


def _describe(tree: Any) -> list[dict[str, Any]]:
    return [_describe_leaf(keystr(path), leaf) for path, leaf in tree_leaves_with_path(tree)]


def _describe_leaf(path: str, leaf: Any) -> dict[str, Any]:
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    try:
        return {"path": path, "dtype": np.dtype(leaf.dtype).name, "shape": list(leaf.shape)}
    except (AttributeError, TypeError) as error:
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        raise TypeError(f"leaf {path} is of type {kind}; a checkpoint holds jax and numpy arrays") from error


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _prng_impl(leaf: Any) -> Any:
    found: list[Any] = []
    # jax names the generator of a traced key, but not of a ``ShapeDtypeStruct``.
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), leaf)
    return found[0]


def _check_fit(path: Path, saved: Sequence[dict[str, Any]], like: Any) -> None:
    expected = _describe(like)
    advice = "resume with the configuration that saved it"
    for ours, theirs in zip(expected, saved, strict=False):
        if ours["path"] != theirs["path"]:
            raise InputError(f"{path} holds {_text(theirs)} where this run has {_text(ours)}; {advice}")
        if ours != theirs:
            raise InputError(f"{path} holds {_text(theirs)}, this run expects {_text(ours)}; {advice}")
    if len(expected) != len(saved):
        raise InputError(f"{path} holds {len(saved)} arrays, this run expects {len(expected)}; {advice}")


def _text(leaf: dict[str, Any]) -> str:
    return f"{leaf['path']} as {leaf['dtype']}{leaf['shape']}"


def _as_like(arrays: Sequence[np.ndarray], like: Any) -> Any:
    leaves, structure = jax.tree.flatten(like)
    restored = [_convert(array, leaf) for array, leaf in zip(arrays, leaves, strict=True)]
    return jax.tree.unflatten(structure, restored)


def _convert(array: np.ndarray, leaf: Any) -> Any:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.array(array), impl=_prng_impl(leaf))
    if isinstance(leaf, np.generic):
        return array[()]
    if isinstance(leaf, np.ndarray):
        return array.copy()  # what was read is not writeable
    # A copy, so that a donated state never lies in memory that numpy also owns.
    return jax.device_put(array, may_alias=False)


def _sealed(record: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(record).encode()).hexdigest()
    return json.dumps({"record": record, "digest": digest}, indent=1) + "\n"


def _read_record(path: Path) -> dict[str, Any]:
    content = _read_regular(path, _RECORD, _LARGEST_RECORD)
    try:
        text = content.decode()
        record = json.loads(text)["record"]
        intact = _sealed(record) == text and str(record["round"]) == path.name
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _DamageError(f"{path} is damaged ({_RECORD} cannot be read: {type(error).__name__})") from error
    if not intact:
        raise _DamageError(f"{path} is damaged ({_RECORD} is not as it was written)")
    if record.get("format") not in _KEYS:
        raise InputError(
            f"{path} has format {record.get('format')!r:.80}; this version of gossamer reads formats 1 and {_FORMAT}"
        )
    if missing := {"metadata", "leaves", *_KEYS[record["format"]]} - record.keys():
        raise _DamageError(f"{path} is damaged ({_RECORD} lacks {', '.join(sorted(missing))})")
    return record


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
