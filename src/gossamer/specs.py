"""Specifications such as ``small_world:degree=6``: a name with parameters, read as a function and its arguments."""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from gossamer.errors import InputError, nearest


def parse_spec(
    spec: str, functions: Mapping[str, Callable[..., Any]], kind: str
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function and keyword arguments that ``name`` or ``name:parameter=value,…`` stands for.

    The parameters and their types are read off the function's signature.

    Raises:
        InputError: unknown name (with the nearest ones), unknown, ill-typed or missing parameter.

    Example:
        >>> from gossamer.topologies import NAMES
        >>> parse_spec("small_world:degree=6", NAMES, "topology")[1]
        {'degree': 6}
    """
    name, _, rest = spec.partition(":")
    if name not in functions:
        raise InputError(f"{name!r} is not a {kind}; {nearest(name, list(functions))}")
    accepted = _settable(functions[name])
    arguments = dict(_parse_argument(name, accepted, text) for text in rest.split(",") if text)
    missing = [key for key, parameter in accepted.items() if parameter.default is parameter.empty]
    if not arguments.keys() >= set(missing):
        raise InputError(f"{spec!r} lacks {', '.join(missing)}; {_signature(name, accepted)}")
    return functions[name], arguments


def _settable(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return {
        parameter.name: parameter for parameter in parameters if parameter.name not in ("agents", "adjacency")
    }


def _signature(name: str, accepted: Mapping[str, inspect.Parameter]) -> str:
    if not accepted:
        return f"{name} takes no parameter"
    parameters = ", ".join(f"{key} ({_kind(parameter).__name__})" for key, parameter in accepted.items())
    return f"{name} takes {parameters}"


def _parse_argument(name: str, accepted: Mapping[str, inspect.Parameter], text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if key not in accepted or not separator:
        raise InputError(f"{text!r} does not fit {name}; {_signature(name, accepted)}")
    kind = _kind(accepted[key])
    try:
        return key, {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    except (KeyError, ValueError) as error:
        raise InputError(f"{text!r} does not fit {name}; {_signature(name, accepted)}") from error


def _kind(parameter: inspect.Parameter) -> type:
    """The type a parameter's text is read as: bool, int or float where its annotation says so, else str."""
    options = {parameter.annotation, *typing.get_args(parameter.annotation)}
    return next((kind for kind in (bool, int, float) if kind in options), str)
