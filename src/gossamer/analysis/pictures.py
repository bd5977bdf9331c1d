"""Pictures on disk: one place that knows their formats and what can go wrong when they are written."""

from pathlib import Path

from matplotlib.figure import Figure

from gossamer.errors import InputError

FORMATS = (".png", ".pdf", ".svg")


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
