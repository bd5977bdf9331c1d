"""The one exception that means "what you gave does not fit", so that a front end can tell it from a defect."""

import difflib
import math
from collections.abc import Sequence


class InputError(ValueError):
    """Bad input. Its message is one sentence: what was given, and what would be accepted.

    Raised where input is checked (construction, parsing, reading a file), before anything is written. The
    command line prints the sentence and exits with status 2; everything else keeps its traceback.

    Example:
        >>> raise InputError("agents is 0; it must be at least 1")
        Traceback (most recent call last):
        gossamer.errors.InputError: agents is 0; it must be at least 1
    """


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: similar known names, if any, and all of them.

    Example:
        >>> nearest("trian", ["train", "list"])
        'did you mean train? known are train, list'
    """
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{guess}known are {', '.join(known)}"


def require_positive(name: str, value: float) -> None:
    """Refuse a number that is not finite and above zero."""
    if not 0 < value < math.inf:
        raise InputError(f"{name} is {value}; it must be a finite number above 0")


def require_non_negative(name: str, value: float) -> None:
    """Refuse a number that is not finite and at least zero."""
    if not 0 <= value < math.inf:
        raise InputError(f"{name} is {value}; it must be a finite number, 0 or above")


def require_within(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside ``[low, high]``."""
    if not low <= value <= high:
        raise InputError(f"{name} is {value}; it must lie between {low:g} and {high:g}")


def require_at_least(name: str, value: int, least: int) -> None:
    """Refuse a count below ``least``."""
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}")


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a name that is not among ``choices``, and suggest the nearest of them."""
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=2, cutoff=0.5)
        guess = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(choices)}{guess}")
