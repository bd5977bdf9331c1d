"""``gossamer doctor``: what this installation can use, and what it lacks."""

import math
import os
import platform
import resource
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from gossamer.cli.parse import PROGRAM, parse


def doctor_command(arguments: list[str]) -> None:
    """Show versions, devices, limits, the compilation cache and missing extras."""

    @dataclass(frozen=True)
    class Options:
        """Show versions, devices, limits, the compilation cache and missing extras.

        The exit status is 1 if something that every command needs is broken.
        """

    parse(Options, arguments, "doctor")
    from gossamer.system.memory import core_quota, usable_memory
    from gossamer.system.processes import available_cores

    broken = list(missing(PROGRAM))
    _show(
        "versions",
        ", ".join(_versions(PROGRAM, "jax", "jaxlib", "numpy", "flax", "optax", "safetensors")),
    )
    _show("system", f"Python {platform.python_version()}, {platform.platform()}")
    try:
        _show("devices", _devices())
        _show("cache", _cache())
    except Exception as error:  # an installation can be broken in many ways
        broken.append(f"jax does not start: {type(error).__name__}: {error}")
    quota = core_quota()
    limit = "" if quota == math.inf else f"; a control group allows the time of {quota:g}"
    _show("cores", f"{len(available_cores())} of {os.cpu_count()}{limit}")
    _show("memory", f"{usable_memory() / 2**30:.1f} GiB")
    soft, hard = (
        "unlimited" if each == resource.RLIM_INFINITY else each
        for each in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    _show("open files", f"{soft} (ulimit -n can raise it to {hard})")
    extras = {
        extra: list(missing(PROGRAM, extra)) for extra in metadata(PROGRAM).get_all("Provides-Extra") or ()
    }
    _show("extras", ", ".join(extra for extra, lacks in extras.items() if not lacks) or "none")
    for extra in (extra for extra, lacks in extras.items() if lacks):
        _show("  missing", f"{f'{extra}:':<18}pip install '{PROGRAM}[{extra}]'")
    for each in broken:
        _show("broken", each)
    if broken:
        sys.exit(1)


def missing(distribution: str, extra: str = "") -> Iterator[str]:
    """Requirements of a distribution that are not installed, or in another version than is asked for.

    Args:
        distribution: Its name.
        extra: Only what this extra adds; by default what is always required.
    """
    from packaging.requirements import Requirement

    for text in requires(distribution) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and not marker.evaluate({"extra": extra}):
            continue
        if extra and (marker is None or marker.evaluate({"extra": ""})):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield f"{requirement.name} is not installed"
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            yield f"{requirement.name} is {installed}; {requirement.specifier} is required"
        for each in requirement.extras:
            yield from missing(requirement.name, each)


def _show(name: str, text: str) -> None:
    print(
        textwrap.fill(
            text, 80, initial_indent=f"{name:<12}", subsequent_indent=" " * 12, break_on_hyphens=False
        )
    )


def _versions(*names: str) -> Iterator[str]:
    for name in names:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} missing"


def _devices() -> str:
    import jax

    kinds = Counter((each.platform, each.device_kind) for each in jax.devices())
    return ", ".join(
        f"{count} {where}" + (f" ({kind})" if kind != where else "") for (where, kind), count in kinds.items()
    )


def _cache() -> str:
    from gossamer.system.compilation_cache import (
        MOST_BYTES,
        cache_folder,
        cache_root,
        complaint,
        files,
        setting,
    )

    if not setting("jax_enable_compilation_cache"):
        return "off (JAX_ENABLE_COMPILATION_CACHE)"
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return f"{os.environ['JAX_COMPILATION_CACHE_DIR'] or 'off'} (JAX_COMPILATION_CACHE_DIR)"
    try:
        objection = complaint(cache_folder(), again=True)
    except OSError as error:
        return f"not used: {error}"
    if objection:
        return (
            "not used: this version of jaxlib objects to programs that it compiled on this processor "
            f"(openxla/xla#44565: {objection}); another version may not"
        )
    found = files(cache_root())
    entries, size = sum(path.name.endswith("-cache") for path, _, _ in found), sum(each[1] for each in found)
    where = str(cache_root()).replace(str(Path.home()), "~", 1)
    return f"{where}: {entries} programs, {size / 2**20:.1f} of {MOST_BYTES / 2**20:.0f} MiB; programs load"
