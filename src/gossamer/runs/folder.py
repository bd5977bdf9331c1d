"""What a run leaves in its folder: the configuration, the metrics, the events.

The folder holds ``config.json``, ``metrics.jsonl``, ``events.out.tfevents.*``, ``checkpoints/``, and ``writer.lock``
for the process that writes it. This module handles the first three and knows neither what is trained nor checkpoints.
"""

import contextlib
import importlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from gossamer.errors import InputError

_CONFIG = "config.json"
_FORMAT = 2  # of config.json: 1, which it does not say, named classes by module
_PACKAGES = ("gossamer", "jax", "jaxlib", "flax", "optax", "numpy")
_LISTED_AGENTS = 100
_SAMPLED_AGENTS = 16
_QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}


def create_run(path: Path, config_data: dict[str, Any]) -> Path:
    """The folder of a new run, made with its parents, in which ``config.json`` is complete or absent.

    Args:
        path: A directory that does not exist yet or is empty.
        config_data: Plain JSON data (``serialization.to_data``).

    Returns:
        The path.

    Raises:
        InputError: the path is taken or cannot be written, or the data is not JSON; nothing is written then.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     read_config(create_run(Path(parent) / "run", {"seed": 0}))
        {'format': 2, 'seed': 0}
    """
    text = _json({"format": _FORMAT, **config_data}, indent=2)
    require_free(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / _CONFIG, text + "\n")
    except OSError as error:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise _unwritable(path, error) from error
    return path


