"""What an agent says of itself when it is asked; anybody may answer, so that every field is looked at."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

_Check: TypeAlias = Callable[[Any], bool]


def read_answer(data: bytes) -> dict[str, Any] | None:
    """An agent's answer as plain data, or None where it is none.

    Args:
        data: any bytes.

    Example:
        >>> read_answer(b"no answer") is None
        True
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return answer if _is_answer(answer) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _record(fields: Mapping[str, _Check]) -> _Check:
    return lambda value: (
        isinstance(value, dict)
        and all(name in value and check(value[name]) for name, check in fields.items())
    )


def _by_name(check: _Check) -> _Check:
    return lambda value: isinstance(value, dict) and all(check(each) for each in value.values())


_is_answer = _record(
    {
        "name": _is_text,
        "host": _is_text,
        "pid": _is_count,
        "incarnation": _is_count,
        "round": _is_count,
        "rounds": _is_count,
        "seconds": _is_seconds,
        "hears": _by_name(
            _record(
                {
                    "present": lambda value: isinstance(value, bool),
                    "round": _or_none(_is_count),
                    "age_seconds": _or_none(_is_seconds),
                }
            )
        ),
        "knows": _by_name(_is_count),
        "refused": _by_name(_by_name(_is_count)),
        "unsent": _is_count,
    }
)
