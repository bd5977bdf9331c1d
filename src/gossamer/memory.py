"""How much memory this process may use: the machine's, or less where a container or a job has a limit."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes: the smaller of what the machine has and what Linux' control groups allow.

    Args:
        root: of the file system.

    Example:
        >>> usable_memory() > 0
        True
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """Of the process's control group and of those around it, by either version; those without a limit say max."""
    groups = root / "sys/fs/cgroup"
    for controllers, path in _own_groups(root / "proc/self/cgroup"):
        if controllers == "":
            top, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        # A container may see the path that its host gives it, of which only the root is there.
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            said = _read(top / group / name).strip()
            if said.isdecimal():
                yield int(said)


def _own_groups(file: Path) -> Iterator[tuple[str, str]]:
    """The controllers and the path of each; version 2 has one group, and its controllers are not named."""
    for line in _read(file).splitlines():
        _, controllers, path = line.split(":", maxsplit=2)
        yield controllers, path


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