def require_free(path: Path) -> None:
    """Refuse the folder of a new run that is taken, before anything is written.

    Raises:
        InputError: it is a file, or holds something.
    """
    try:
        _require_free(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def replace_config(path: Path, config_data: dict[str, Any]) -> None:
    """Puts another ``config.json`` into a run's folder, whole or not at all.

    Raises:
        InputError: the folder cannot be written, or the data is not JSON.
    """
    text = _json({**config_data, "format": _FORMAT}, indent=2)
    try:
        write_atomically(path / _CONFIG, text + "\n")
    except OSError as error:
        raise _unwritable(path, error) from error


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all; floats that are not finite become null.

    Raises:
        InputError: the file cannot be written, or the data is not JSON.
    """
    text = _json(_without_non_finite(data), indent=1)
    try:
        write_atomically(path, text + "\n")
    except OSError as error:
        raise _unwritable(path, error) from error


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all; what is there when this returns survives a loss of power."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def read_config(path: Path) -> dict[str, Any]:
    """The content of a run's ``config.json``.

    Raises:
        InputError: the path is no run folder, or its ``config.json`` cannot be read.

    Example:
        >>> read_config(Path("no/such/run"))
        Traceback (most recent call last):
        gossamer.errors.InputError: no/such/run is not a run folder; it must be a directory that...
    """
    config = path / _CONFIG
    try:
        if not config.is_file():
            raise InputError(f"{path} is not a run folder; it must be a directory that holds {_CONFIG}")
        data = json.loads(config.read_bytes())
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{config} cannot be read ({error}); it must be the file that the run wrote"
        ) from error
    if not isinstance(data, dict):
        raise InputError(f"{config} holds no JSON object; it must be the file that the run wrote")
    if (number := data.get("format", 1)) not in (1, _FORMAT):
        raise InputError(
            f"{config} has format {number!r:.40}; this version of gossamer reads 1 and {_FORMAT}"
        )
    return data


def provenance() -> dict[str, Any]:
    """What produced a run: versions, source revision, machine, devices and the generator of random numbers.

    A package that is not installed, and the revision of a source that git does not track, are None. A
    revision with uncommitted changes ends in ``-dirty``.

    Example:
        >>> provenance()["prng"]
        'threefry2x32'
    """
    # Nothing else in this file needs jax.
    import jax

    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        **{package: _version(package) for package in _PACKAGES},
        "git_revision": _git_revision(Path(__file__).resolve()),
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "prng": str(jax.random.key_impl(jax.random.key(0))),
    }


def _processor() -> str:
    """The processor's name, which Python tells on some systems only."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


class MetricsLog:
    """Append-only JSON lines: ``metrics.jsonl``, one object a line, readable at any moment.

    Opening an existing file continues it; a half-written last line, left by a crash, is removed first.

    Raises:
        InputError: the file cannot be opened for writing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, MetricsLog(Path(folder) / "metrics.jsonl") as log:
        ...     log.append([{"round": 0, "loss": float("nan")}, {"round": 1, "loss": 0.5}])
        ...     read_metrics(log.path)
        [{'round': 0, 'loss': None}, {'round': 1, 'loss': 0.5}]
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise _unwritable(path, error) from error
        self._file.truncate(_end_of_last_line(path))

    @property
    def offset(self) -> int:
        """Length of the file in bytes: what ``truncate`` takes to come back to this moment."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds one line for each row, all in one write; floats that are not finite become null."""
        lines = (json.dumps(_without_non_finite(row), allow_nan=False) + "\n" for row in rows)
        self._file.write("".join(lines).encode())
        self._file.flush()

    def truncate(self, offset: int) -> None:
        """Forgets all that was appended after the file was ``offset`` bytes long.

        Raises:
            InputError: the file is shorter, or ``offset`` is not the end of a line.
        """
        require_recorded(self.path, offset)
        self._file.truncate(offset)
        self.sync()

    def sync(self) -> None:
        """Waits until everything appended so far survives a loss of power."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_recorded(path: Path, offset: int) -> None:
    """Refuse metrics that lack some of what had been recorded, before anything is written.

    Args:
        path: of ``metrics.jsonl``.
        offset: bytes that were recorded; none, and the file need not be there.

    Raises:
        InputError: the file is missing or shorter, or ``offset`` is not the end of a line.

    Example:
        >>> require_recorded(Path("nowhere/metrics.jsonl"), 0)
        >>> require_recorded(Path("nowhere/metrics.jsonl"), 7)
        Traceback (most recent call last):
        gossamer.errors.InputError: nowhere/metrics.jsonl is missing and 7 bytes were recorded there: ...
    """
    if offset == 0:
        return
    remedy = "the metrics were damaged; restore the file or start a new run"
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(offset - 1)
            last = file.read(1)
    except FileNotFoundError:
        raise InputError(f"{path} is missing and {offset} bytes were recorded there: {remedy}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); make it readable") from error
    if size < offset:
        raise InputError(f"{path} holds {size} bytes where {offset} were recorded: {remedy}")
    if last != b"\n":
        raise InputError(f"{path} has no line that ends at byte {offset}: {remedy}")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``, also of a run that is still going or was killed.

    A last line without its newline is half-written and left out.

    Raises:
        InputError: the file cannot be read, or a line (named by its number, from 1) is not a JSON object.

    Example:
        >>> read_metrics(Path("no/such/metrics.jsonl"))
        Traceback (most recent call last):
        gossamer.errors.InputError: no/such/metrics.jsonl cannot be read (No such file or directory); ...
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); it must be a run's metrics.jsonl"
        ) from error
    lines = content.split(b"\n")[:-1]
    return [_parse_row(line, path, number) for number, line in enumerate(lines, start=1)]


def read_last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row of a ``metrics.jsonl``, without reading those before it; None where there is none yet."""
    try:
        with path.open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - _TAIL))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    return json.loads(lines[-1]) if lines else None


_TAIL = 2**16  # bytes; a row of an agent has about one thousand


