"""What the machine uses while a run goes: how busy its GPU is, power, energy. Nothing here knows what runs.

The GPU is asked through NVML (package ``nvidia-ml-py``, extra ``gpu-measurements``), the processor through the kernel's
powercap (RAPL). Where one of them cannot be asked, its numbers are None, and the reading says why.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from gossamer.errors import InputError, require_positive

_POWERCAP = Path("/sys/class/powercap")


class PowerReading(NamedTuple):
    """What was used since an ``EnergyMeter`` started.

    ``gpu_utilisation`` is the mean share of time in which the GPU ran at least one kernel, in per cent; ``gpu_watts``
    the mean power of the whole board, ``cpu_joules`` the energy of all processor packages without their memory: of
    everything that runs there, not of this process only. What is None is explained in ``why_not``.
    """

    seconds: float
    gpu_utilisation: float | None
    gpu_watts: float | None
    gpu_joules: float | None
    cpu_joules: float | None
    why_not: str | None


class GpuSample(NamedTuple):
    """What a GPU says at one moment: per cent, watts, and joules since some moment before; None if it does not."""

    utilisation: float | None
    watts: float | None
    joules: float | None


class GpuSensor(Protocol):
    """A GPU that can be asked.

    Raises:
        Unavailable: it cannot be.
    """

    def sample(self) -> GpuSample:
        """Its state now."""
        ...


class CpuSensor(Protocol):
    """Processors that can be asked.

    Raises:
        Unavailable: they cannot be.
    """

    def joules(self) -> float:
        """Energy since the sensor was made; to be asked again before a counter has gone round."""
        ...


class Unavailable(Exception):
    """A sensor cannot be asked; the message says why, in one sentence."""


class EnergyMeter:
    """Asks sensors every ``period`` seconds, in a thread of its own, from ``start`` to ``stop``.

    A sensor that fails once is not asked again: its numbers would be of another time than the rest.

    Args:
        gpu: makes the sensor of the GPU, or says that there is none.
        cpu: makes the sensor of the processors, or says that there is none.
        period: seconds between samples.
        clock: seconds.

    Raises:
        InputError: a period that is not above 0.

    Example:
        >>> def no_sensor():
        ...     raise Unavailable("no sensor answers")
        >>> with EnergyMeter(gpu=no_sensor, cpu=no_sensor) as meter:
        ...     reading = meter.read()
        >>> reading.gpu_joules, reading.why_not
        (None, 'GPU: no sensor answers; CPU: no sensor answers')
    """

    def __init__(
        self,
        gpu: Callable[[], GpuSensor] | None = None,
        cpu: Callable[[], CpuSensor] | None = None,
        period: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ):
        require_positive("period", period)
        self._make_gpu, self._make_cpu = gpu or NvmlGpu, cpu or RaplCpu
        self._period, self._clock = period, clock
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; all numbers are since now.

        Raises:
            InputError: it has begun already.
        """
        if self._thread is not None:
            raise InputError("the energy meter has been started already; make another one")
        self._started = self._clock()
        self._gpu = _GpuTotal(self._make_gpu, self._started)
        self._cpu = _CpuTotal(self._make_cpu)
        self._thread = threading.Thread(target=self._keep_sampling, name="energy meter", daemon=True)
        self._thread.start()

    def read(self) -> PowerReading:
        """What was used from the start until now, or until ``stop``.

        Raises:
            InputError: it was not started.
        """
        if self._thread is None:
            raise InputError("the energy meter was not started; call start, or use it in a with statement")
        with self._lock:
            if not self._stopped.is_set():
                self._sample()
            seconds = self._sampled - self._started
            gpu, cpu = self._gpu, self._cpu
            reasons = [f"GPU: {why}" for why in gpu.reasons()]
            reasons += [f"CPU: {cpu.why_not}"] if cpu.why_not else []
            why_not = "; ".join(reasons) or None
            return PowerReading(seconds, gpu.utilisation(), gpu.watts(), gpu.joules(), cpu.joules(), why_not)

    def stop(self) -> None:
        """End; what ``read`` gives does not change any more."""
        if self._thread is None or self._stopped.is_set():
            return
        with self._lock:
            self._sample()
            self._stopped.set()
        self._thread.join()

    def __enter__(self) -> "EnergyMeter":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _keep_sampling(self) -> None:
        while not self._stopped.wait(self._period):
            with self._lock:
                if not self._stopped.is_set():
                    self._sample()

    def _sample(self) -> None:
        self._sampled = self._clock()
        self._gpu.sample(self._sampled)
        self._cpu.sample()


