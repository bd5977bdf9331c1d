"""A folder is written by one process at a time: who comes second is refused before it touches anything."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gossamer.errors import InputError


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep a folder for this process, which may be killed: then it is free again.

    The system holds the lock, on an empty file that stays. On a file system without locks nothing is claimed.

    Args:
        folder: it exists.

    Raises:
        InputError: another process has it, or this one already, or nothing can be written there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, claimed(Path(folder)), claimed(Path(folder)):
        ...     pass
        Traceback (most recent call last):
        gossamer.errors.InputError: another process writes to ...; stop it first, or give another folder
    """
    lock = FileLock(folder / LOCK, blocking=False, mode=0o644)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another process writes to {folder}; stop it first, or give another folder"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise InputError(
                f"{folder} cannot be written ({error.strerror}); make it writable, or give another folder"
            ) from error
    try:
        yield
    finally:
        lock.release()


LOCK = "writer.lock"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
