"""Pictures on disk: one place that knows their formats and what can go wrong when they are written."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from gossamer.errors import InputError

FORMATS = (".png", ".pdf", ".svg")

# Okabe and Ito's palette, safe for the colour-blind.
_COLOURS = {"diffusion": "#0072B2", "centralised": "#D55E00", "isolated": "#009E73"}
_OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def colours(kinds: Sequence[str]) -> list[str]:
    """A colour for each curve: the first of a kind of training has its kind's own in every picture.

    Kinds are diffusion, centralised and isolated; any other takes one of the remaining colours.

    Example:
        >>> colours(["centralised", "diffusion"]) == colours(["diffusion", "centralised"])[::-1]
        True
        >>> len(set(colours(["diffusion", "diffusion", "isolated"])))
        3
    """
    chosen: list[str] = []
    others = itertools.cycle(_OTHERS)
    for kind in kinds:
        own = _COLOURS.get(kind)
        chosen.append(next(others) if own is None or own in chosen else own)
    return chosen


def check_format(out: Path) -> None:
    """Refuse a path whose ending is no format that pictures are written in."""
    if out.suffix not in FORMATS:
        raise InputError(f"{out} is no path of a picture; its ending must be one of {', '.join(FORMATS)}")


def save_picture(figure: Figure, out: Path) -> Path:
    """Write a figure, making the folders that its path needs.

    Raises:
        InputError: another ending than png, pdf or svg, or a path that cannot be written.

    Example:
        >>> save_picture(Figure(), Path("picture.gif"))
        Traceback (most recent call last):
        gossamer.errors.InputError: picture.gif is no path of a picture; its ending must be one of .png, .pdf, .svg
    """
    check_format(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
    return out
