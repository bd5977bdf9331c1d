"""Compiler options are probed and never insisted on; memory that is kept is reused."""

import ctypes
import platform
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.system import compilation
from gossamer.system.compilation import compiler_options, jit


@pytest.fixture(autouse=True)
def probes_anew():
    compiler_options.cache_clear()
    yield
    compiler_options.cache_clear()


def convolve(images, kernel, *, stride):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(images, kernel, (stride, stride), "VALID", dimension_numbers=layout)


def inputs():
    keys = jax.random.split(jax.random.key(0))
    return jax.random.normal(keys[0], (2, 20, 20, 4)), jax.random.normal(keys[1], (8, 8, 4, 16))


def test_results_equal_those_of_plain_jit():
    ours, plain = (each(convolve, static_argnames="stride") for each in (jit, jax.jit))
    # float32 sums of 256 products of size one, in another order
    np.testing.assert_allclose(ours(*inputs(), stride=4), plain(*inputs(), stride=4), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are the CPU's")
def test_an_option_that_jaxlib_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compilation, "FAST_CONVOLUTIONS", {"xla_no_such_option": "1"})
    assert compiler_options() is None
    assert jit(lambda x: x + 1)(1) == 2
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_no_such_option": "1"})(1)


def test_no_option_but_on_a_cpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(
        compilation, "_known", lambda options: pytest.fail("a CPU's option was tried on a GPU")
    )
    assert compiler_options() is None


def test_is_a_decorator_that_compiles_once_per_shape():
    traced = []

    @partial(jit, static_argnames="times")
    def repeated(x, *, times):
        """Several times the same."""
        traced.append(x.shape)
        return times * x

    for _ in range(3):
        np.testing.assert_array_equal(repeated(jnp.ones(2), times=3), [3.0, 3.0])
    repeated(jnp.ones(3), times=3)
    assert traced == [(2,), (3,)]
    assert (repeated.__name__, repeated.__doc__) == ("repeated", "Several times the same.")
    assert repeated.jitted is repeated.jitted
    assert repeated.jitted.lower(jnp.ones(2), times=2).compile() is not None


def in_new_process(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_importing_and_decorating_start_no_backend():
    program = """
import jax
def fail(): raise AssertionError("a backend was asked for")
jax.default_backend = fail
from gossamer.system.compilation import jit
jit(lambda x: x)
"""
    in_new_process(program)


FAULTS = """
import resource
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from gossamer.system.compilation import keep_memory_mapped
assert not {keep} or keep_memory_mapped()
def work():
    for _ in range(20):
        np.ones(12 * 2**20)  # 96 MiB, more than the heap of a thread may have
faults = []
with ThreadPoolExecutor(1) as pool:
    for _ in range(2):
        pool.submit(work).result()
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[1] - faults[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_memory_is_not_mapped_anew_and_does_not_grow():
    (anew, before), (kept, after) = (
        map(int, in_new_process(FAULTS.format(keep=keep)).split()) for keep in (False, True)
    )
    assert kept < anew / 10
    assert after < before + 64  # MiB: one temporary is kept, not twenty


def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("there is no such library"))
    assert not compilation.keep_memory_mapped()
