"""Memory and processor time that this process may use: the machine's, or a control group's limit."""

import math
import os
from collections.abc import Iterator, Sequence
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
    limits = _limits(root, "memory", ("memory.max",), ("memory.limit_in_bytes",))
    return min([machine, *(limit for (limit,) in limits)])


def core_quota(root: Path = Path("/")) -> float:
    """Processor seconds per second that control groups allow; infinite without a limit.

    Args:
        root: of the file system.

    Example:
        >>> core_quota() > 0
        True
    """
    quotas = _limits(root, "cpu", ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return min((quota / period for quota, period in quotas), default=math.inf)


def _limits(
    root: Path, controller: str, files: Sequence[str], files_of_version_1: Sequence[str]
) -> Iterator[list[int]]:
    """The numbers in these files of the process's control group and of those around it.

    A group without a limit is left out: its files hold a word, or -1.
    """
    groups = root / "sys/fs/cgroup"
    for controllers, path in _own_groups(root / "proc/self/cgroup"):
        if controllers == "":
            top, names = groups, files
        elif controller in controllers.split(","):
            top, names = groups / controller, files_of_version_1
        else:
            continue
        # A container may see the path that its host gives it, of which only the root is there.
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            said = " ".join(_read(top / group / name) for name in names).split()
            if said and all(number.isdecimal() for number in said):
                yield [int(number) for number in said]


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