class EventLog:
    """Scalars for TensorBoard: one ``events.out.tfevents.*`` file for every time it is opened.

    It writes through tensorboardX's synchronous writer and not through its ``SummaryWriter``, which hands
    events to a thread behind a queue: there ``flush`` does not wait for what is queued, and a killed run
    loses it.

    Args:
        folder: The run's folder; it must exist.
        purge_step: Where a resumed run continues: TensorBoard hides what earlier files hold at this step or
            later.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with EventLog(Path(folder)) as log:
        ...         log.write(1000, {"charts/episodic_return": 21.5})
        ...     len(list(Path(folder).glob("events.out.tfevents.*")))
        1
    """

    def __init__(self, folder: Path, purge_step: int | None = None):
        # Importing tensorboardX takes longer than most commands that only read records.
        from tensorboardX.event_file_writer import EventsWriter

        # The writer names its file by the second and overwrites; the count keeps names distinct and in order.
        count = len(list(folder.glob("events.out.tfevents.*")))
        try:
            self._writer = EventsWriter(str(folder / "events"), f".{count:04d}")
        except OSError as error:
            raise _unwritable(folder, error) from error
        # Protobuf makes its classes at import, out of the type checker's sight.
        self._event: Any = importlib.import_module("tensorboardX.proto.event_pb2").Event
        if purge_step is not None:
            self._write(purge_step, None, session_log={"status": "START"})
        self._writer.flush()

    def write(self, step: int, scalars: Mapping[str, float], wall_time: float | None = None) -> None:
        """Adds one event with all the scalars.

        Args:
            step: Position on the x axis: environment steps of all agents so far.
            scalars: Values by tag, such as ``losses/actor``; stored in single precision.
            wall_time: Seconds since 1970; now if None.
        """
        values = [{"tag": tag, "simple_value": float(value)} for tag, value in scalars.items()]
        self._write(step, wall_time, summary={"value": values})

    def flush(self) -> None:
        """Waits until everything written so far survives a loss of power."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, step: int, wall_time: float | None, **content: Any) -> None:
        when = time.time() if wall_time is None else wall_time
        self._writer.write_event(self._event(step=int(step), wall_time=when, **content))


def summarise(values: Shaped[np.ndarray, " agent"]) -> dict[str, Any]:
    """One number per agent, as a record holds it: the same size however large the population.

    Up to 100 agents, ``{"each": [...]}``. Above, ``{"quantiles": {min, q05, q25, median, q75, q95, max},
    "sample": {"agent": [...], "value": [...]}}`` with linearly interpolated quantiles and 16 agents at even
    distances, the first and the last among them.

    Example:
        >>> summarise(np.array([1.0, 2.0]))
        {'each': [1.0, 2.0]}
        >>> summarise(np.arange(1001.0))["quantiles"]["q05"]
        50.0
    """
    if len(values) <= _LISTED_AGENTS:
        return {"each": values.tolist()}
    # Infinite values interpolate to NaN, which the log turns into null.
    with np.errstate(invalid="ignore"):
        levels = np.quantile(values.astype(np.float64), list(_QUANTILES.values())).tolist()
    agents = np.linspace(0, len(values) - 1, _SAMPLED_AGENTS).round().astype(int)
    return {
        "quantiles": dict(zip(_QUANTILES, levels, strict=True)),
        "sample": {"agent": agents.tolist(), "value": values[agents].tolist()},
    }


def _require_free(path: Path) -> None:
    if (path / _CONFIG).is_file():
        raise InputError(
            f"{path} already holds a run; continue it (--resume {path}), or give another folder (--out)"
        )
    if path.is_dir():
        if any(path.iterdir()):
            raise InputError(
                f"{path} is a directory that is not empty; give another folder (--out), new or empty"
            )
    elif path.exists():
        raise InputError(f"{path} is a file; give another folder (--out), new or empty")


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written ({error.strerror}); choose a place that can be")


def _json(data: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(data, indent=indent, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the configuration is not plain JSON data ({error}); use serialization.to_data"
        ) from error


def _sync_directory(folder: Path) -> None:
    # A rename is durable only once the directory that holds the name is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision(source: Path) -> str | None:
    # An installed copy may lie inside a stranger's repository, whose revision says nothing about it.
    if _git(source.parent, "ls-files", "--error-unmatch", source.name) is None:
        return None
    return _git(source.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _end_of_last_line(path: Path) -> int:
    return path.read_bytes().rfind(b"\n") + 1


def _parse_row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise InputError(f"line {number} of {path} is {line!r:.40}; every line must be a JSON object")
    return row


def _without_non_finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_non_finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_non_finite(item) for item in value]
    if isinstance(value, np.generic):
        return _without_non_finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
