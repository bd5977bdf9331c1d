"""Pictures on disk: one place that knows their formats and what can go wrong when they are written."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from gossamer.errors import InputError

FORMATS = (".png", ".pdf", ".svg")

# Okabe and Ito's palette, safe for the colour-blind: what exchanges what has the same colour in every picture.
_COLOURS = {
    "diffusion": "#0072B2",
    "centralised": "#D55E00",
    "isolated": "#009E73",
    "a3c": "#CC79A7",
    "impala": "#E69F00",
    "reinforce": "#56B4E9",
    "power": "#000000",
}
_OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_LINES = ("solid", "dashed", "dotted", "dashdot", (0, (5, 1, 1, 1, 1, 1)))

BOUND = "#555555"
"""The colour of what is no algorithm: bounds, tolerances, published numbers."""


class Style(NamedTuple):
    """How a curve is drawn: what kind of training it is by its colour, which of them by its line."""

    colour: str
    line: Any


def colours(kinds: Sequence[str]) -> list[str]:
    """A colour for each curve, the same for a kind of training in every picture.

    Kinds are diffusion (parameters averaged with peers: Diff-SiAC, Diff-A2C, GALA), centralised (also A2C with summed
    gradients), isolated (specialised agents), a3c, impala, reinforce and power (both of Dist-MTPS); any other takes one
    of the remaining colours.

    Example:
        >>> colours(["centralised", "diffusion"]) == colours(["diffusion", "centralised"])[::-1]
        True
        >>> len(set(colours(["diffusion", "diffusion", "isolated", "another"])))
        3
    """
    known = {_COLOURS[kind] for kind in kinds if kind in _COLOURS}
    others = itertools.cycle([colour for colour in _OTHERS if colour not in known])
    return [_COLOURS[kind] if kind in _COLOURS else next(others) for kind in kinds]


def styles(kinds: Sequence[str]) -> list[Style]:
    """A colour and a line for each curve: variants of one kind share its colour and differ in their lines.

    Where a kind has more variants than there are lines, the next ones are lighter.

    Example:
        >>> [style.line for style in styles(["diffusion", "diffusion", "isolated"])]
        ['solid', 'dashed', 'solid']
    """
    seen = [kinds[:index].count(kind) for index, kind in enumerate(kinds)]
    return [
        Style(_lighter(colour, count // len(_LINES)), _LINES[count % len(_LINES)])
        for colour, count in zip(colours(kinds), seen, strict=True)
    ]


def shades(kind: str, count: int) -> list[str]:
    """Colours from light to dark, the last of them the kind's own: for one algorithm at growing values of a number.

    Example:
        >>> shades("diffusion", 3)[-1] == colours(["diffusion"])[0]
        True
    """
    return [_towards_white(_COLOURS[kind], share) for share in np.linspace(0.35, 1.0, count)]


def _lighter(colour: str, times: int) -> str:
    return _towards_white(colour, 0.5**times) if times else colour


def _towards_white(colour: str, share: float) -> str:
    """What is left of a colour where ``share`` of it stays and the rest is white."""
    red, green, blue = (1 - (1 - part) * share for part in to_rgb(colour))
    return to_hex((red, green, blue)).upper()


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
        raise InputError(f"{out} cannot be written ({error.strerror}); give another path (--out)") from error
    return out
