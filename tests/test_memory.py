"""How much memory may be used follows from the machine, and from the limits of containers and jobs."""

import math
import os

import pytest

from gossamer.system.memory import core_quota, usable_memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
UNLIMITED = 9223372036854771712  # what version 1 says
V1 = "9:name=systemd:/\n4:memory:{}\n1:cpu,cpuacct:/\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "usable"),
    [
        ("0::/\n", {"memory.max": "1048576\n"}, 2**20),
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        (
            "0::/slurm/job/step\n",
            {"slurm/job/memory.max": "4096\n", "slurm/job/step/memory.max": "max\n"},
            4096,
        ),
        ("0::/host/path\n", {"memory.max": "4096\n"}, 4096),
        ("0::/here\n", {"elsewhere/memory.max": "4096\n"}, MACHINE),
        (V1.format("/"), {"memory/memory.limit_in_bytes": "8192\n"}, 8192),
        (V1.format("/docker/1"), {"memory/docker/1/memory.limit_in_bytes": "8192\n"}, 8192),
        (V1.format("/"), {"memory/memory.limit_in_bytes": f"{UNLIMITED}\n"}, MACHINE),
        (None, {}, MACHINE),
    ],
    ids=[
        "2",
        "2, no limit",
        "2, a group around",
        "2, a path of the host",
        "2, another group",
        "1",
        "1, a group within",
        "1, no limit",
        "no groups",
    ],
)
def test_the_smallest_limit_counts(tmp_path, own, files, usable):
    (tmp_path / "proc/self").mkdir(parents=True)
    if own is not None:
        (tmp_path / "proc/self/cgroup").write_text(own)
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert usable_memory(tmp_path) == usable


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/job\n", {"cpu.max": "max 100000\n", "job/cpu.max": "150000 100000\n"}, 1.5),
        (
            V1.format("/"),
            {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            2.0,
        ),
        (
            V1.format("/"),
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
    ],
    ids=["2", "1", "1, no limit"],
)
def test_the_processor_time_that_a_group_allows(tmp_path, own, files, quota):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(own)
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert core_quota(tmp_path) == quota