class NvmlGpu:
    """The first GPU that CUDA_VISIBLE_DEVICES names, by number in the order of the bus or by identifier; or number 0.

    Args:
        nvml: the module ``pynvml``, imported if it is None.

    Raises:
        Unavailable: no NVML, or no such GPU.
    """

    def __init__(self, nvml: Any = None):
        self._nvml = _import_nvml() if nvml is None else nvml
        try:
            self._nvml.nvmlInit()
            self._handle = self._find(os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip())
        except self._nvml.NVMLError as error:
            raise Unavailable(f"NVML finds no GPU ({error})") from error

    def sample(self) -> GpuSample:
        """Its state now; what the device does not support is None."""
        nvml = self._nvml
        utilisation = self._ask(lambda handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        milliwatts = self._ask(nvml.nvmlDeviceGetPowerUsage)
        millijoules = self._ask(nvml.nvmlDeviceGetTotalEnergyConsumption)
        return GpuSample(utilisation, _thousandth(milliwatts), _thousandth(millijoules))

    def _find(self, name: str) -> Any:
        if name.isdecimal():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(name))
        if name.startswith(("GPU-", "MIG-")):
            return self._nvml.nvmlDeviceGetHandleByUUID(name)
        raise Unavailable(f"CUDA_VISIBLE_DEVICES hides all GPUs (it begins with {name!r})")

    def _ask(self, question: Callable[[Any], float]) -> float | None:
        try:
            return question(self._handle)
        except self._nvml.NVMLError_NotSupported:
            return None
        except self._nvml.NVMLError as error:
            raise Unavailable(f"NVML does not answer any more ({error})") from error


class RaplCpu:
    """All processor packages, by the kernel's counters of microjoules, which go round.

    Memory and parts of a package have zones of their own, which are left out: parts would count twice.

    Args:
        folder: where the kernel shows them.

    Raises:
        Unavailable: no such counters, or no permission to read them.
    """

    def __init__(self, folder: Path = _POWERCAP):
        try:
            zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if _is_package(zone)]
            self._counters = [_Counter(zone) for zone in zones]
        except (OSError, ValueError) as error:
            raise _unreadable(error) from error
        if not zones:
            raise Unavailable(f"the kernel shows no energy of processors in {folder}")

    def joules(self) -> float:
        """Energy since the sensor was made; to be asked again before a counter has gone round."""
        try:
            return sum(counter.advance() for counter in self._counters) / 1e6
        except (OSError, ValueError) as error:
            raise _unreadable(error) from error


class _Counter:
    """Microjoules of one zone since it was made."""

    def __init__(self, zone: Path):
        self._file = zone / "energy_uj"
        self._round = int((zone / "max_energy_range_uj").read_text())
        self._last = int(self._file.read_text())
        self._total = 0

    def advance(self) -> int:
        now = int(self._file.read_text())
        self._total += now - self._last + (self._round if now < self._last else 0)
        self._last = now
        return self._total


class _CpuTotal:
    """What the processors have used, or why that is not known."""

    def __init__(self, make: Callable[[], CpuSensor]):
        self.why_not: str | None = None
        self._joules = 0.0
        try:
            self._sensor = make()
        except Unavailable as error:
            self.why_not = str(error)

    def sample(self) -> None:
        if self.why_not is not None:
            return
        try:
            self._joules = self._sensor.joules()
        except Unavailable as error:
            self.why_not = str(error)

    def joules(self) -> float | None:
        return self._joules if self.why_not is None else None


class _GpuTotal:
    """What the GPU has used, or why that is not known. Between two samples, values are the mean of both."""

    def __init__(self, make: Callable[[], GpuSensor], now: float):
        self.why_not: str | None = None
        self._seconds = 0.0
        self._percent_seconds: float | None = 0.0
        self._watt_seconds: float | None = 0.0
        try:
            self._sensor = make()
            self._first = self._last = self._sensor.sample()
        except Unavailable as error:
            self.why_not = str(error)
        self._at = now

    def sample(self, now: float) -> None:
        if self.why_not is not None:
            return
        try:
            sample = self._sensor.sample()
        except Unavailable as error:
            self.why_not = str(error)
            return
        span, last = now - self._at, self._last
        self._percent_seconds = _grown(self._percent_seconds, last.utilisation, sample.utilisation, span)
        self._watt_seconds = _grown(self._watt_seconds, last.watts, sample.watts, span)
        self._seconds += span
        self._last, self._at = sample, now

    def reasons(self) -> list[str]:
        if self.why_not is not None:
            return [self.why_not]
        what = {"utilisation": self.utilisation(), "power": self.watts()}
        return [f"the device does not report its {name}" for name, value in what.items() if value is None]

    def utilisation(self) -> float | None:
        return self._mean(self._percent_seconds)

    def joules(self) -> float | None:
        """By the device's own counter if it has one, else by its power over time."""
        if self.why_not is not None:
            return None
        if self._first.joules is not None and self._last.joules is not None:
            return self._last.joules - self._first.joules
        return self._watt_seconds

    def watts(self) -> float | None:
        return self._mean(self.joules())

    def _mean(self, total: float | None) -> float | None:
        if total is None or self.why_not is not None or self._seconds <= 0:
            return None
        return total / self._seconds


def _import_nvml() -> Any:
    try:
        import pynvml  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise Unavailable(
            "the package nvidia-ml-py is not installed; pip install 'gossamer[gpu-measurements]'"
        ) from error
    return pynvml


def _is_package(zone: Path) -> bool:
    # Names are package-0, package-1, ... beside core, uncore, dram and psys, which is the whole platform.
    return (zone / "name").read_text().startswith("package")


def _unreadable(error: Exception) -> Unavailable:
    if isinstance(error, PermissionError):
        return Unavailable(
            f"only the superuser may read {error.filename}; let others read it to have this number"
        )
    return Unavailable(f"the kernel's energy counters cannot be read ({error})")


def _grown(total: float | None, before: float | None, after: float | None, span: float) -> float | None:
    if total is None or before is None or after is None:
        return None
    return total + span * (before + after) / 2


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1000
