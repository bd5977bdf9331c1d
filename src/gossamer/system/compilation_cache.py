"""JAX's persistent compilation cache in the user's cache directory: each machine compiles a program once.

``docs/decisions/compilation-cache.md`` says what was chosen and why. Importing this module does not import JAX.
"""

import hashlib
import os
import platform
import re
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs

MOST_BYTES = 2**30  # for all versions and processors together


class CacheWarning(UserWarning):
    """Compiled programs cannot be kept. Nothing is lost but time."""


@contextmanager
def persistent_cache() -> Iterator[Path | None]:
    """Read and keep compiled programs inside the block, then restore JAX's settings.

    Settings of the caller come first: a directory in ``JAX_COMPILATION_CACHE_DIR`` or in ``jax.config`` is used as it
    is, and ``JAX_ENABLE_COMPILATION_CACHE=false`` turns the cache off. Results are equal with and without it. Blocks
    may be nested.

    Yields:
        The directory in use; None if programs are not kept.

    Warns:
        CacheWarning: The user's cache directory is not writable, or other users can write to it.
    """
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    if not setting("jax_enable_compilation_cache"):
        yield None
        return
    if chosen := setting("jax_compilation_cache_dir"):
        yield Path(chosen)
        return
    folder = _prepared()
    if folder is None:
        yield None
        return
    before = setting("jax_persistent_cache_min_compile_time_secs")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        with _damaged_entries_deleted(folder):
            yield folder
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
        reset_cache()  # JAX would keep using the open cache


def setting(name: str) -> Any:
    """The value of one of JAX's settings, in this process now."""
    import jax

    return getattr(jax.config, name)


def disable_cache() -> None:
    """Neither read nor keep compiled programs, in this process and in those that it starts."""
    import jax

    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    jax.config.update("jax_enable_compilation_cache", False)


def cache_root() -> Path:
    """The directory that holds a directory of compiled programs for each backend, jaxlib and processor."""
    return platformdirs.user_cache_path("gossamer") / "compiled"


def cache_folder() -> Path:
    """The directory for the default backend on this machine, created if it is missing.

    Raises:
        OSError: It is not writable, or other users can write to it and so make this one run their code.
    """
    import jax

    root = cache_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = root.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise PermissionError(f"other users can write to {root}; remove it")
    # Entries written without JAX's own bound would break that bound, which wants a time of use beside each.
    bound = "" if setting("jax_compilation_cache_max_size") == -1 else "-bounded"
    folder = root / f"{jax.default_backend()}-jaxlib-{version('jaxlib')}-{processor()}{bound}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is not writable")
    return folder


def complaint(folder: Path, again: bool = False) -> str:
    """What XLA objects to when it loads a program that it compiled on this machine; empty if it does not.

    Some versions of jaxlib log two errors for each program that they load on an AVX-512 processor
    (openxla/xla#44565). One small program is tried per directory, which keeps the answer.

    Args:
        folder: Where the answer is kept.
        again: Try again even if an answer is kept.
    """
    import jax
    from jax.experimental.serialize_executable import deserialize_and_load, serialize

    answer = folder / "complaint"
    if answer.exists() and not again:
        return answer.read_text()
    text = ""
    compiled = serialize(jax.jit(lambda x: x + 1).lower(0.0).compile())
    with tempfile.TemporaryFile() as file:
        try:
            with _standard_error_to(file.fileno()):
                deserialize_and_load(*compiled)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        file.seek(0)
        logged = file.read().decode(errors="replace")
    if found := re.search(r"Target machine feature \S+ is not +supported on the host machine", logged):
        text = " ".join(found.group().split())
    _write_at_once(answer, text)
    return text


def files(root: Path) -> list[tuple[Path, int, float]]:
    """Path, bytes and time of last use of each file below a directory."""
    found = []
    for path in root.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # another process deleted it
            continue
        if stat.S_ISREG(status.st_mode):
            found.append((path, status.st_size, max(status.st_atime, status.st_mtime)))
    return found


def prune(root: Path) -> None:
    """Delete the files that were not used for longest until the others fit in ``MOST_BYTES``."""
    found = files(root)
    excess = sum(size for _, size, _ in found) - MOST_BYTES
    for path, size, _ in sorted(found, key=lambda each: each[2]):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """A digest of the features and the model of the processor, for both of which XLA compiles."""
    about = cpuinfo.read_text().split("\n\n")[0] if cpuinfo.exists() else platform.processor()
    wanted = r"^(?:vendor_id|cpu family|model|model name|stepping|flags|Features|CPU \w+)\s*:.*$"
    lines = re.findall(wanted, about, re.M) or [about]
    return hashlib.sha256("\n".join([platform.machine(), *lines]).encode()).hexdigest()[:12]


def _prepared() -> Path | None:
    """The directory, ready for use; None where the cache is off or would do harm."""
    # JAX itself does not see a variable that is empty, or was set after it was imported.
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    try:
        folder = cache_folder()
        if complaint(folder):
            return None  # silently: gossamer doctor explains it
        prune(folder.parent)
    except OSError as error:
        warnings.warn(
            f"compiled programs cannot be kept ({error}), so each run compiles them again; --no-cache hides this",
            CacheWarning,
            stacklevel=4,
        )
        return None
    return folder


@contextmanager
def _standard_error_to(descriptor: int) -> Iterator[None]:
    """Redirect what the process writes to its standard error, libraries in C++ included."""
    kept = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _damaged_entries_deleted(folder: Path) -> Iterator[None]:
    """Delete entries that JAX cannot read or write, of which it warns by the names of their programs.

    A full disk or a kill leaves an incomplete file, which JAX would neither use nor replace.
    """
    usual, told = warnings.showwarning, False

    def shown(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        nonlocal told
        match = re.match(r"Error (\w+) persistent compilation cache entry for '(.*?)': (.*)", str(message))
        if match is None:
            return usual(message, category, *where, **more)
        for entry in folder.glob(f"{match[2]}-*"):
            entry.unlink(missing_ok=True)
        if match[1] == "writing" and not told:
            told = True
            usual(
                CacheWarning(f"compiled programs cannot be kept ({match[3]})"), CacheWarning, *where, **more
            )

    warnings.showwarning = shown
    try:
        yield
    finally:
        if warnings.showwarning is shown:
            warnings.showwarning = usual


def _write_at_once(path: Path, text: str) -> None:
    """Write a file that other processes see whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)
