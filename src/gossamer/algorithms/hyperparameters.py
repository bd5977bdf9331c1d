"""Frozen dataclasses of hyper-parameters that jit takes as arguments; nothing here learns."""

import copy
from dataclasses import fields
from typing import Any, TypeVar

import jax

Class = TypeVar("Class", bound=type[Any])
Instance = TypeVar("Instance")


def bind_fields(instance: Instance, **values: Any) -> Instance:
    """Copy a frozen dataclass and set fields that its constructor does not take.

    Declare such a field as ``field(init=False, repr=False, compare=False)``, without a default: command-line flags and
    ``config.json`` then omit it, and ``dataclasses.replace`` leaves it unset.

    Example:
        >>> from dataclasses import dataclass, field
        >>> @dataclass(frozen=True)
        ... class Descent:
        ...     actions: int = field(init=False)
        ...     learning_rate: float = 0.1
        >>> bind_fields(Descent(learning_rate=0.2), actions=3).actions
        3
    """
    bound = copy.copy(instance)
    for name, value in values.items():
        object.__setattr__(bound, name, value)
    return bound


def traced(cls: Class) -> Class:
    """Make a frozen dataclass a pytree: fields annotated ``float`` are its leaves, all others its structure.

    Another learning rate then runs the same compiled program; another width compiles a new one. Unlike
    ``jax.tree_util.register_dataclass`` this does not construct anew, so that ``__post_init__`` checks what
    people give and never what a trace puts in its place.

    Example:
        >>> from dataclasses import dataclass
        >>> @traced
        ... @dataclass(frozen=True)
        ... class Descent:
        ...     steps: int = 3
        ...     learning_rate: float = 0.1
        >>> jax.tree.leaves(Descent())
        [0.1]
        >>> jax.tree.map(lambda leaf: 2 * leaf, Descent())
        Descent(steps=3, learning_rate=0.2)
    """
    leaves = tuple(field.name for field in fields(cls) if field.type is float)
    structure = tuple(field.name for field in fields(cls) if field.type is not float)

    def flatten(instance: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(instance, name) for name in leaves), tuple(
            getattr(instance, name, None)  # None before ``bind``
            for name in structure
        )

    def unflatten(constant: tuple[Any, ...], values: Any) -> Any:
        instance = object.__new__(cls)
        for name, value in (*zip(structure, constant, strict=True), *zip(leaves, values, strict=True)):
            object.__setattr__(instance, name, value)
        return instance

    jax.tree_util.register_pytree_node(cls, flatten, unflatten)
    return cls
