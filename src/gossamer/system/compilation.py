"""How programs are compiled and where their memory comes from: what XLA's and glibc's defaults cost on a CPU.

``docs/decisions/convolutions.md`` holds the measurements. Nothing here is a global setting of XLA, and importing this
starts no backend.
"""

import ctypes
import functools
import platform
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

# All that jaxlib gives to its library of kernels (YNNPACK) by default, but convolutions: Eigen's are faster.
FAST_CONVOLUTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": ",".join(
        f"LIBRARY_FUSION_TYPE_{kind}" for kind in ("DOT", "ELTWISE", "REDUCE")
    )
}

# One kernel at a time through MLIR costs a third more compilation where kernels are many and simple.
FAST_FUSIONS = {"xla_cpu_use_fusion_emitters": False}

Fast: TypeAlias = Literal["convolutions", "fusions"]


class Jitted:
    """A function that is compiled when it is first called; ``jitted`` is what ``jax.jit`` makes of it."""

    def __init__(self, function: Callable[..., Any], fast: Fast, options: dict[str, Any]):
        self._function, self._fast, self._options = function, fast, options
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's result, from the compiled program."""
        return self.jitted(*args, **kwargs)

    @functools.cached_property
    def jitted(self) -> Any:
        """The function under ``jax.jit``, for ``lower`` and the like."""
        return jax.jit(self._function, compiler_options=compiler_options(self._fast), **self._options)


def jit(function: Callable[..., Any], fast: Fast = "convolutions", **options: Any) -> Jitted:
    """``jax.jit`` with the compiler options that suit the backend, which is asked at the first call.

    Like every program with compiler options it can be called from outside of others only, not while one is traced.

    Args:
        function: a pure function.
        fast: what to compile for: convolutions, or fusions that are many and simple.
        **options: what else ``jax.jit`` takes.

    Example:
        >>> doubled = jit(lambda x: 2 * x)
        >>> int(doubled(3))
        6
    """
    return Jitted(function, fast, options)


@functools.cache
def compiler_options(fast: Fast = "convolutions") -> dict[str, Any] | None:
    """The options for the default backend: those for fast programs on a CPU whose jaxlib knows them, else none.

    Example:
        >>> compiler_options() in (None, FAST_CONVOLUTIONS)
        True
    """
    options = FAST_CONVOLUTIONS if fast == "convolutions" else FAST_FUSIONS
    return options if jax.default_backend() == "cpu" and _known(options) else None


def computed_once(tree: Any, always: Any) -> Any:
    """The same arrays, which XLA for a CPU cannot compute anew in each of their readers.

    A branch that is never taken keeps them apart from their readers; an optimisation barrier is dropped too early.

    Args:
        tree: arrays under ``jit``.
        always: a traced truth value that is true, which the compiler must not know.

    Example:
        >>> jax.jit(lambda x: computed_once(2 * x, x > 0))(3.0).item()
        6.0
    """
    if jax.default_backend() != "cpu":
        return tree
    return jax.lax.cond(always, lambda same: same, lambda same: jax.tree.map(jnp.zeros_like, same), tree)


def keep_memory_mapped() -> bool:
    """Have glibc keep memory that was freed, so that temporaries are not mapped and cleared anew at every call.

    Temporaries of many MiB are otherwise returned to the kernel, and every page of the next call's faults. All threads
    then allocate from one heap, since those of single threads are unmapped whatever the thresholds. Call it before
    threads have allocated, that is before the first program runs. The process keeps its peak of memory.

    Returns:
        Whether it is so; False without glibc, where nothing is done.

    Example:
        >>> keep_memory_mapped() == (platform.libc_ver()[0] == "glibc")
        True
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {_ARENA_MAX: 1, _MMAP_THRESHOLD: 2**30, _TRIM_THRESHOLD: 2**31 - 1}
    accepted = [mallopt(name, value) for name, value in settings.items()]
    return all(accepted)


# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def _known(options: dict[str, Any]) -> bool:
    """Whether this jaxlib compiles with these options: a trivial program tells."""
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
