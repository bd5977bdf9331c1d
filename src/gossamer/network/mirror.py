"""A copy of an agent's folder that is elsewhere: what has changed there since, and how the copy takes it over.

Who carries it is not known here. A folder has small files that are replaced (``*.json``), files that only grow, and
checkpoints, which appear and disappear whole.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Changes(NamedTuple):
    """What a folder has that its copy has not.

    Example:
        >>> Changes().checkpoints
        {}
    """

    grown: Mapping[str, tuple[int, bytes]] = {}
    """Of files that grow: where the copy ends, and what comes then; from 0 on it is the whole file."""
    replaced: Mapping[str, bytes] = {}
    """Small files, whole."""
    checkpoints: Mapping[str, Mapping[str, bytes]] = {}
    """New checkpoints, such as ``checkpoints/12``: their files."""
    kept: frozenset[str] = frozenset()
    """Checkpoints that the folder has."""


class Held(NamedTuple):
    """What a copy has taken over from one life of an agent. A new life has cut its files, so that it begins empty.

    Example:
        >>> Held().and_then(Changes(grown={"metrics.jsonl": (0, b"{}")})).lengths
        {'metrics.jsonl': 2}
    """

    lengths: Mapping[str, int] = {}
    """Of files that grow, in bytes."""
    checkpoints: frozenset[str] = frozenset()

    def and_then(self, changes: Changes) -> "Held":
        """After some changes more."""
        lengths = {name: offset + len(data) for name, (offset, data) in changes.grown.items()}
        return Held({**self.lengths, **lengths}, (self.checkpoints | set(changes.checkpoints)) & changes.kept)


def changes_of(folder: Path, held: Held | None = None) -> Changes:
    """What a folder has that is not held; all of it by default.

    It may be written to meanwhile: a checkpoint that is removed while it is read is left out, and where a checkpoint
    is among the changes, so are the metrics that it counts on.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "metrics.jsonl").write_text("12345")
        >>> changes_of(folder, Held({"metrics.jsonl": 3})).grown
        {'metrics.jsonl': (3, b'45')}
    """
    held = held or Held()
    saved = {name: folder / name for name in _checkpoints(folder)}
    read = {name: _read_all(path) for name, path in saved.items() if name not in held.checkpoints}
    files = sorted(
        path for path in folder.iterdir() if path.is_file() and path.suffix not in (".tmp", ".lock")
    )
    grown = {
        path.name: _tail(path, held.lengths.get(path.name, 0)) for path in files if path.suffix != ".json"
    }
    return Changes(
        {name: tail for name, tail in grown.items() if tail[1] or name not in held.lengths},
        {path.name: path.read_bytes() for path in files if path.suffix == ".json"},
        {name: content for name, content in read.items() if content is not None},
        frozenset(saved),
    )


def take_over(copy: Path, changes: Changes) -> None:
    """Bring a copy up to date; it is made if it is missing, and it is sound whenever this is cut short.

    Example:
        >>> import tempfile
        >>> copy = Path(tempfile.mkdtemp())
        >>> take_over(copy, Changes(grown={"metrics.jsonl": (0, b"12")}))
        >>> take_over(copy, Changes(grown={"metrics.jsonl": (2, b"34")}))
        >>> (copy / "metrics.jsonl").read_text()
        '1234'
    """
    copy.mkdir(parents=True, exist_ok=True)
    for name, (offset, data) in changes.grown.items():
        _grow(copy / name, offset, data)
    for name, data in changes.replaced.items():
        if not (copy / name).exists() or (copy / name).read_bytes() != data:
            _replace(copy / name, data)
    if changes.checkpoints:
        # A checkpoint says how long the metrics are, and is refused where they are shorter.
        for path in copy.glob("*.jsonl"):
            _sync(path)
    for name, content in changes.checkpoints.items():
        _place(copy / name, content)
    for name in set(_checkpoints(copy)) - changes.kept:
        _remove(copy / name)


def _checkpoints(folder: Path) -> Iterator[str]:
    """Names of all complete checkpoints: directories named by a number, in directories of the folder."""
    for path in folder.glob("*/*"):
        if path.name.isdecimal() and path.is_dir():
            yield str(path.relative_to(folder))


def _read_all(folder: Path) -> dict[str, bytes] | None:
    """Every file in it; None if it was removed meanwhile, which begins with another name for it."""
    try:
        content = {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
    except FileNotFoundError:
        return None
    return content if folder.is_dir() else None


def _tail(path: Path, offset: int) -> tuple[int, bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        return offset, file.read()


def _grow(path: Path, offset: int, data: bytes) -> None:
    if offset == 0:
        _replace(path, data)
        return
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _place(path: Path, content: Mapping[str, bytes]) -> None:
    temporary = path.with_name(f"saving-{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, data in content.items():
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        (temporary / name).write_bytes(data)
    if path.exists():
        _remove(path)
    os.replace(temporary, path)


def _remove(path: Path) -> None:
    # Renamed first, so that half a directory never bears the name of a complete one.
    aside = path.with_name(f"removing-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)
    shutil.rmtree(aside)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
