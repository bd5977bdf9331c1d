"""Frozen configurations to plain JSON data and back, exactly.

A configuration holds dataclasses, NamedTuples, tuples, paths, numbers, strings and None. Arrays and states belong into
checkpoints. A class of this package goes by its public name, ``gossamer.SiAC``; a user's class by its module and name,
``my_module:MyAlgorithm``. Reading imports no module that a file names: a user's module must have been imported before.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from gossamer.catalogue import PROGRAM, PUBLIC
from gossamer.errors import InputError

_RENAMED = {"Patience": "AdaptiveTimeout"}  # classes, by the names that format 1 has
_RENAMED_FIELDS = {"GymnasiumEnvironment": {"id": "env_id"}}  # likewise, by class


def dumps(value: Any) -> str:
    """The JSON text of a configuration, indented; ``loads`` gives the value back.

    Raises:
        InputError: as ``to_data``.

    Example:
        >>> print(dumps((1, 2.0)))
        [
          1,
          2.0
        ]
    """
    return json.dumps(to_data(value), indent=2, allow_nan=False)


def loads(text: str) -> Any:
    """The value that ``dumps`` wrote.

    Raises:
        InputError: the text is not JSON; otherwise as ``from_data``.

    Example:
        >>> loads(dumps((1, (2.0, "a"), None)))
        (1, (2.0, 'a'), None)
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"the text is not JSON ({error}); it must be what gossamer wrote") from error
    return from_data(data)


def to_data(value: Any) -> Any:
    """A value as dictionaries, lists, numbers, strings and None, ready for JSON.

    A dataclass or NamedTuple becomes ``{"class": NAME, field: data, ...}`` without fields that its constructor does
    not take, a tuple a list, a path ``{"class": "pathlib:Path", "path": ...}``.

    Raises:
        InputError: a float is not finite, a value is of another type, or a class cannot be found again under
            its name (it is defined inside a function, say).

    Example:
        >>> from gossamer.types import Box
        >>> to_data((Box(size=1, bound=2.0), Path("runs")))
        [{'class': 'gossamer.Box', 'size': 1, 'bound': 2.0}, {'class': 'pathlib:Path', 'path': 'runs'}]
    """
    return _encode(value, _root(type(value)))


def from_data(data: Any) -> Any:
    """The value that ``to_data`` described.

    Classes are constructed anew, which runs their own checks. A field that is missing has its default, as those have
    that were added after the data was written. A field that the class has but its constructor does not take, such as
    the ``spaces`` that earlier versions wrote for an algorithm, is ignored: it is derived again. ``module:Name`` of a
    module of ours, which earlier versions wrote, means the public class of that name.

    Raises:
        InputError: an unknown field, one that is missing and has no default, an unknown class, one whose module is not
            imported, one that is neither a dataclass nor a NamedTuple, a float that is not finite, another type of
            data, or a constructor that refuses.

    Example:
        >>> from_data({"class": "gossamer.Box", "size": 1, "bound": 2.0})
        Box(size=1, bound=2.0)
        >>> from_data({"class": "gossamer.Box", "size": 1})
        Traceback (most recent call last):
        gossamer.errors.InputError: gossamer.Box lacks the field 'bound'; it takes size, bound
    """
    return _decode(data, "data")


def _root(cls: type) -> str:
    return cls.__name__ if _is_record(cls) else "value"


