"""What every test runs under: shape checks, no silent broadcasting, and compiled programs kept between runs.

Strict dtype promotion is off: optax's Adam adds a float to its integer count, which strict promotion refuses.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxlib
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Modules whose annotations state array shapes and that run while JAX traces. In host-side loops (schedules, topologies,
# the network) the checks tripled the time of their tests.
SHAPE_CHECKED = [
    "algorithms",
    "diagnostics.gradient_correlation",
    "distributions",
    "environments",
    "experience",
    "mixing",
    "networks",
    "returns",
    "running_statistics",
    "runtimes.rounds",
]
install_import_hook(
    [f"gossamer.{module}" for module in SHAPE_CHECKED],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

from gossamer.system.compilation_cache import processor  # noqa: E402

# Speed belongs into benchmarks: a busy machine must fail no property.
settings.register_profile("gossamer", deadline=None)
settings.load_profile("gossamer")

CACHE = Path(__file__).parents[1] / ".cache" / "jax"
CACHE_BYTES = 2 * 2**30


if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Workers of pytest-xdist and processes that tests start inherit it.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE / f"{jaxlib.__version__}-{processor()}")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Halves the CPU time of compiling a round. JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests the programs as users compile them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402

# A plugin may have imported jax before these variables were set.
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update(
    "jax_persistent_cache_min_compile_time_secs",
    float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]),
)
jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Compile as users do, in this process and in those that it starts: where results must be equal to the bit."""
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
        jax.config.update("jax_disable_most_optimizations", False)
        yield
    jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0")
    jax.clear_caches()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Bound the kept programs: drop the least recently written ones, before any worker starts."""
    if hasattr(session.config, "workerinput"):
        return
    entries = [(path.stat(), path) for path in CACHE.rglob("*") if path.is_file()]
    excess = sum(stat.st_size for stat, _ in entries) - CACHE_BYTES
    for stat, path in sorted(entries, key=lambda entry: entry[0].st_mtime):
        if excess <= 0:
            return
        path.unlink()
        excess -= stat.st_size


# A compiled program maps several regions of memory, of which Linux allows a process 65,530 (``vm.max_map_count``).
# Beyond that XLA's compiler crashes, and thousands of tests in one process get there.
MAPS = Path("/proc/self/maps")  # one region per line
MOST_MAPS = 20_000  # the next file of tests may add twice as many


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between two files, forget compiled programs where there are too many."""
    if nextitem is not None and nextitem.path == item.path:
        return
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
