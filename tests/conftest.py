"""Strictness for every test: silent broadcasting is an error. And what one test has compiled, others need not.

Strict dtype promotion is not on: optax's Adam raises a float to its integer count, which strictness refuses.

A compiled program holds several regions of memory, of which Linux allows a process 65,530 (``vm.max_map_count``): with
no more to be had, XLA's compiler ends the process with a segmentation fault. Thousands of tests come to that many.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Of this call of pytest alone; its workers, and the programs that tests begin, inherit it.
    compiled = tempfile.mkdtemp(prefix="gossamer-compiled-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax

# A plugin may have imported jax before, which then has not read the environment.
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update(
    "jax_persistent_cache_min_compile_time_secs",
    float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]),
)
jax.config.update("jax_numpy_rank_promotion", "raise")

REGIONS = Path("/proc/self/maps")  # one on each line
ENOUGH = 20_000  # the next file of tests may add twice as many before it is too late


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between two files, forget what was compiled where it has become too much."""
    if nextitem is not None and nextitem.path == item.path:
        return
    if REGIONS.exists() and REGIONS.read_bytes().count(b"\n") > ENOUGH:
        jax.clear_caches()
