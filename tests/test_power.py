import threading
from types import SimpleNamespace

import pytest

from gossamer.diagnostics import energy
from gossamer.diagnostics.energy import EnergyMeter, GpuSample, NvmlGpu, RaplCpu, Unavailable
from gossamer.errors import InputError


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Gpu:
    """Says what it is told to say."""

    def __init__(self, *samples):
        self.samples = list(samples)

    def sample(self):
        said = self.samples.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


def no_sensor():
    raise Unavailable("there is none")


def read_at(meter, clock, *moments):
    """Readings at moments after the start; the sampling thread sleeps all the while."""
    readings = []
    for moment in moments:
        clock.now = 100.0 + moment
        readings.append(meter.read())
    return readings


def meter_of(gpu=no_sensor, cpu=no_sensor):
    clock = Clock()
    return EnergyMeter(gpu, cpu, period=3600, clock=clock), clock


def test_power_is_integrated_where_energy_is_not_counted():
    gpu = Gpu(GpuSample(50.0, 100.0, None), GpuSample(100.0, 300.0, None), GpuSample(0.0, 100.0, None))
    meter, clock = meter_of(gpu=lambda: gpu)
    meter.start()
    first, second = read_at(meter, clock, 10, 40)
    assert first[:4] == (10.0, 75.0, 200.0, 2000.0)
    # 30 seconds more of 50 % and 200 W on average
    assert second[:4] == (40.0, (750 + 1500) / 40, 200.0, 8000.0)
    assert second.why_not == "CPU: there is none"
    gpu.samples.append(GpuSample(0.0, 100.0, None))
    meter.stop()


def test_the_counter_of_energy_is_preferred():
    gpu = Gpu(*[GpuSample(0.0, 100.0, 5000.0 + joules) for joules in (0, 900, 900)])
    meter, clock = meter_of(gpu=lambda: gpu)
    with meter:
        (reading,) = read_at(meter, clock, 10)
    assert (reading.gpu_joules, reading.gpu_watts) == (900.0, 90.0)


def test_what_a_device_does_not_report_is_told():
    gpu = Gpu(*[GpuSample(None, None, joules) for joules in (1.0, 11.0, 11.0)])
    meter, clock = meter_of(gpu=lambda: gpu)
    with meter:
        (reading,) = read_at(meter, clock, 10)
    assert reading[:4] == (10.0, None, 1.0, 10.0)
    assert reading.why_not == "GPU: the device does not report its utilisation; CPU: there is none"


def test_a_sensor_that_fails_is_not_asked_again():
    gpu = Gpu(GpuSample(1.0, 1.0, 1.0), Unavailable("it fell off the bus"))
    meter, clock = meter_of(gpu=lambda: gpu)
    with meter:
        readings = read_at(meter, clock, 1, 2)
    assert all(reading[1:] == (None,) * 4 + (readings[0].why_not,) for reading in readings)
    assert readings[0].why_not == "GPU: it fell off the bus; CPU: there is none"


def test_nothing_changes_after_the_stop(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", energy=0)
    meter, clock = meter_of(cpu=lambda: RaplCpu(tmp_path))
    with meter:
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("7000000\n")
        clock.now += 5
    clock.now += 100
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("9000000\n")
    meter.stop()
    assert (meter.read().seconds, meter.read().cpu_joules) == (5.0, 7.0)


def test_it_samples_by_itself_and_its_thread_ends():
    enough = threading.Event()
    count = 0

    class Counting:
        def joules(self):
            nonlocal count
            count += 1
            if count == 3:
                enough.set()
            return float(count)

    with EnergyMeter(gpu=no_sensor, cpu=Counting, period=1e-3) as meter:
        assert enough.wait(10)
    assert not meter._thread.is_alive()
    assert meter.read().cpu_joules == count


def test_misuse_is_refused():
    meter, _ = meter_of()
    with pytest.raises(InputError, match="was not started"):
        meter.read()
    meter.stop()
    with meter, pytest.raises(InputError, match="has been started already"):
        meter.start()
    with pytest.raises(InputError, match="period is 0; it must be a finite number above 0"):
        EnergyMeter(period=0)


def zone(folder, directory, name, energy, limit=1000):
    path = folder / directory
    path.mkdir()
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy}\n")
    (path / "max_energy_range_uj").write_text(f"{limit}\n")
    return path / "energy_uj"


