"""Every figure and table, one after the other. What one cannot make is told in the end, and keeps no other back."""

from collections.abc import Callable, Mapping
from pathlib import Path

from gossamer.errors import InputError
from gossamer.recipes.diffdac import Scale
from gossamer.system.signals import Unfinished
from gossamer_papers.protocol import Claim, Reproduction
from gossamer_papers.run import reproduce


def reproduce_all(
    reproductions: Mapping[str, Reproduction],
    tell: Callable[[str, tuple[Claim, ...]], None],
    scale: Scale = "quick",
    seeds: int | None = None,
    out: Path = Path("results"),
    runs: Path = Path("runs/reproduce"),
    processes: int | None = None,
) -> dict[str, str]:
    """Make all reproductions, each resumed where it stopped.

    Args:
        reproductions: by name, in the order in which they are made.
        tell: is called with the name and the claims of each when it is made.
        scale: of all, as for ``reproduce``.
        seeds: of every training; by default what each reproduction has at this scale.
        out: a folder of each name is written here.
        runs: where trainings are kept.
        processes: trainings at once; by default one for each core.

    Returns:
        Why some could not be made, by name: an optional package is missing, say, or a training diverged.

    Raises:
        Interrupted: it was asked to stop; repeat the call to continue.

    Example:
        >>> reproduce_all({}, print)
        {}
    """
    failed = {}
    for name, reproduction in reproductions.items():
        try:
            _, claims = reproduce(reproduction, scale, seeds, out, runs, processes)
        except (InputError, Unfinished) as error:
            failed[name] = str(error)
        else:
            tell(name, claims)
    return failed
