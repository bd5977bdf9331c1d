"""States of a run on disk: saved atomically, kept few, and believed only after their bytes have been checked.

Knows pytrees of arrays and nothing of what they mean. Configurations and metrics are in the run's other files
(records). A typed PRNG key, which an environment may carry in its state, is stored as its key data.

A checkpoint is a directory named by its round: ``state/`` is Orbax's, one array per leaf in flattened order;
``checkpoint.json`` holds the caller's metadata, path, dtype and shape of every leaf, and the digests.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from gossamer.errors import InputError

_FORMAT = 1
_RECORD = "checkpoint.json"
_STATE = "state"
_SAVING = "saving-"
_REMOVING = "removing-"


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
    _verify_files(path, record["files"])
    arrays = _read_arrays(path / _STATE, record["leaves"])
    if _digest_of_leaves(record["leaves"], arrays) != record["digest_of_leaves"]:
        raise _DamageError(f"{path} is damaged (its arrays are not those that were saved)")
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
    """Remove the checkpoints of later rounds than ``number``: the run goes on from there."""
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
    arrays = [np.asarray(_data(leaf)) for leaf in jax.tree.leaves(checkpoint.state)]
    path.mkdir()
    _write_arrays(path / _STATE, arrays)
    record = {
        "format": _FORMAT,
        "round": checkpoint.round,
        "metadata": checkpoint.metadata,
        "leaves": leaves,
        "digest_of_leaves": _digest_of_leaves(leaves, arrays),
        "files": {str(file.relative_to(path)): _digest_of_file(file) for file in _files(path)},
    }
    (path / _RECORD).write_text(_sealed(record), encoding="utf-8")
    # Orbax syncs its data files but neither its own metadata nor any directory.
    for written in (*_files(path), *_directories(path)):
        _sync(written)


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


def _write_arrays(path: Path, arrays: Sequence[np.ndarray]) -> None:
    # Importing Orbax takes about a second, which commands that touch no checkpoint should not spend.
    import orbax.checkpoint

    # Orbax refuses arrays without elements; their description says all there is to say.
    stored = {_key(index): array for index, array in enumerate(arrays) if array.size}
    if stored:
        # Parameters hardly compress: compression takes four times as long to save a tenth of the space.
        with orbax.checkpoint.PyTreeCheckpointer(use_compression=False) as checkpointer:
            try:
                checkpointer.save(path.absolute(), stored)
            except ValueError as error:
                refused = _refused_by_the_system(error, path)
                if refused is None:
                    raise
                raise refused from error


def _refused_by_the_system(error: ValueError, path: Path) -> OSError | None:
    """What the system refused, such as a full disk, of which Orbax makes a ValueError."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return None if code is None else OSError(int(code[1]), os.strerror(int(code[1])), str(path))


def _read_arrays(path: Path, leaves: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    import orbax.checkpoint

    as_numpy = orbax.checkpoint.RestoreArgs(restore_type=np.ndarray)
    wanted = {_key(index): as_numpy for index, leaf in enumerate(leaves) if 0 not in leaf["shape"]}
    stored = {}
    if wanted:
        with orbax.checkpoint.PyTreeCheckpointer(use_compression=False) as checkpointer:
            stored = checkpointer.restore(path.absolute(), restore_args=wanted)
    return [
        stored[_key(index)] if _key(index) in stored else np.empty(leaf["shape"], jnp.dtype(leaf["dtype"]))
        for index, leaf in enumerate(leaves)
    ]


def _key(index: int) -> str:
    # A number and not the leaf's path: Orbax joins names with characters that paths may contain.
    return f"{index:06d}"


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
        return array
    # A copy, so that a donated state never lies in memory that numpy also owns.
    return jax.device_put(array, may_alias=False)


def _digest_of_leaves(leaves: Sequence[dict[str, Any]], arrays: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(leaves).encode())
    for array in arrays:
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify_files(path: Path, files: dict[str, str]) -> None:
    # Every file, before Orbax opens one: its readers are not made for damaged input.
    for name, expected in files.items():
        try:
            actual = _digest_of_file(path / name)
        except OSError as error:
            raise _DamageError(f"{path} is damaged ({name}: {error.strerror})") from error
        if actual != expected:
            raise _DamageError(f"{path} is damaged ({name} is not as it was written)")


def _sealed(record: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(record).encode()).hexdigest()
    return json.dumps({"record": record, "digest": digest}, indent=1) + "\n"


def _read_record(path: Path) -> dict[str, Any]:
    file = path / _RECORD
    try:
        text = file.read_text(encoding="utf-8")
        record = json.loads(text)["record"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _DamageError(f"{path} is damaged ({_RECORD} cannot be read: {type(error).__name__})") from error
    if _sealed(record) != text or str(record["round"]) != path.name:
        raise _DamageError(f"{path} is damaged ({_RECORD} is not as it was written)")
    if record["format"] != _FORMAT:
        raise InputError(
            f"{path} has format {record['format']}; this version of gossamer reads format {_FORMAT}"
        )
    return record


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def _directories(path: Path) -> list[Path]:
    return [path, *(inner for inner in path.rglob("*") if inner.is_dir())]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