def test_packages_are_added_and_parts_of_them_are_not(tmp_path):
    counters = [zone(tmp_path, f"intel-rapl:{n}", f"package-{n}", 100) for n in (0, 1)]
    others = [("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "dram"), ("intel-rapl:2", "psys")]
    counters += [zone(tmp_path, directory, name, 100) for directory, name in others]
    counters += [zone(tmp_path, "intel-rapl-mmio:0", "package-0", 100)]
    sensor = RaplCpu(tmp_path)
    for counter in counters:
        counter.write_text("150\n")
    assert sensor.joules() == pytest.approx(100e-6)


def test_a_counter_may_go_round(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 900)
    sensor = RaplCpu(tmp_path)
    totals = []
    for value in (950, 50, 40, 40):
        counter.write_text(f"{value}\n")
        totals.append(round(sensor.joules() * 1e6))
    assert totals == [50, 150, 1140, 1140]


def test_energy_that_only_the_superuser_may_read(tmp_path, monkeypatch):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    read_text = energy.Path.read_text

    def guarded(path):
        if path == counter:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path)

    monkeypatch.setattr(energy.Path, "read_text", guarded)
    meter, _ = meter_of(cpu=lambda: RaplCpu(tmp_path))
    with meter:
        reading = meter.read()
    assert reading.cpu_joules is None
    assert f"CPU: only the superuser may read {counter}" in reading.why_not


@pytest.mark.parametrize("exists", [True, False])
def test_a_kernel_without_counters(tmp_path, exists):
    folder = tmp_path if exists else tmp_path / "absent"
    with pytest.raises(Unavailable, match="the kernel shows no energy of processors in"):
        RaplCpu(folder)


def test_a_counter_that_is_damaged(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", "much")
    with pytest.raises(Unavailable, match="the kernel's energy counters cannot be read"):
        RaplCpu(tmp_path)


class Nvml:
    """As much of the module ``pynvml`` as is used; each call may be an exception."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):  # noqa: N801
        pass

    def __init__(self, utilisation=30, power=50_000, energy=7_000, init=None):
        self.answers = {"utilisation": utilisation, "power": power, "energy": energy, "init": init}

    def answer(self, name):
        value = self.answers[name]
        if isinstance(value, Exception):
            raise value
        return value

    def nvmlInit(self):  # noqa: N802
        self.answer("init")

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        self.handle = index
        return index

    def nvmlDeviceGetHandleByUUID(self, name):  # noqa: N802
        self.handle = name
        return name

    def nvmlDeviceGetUtilizationRates(self, _):  # noqa: N802
        return SimpleNamespace(gpu=self.answer("utilisation"))

    def nvmlDeviceGetPowerUsage(self, _):  # noqa: N802
        return self.answer("power")

    def nvmlDeviceGetTotalEnergyConsumption(self, _):  # noqa: N802
        return self.answer("energy")


def test_nvml_speaks_in_thousandths():
    assert NvmlGpu(Nvml()).sample() == GpuSample(utilisation=30, watts=50.0, joules=7.0)


@pytest.mark.parametrize(
    ("visible", "handle"), [(None, 0), ("3,1", 3), ("GPU-8a-b", "GPU-8a-b"), ("MIG-c,MIG-d", "MIG-c")]
)
def test_the_gpu_is_the_first_that_the_run_sees(monkeypatch, visible, handle):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = Nvml()
    NvmlGpu(nvml)
    assert nvml.handle == handle


@pytest.mark.parametrize("visible", ["", "-1"])
def test_no_visible_gpu(monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(Unavailable, match="CUDA_VISIBLE_DEVICES hides all GPUs"):
        NvmlGpu(Nvml())


def test_what_nvml_does_not_support_is_none():
    unsupported = Nvml.NVMLError_NotSupported()
    assert NvmlGpu(Nvml(utilisation=unsupported, energy=unsupported)).sample() == GpuSample(None, 50.0, None)


def test_nvml_that_does_not_answer():
    with pytest.raises(Unavailable, match="NVML finds no GPU"):
        NvmlGpu(Nvml(init=Nvml.NVMLError("no driver")))
    sensor = NvmlGpu(Nvml(power=Nvml.NVMLError("GPU is lost")))
    with pytest.raises(Unavailable, match=r"NVML does not answer any more \(GPU is lost\)"):
        sensor.sample()


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    with EnergyMeter(cpu=no_sensor) as meter:
        reading = meter.read()
    assert reading.gpu_joules is None
    assert "GPU: the package nvidia-ml-py is not installed; pip install 'gossamer[gpu-" in reading.why_not