def _encode(value: Any, where: str) -> Any:
    cls = type(value)
    if cls in (bool, int, str) or value is None:
        return value
    if cls is float:
        return _finite(value, where)
    if cls is tuple:
        return [_encode(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, PurePath):
        return {"class": "pathlib:Path", "path": str(value)}
    if _is_record(cls):
        return {"class": _name_of(cls, where), **_encode_fields(value, where)}
    raise InputError(
        f"{where} is of type {cls.__module__}.{cls.__qualname__}; a configuration holds dataclasses, "
        "NamedTuples, tuples, paths, bool, int, float, str and None"
    )


def _encode_fields(value: Any, where: str) -> dict[str, Any]:
    return {name: _encode(getattr(value, name), f"{where}.{name}") for name in _fields(type(value))}


def _decode(data: Any, where: str) -> Any:
    cls = type(data)
    if cls in (bool, int, str) or data is None:
        return data
    if cls is float:
        return _finite(data, where)
    if cls is list:
        return tuple(_decode(item, f"{where}[{index}]") for index, item in enumerate(data))
    if cls is dict and type(data.get("class")) is str:
        return _construct(data["class"], {name: data[name] for name in data if name != "class"})
    raise InputError(
        f"{where} is {data!r:.60}; it must be a number, a string, null, a list, or an object whose "
        '"class" is the name of one'
    )


def _construct(name: str, data: dict[str, Any]) -> Any:
    cls = Path if name == "pathlib:Path" else _class_named(name)
    expected = ("path",) if cls is Path else tuple(_fields(cls))
    renamed, derived = _RENAMED_FIELDS.get(cls.__name__, {}), _derived(cls)
    data = {renamed.get(field, field): item for field, item in data.items() if field not in derived}
    _check_fields(name, expected, set() if cls is Path else _defaults(cls), data)
    values = {field: _decode(item, f"{cls.__name__}.{field}") for field, item in data.items()}
    try:
        return Path(values["path"]) if cls is Path else cls(**values)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} refuses the given fields ({error}); correct them") from error


def _derived(cls: type) -> set[str]:
    """The fields that a class has but its constructor does not take."""
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return {field.name for field in fields if not field.init}


def _defaults(cls: type) -> set[str]:
    """The fields that a constructor can do without."""
    if not dataclasses.is_dataclass(cls):
        return set(cls._field_defaults)
    missing = dataclasses.MISSING
    return {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is not missing or field.default_factory is not missing
    }


def _check_fields(name: str, expected: tuple[str, ...], optional: set[str], data: dict[str, Any]) -> None:
    takes = f"it takes {', '.join(expected) or 'none'}"
    for field in data:
        if field not in expected:
            raise InputError(f"{name} has no field {field!r}; {takes}")
    for field in expected:
        if field not in data and field not in optional:
            raise InputError(f"{name} lacks the field {field!r}; {takes}")


def _class_named(name: str) -> Any:
    module, _, qualified = name.rpartition(":")
    if name.partition(".")[0] == PROGRAM:
        found = _public(qualified if module else name.removeprefix(f"{PROGRAM}."), name)
    elif not module or not qualified:
        raise InputError(f"{name!r} names no class; it must be 'gossamer.Name' or 'module:Name'")
    elif module not in sys.modules:
        raise InputError(
            f"the class {name!r} is not ours, and nothing that a run folder names is imported by itself; if you trust "
            f"it, add --import {module}, or import that module first"
        )
    else:
        found: Any = sys.modules[module]
        for part in qualified.split("."):
            found = getattr(found, part, None)
    if not _is_record(found):
        raise InputError(f"{name!r} is neither a dataclass nor a NamedTuple; only these hold configurations")
    return found


def _public(public: str, name: str) -> Any:
    public = _RENAMED.get(public, public)
    module = PUBLIC.get(public)
    if module is None:
        raise InputError(f"{name!r} is not a public class of gossamer; this version knows no such class")
    return getattr(import_module(module), public)


def _name_of(cls: type, where: str) -> str:
    ours = PUBLIC.get(cls.__qualname__) == cls.__module__
    name = f"{PROGRAM}.{cls.__qualname__}" if ours else f"{cls.__module__}:{cls.__qualname__}"
    try:
        if _class_named(name) is cls:
            return name
    except InputError:
        pass
    raise InputError(
        f"{where} is of class {name}, which cannot be found again; define it at the top of its module"
    )


def _is_record(cls: Any) -> bool:
    if not isinstance(cls, type):
        return False
    return dataclasses.is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def _fields(cls: Any) -> Iterator[str]:
    if dataclasses.is_dataclass(cls):
        return (field.name for field in dataclasses.fields(cls) if field.init)
    return iter(cls._fields)


def _finite(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise InputError(f"{where} is {value}; it must be finite")
    return value
