"""What the messages of a run look like: the paths, shapes and types of their leaves.

Peers agree on it before they talk, so that a message carries numbers only, and nothing in it says how to read it.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import ml_dtypes
import numpy as np

from gossamer.errors import InputError
from gossamer.types import Message

DTYPES: dict[str, np.dtype] = {
    kind.name: kind for kind in map(np.dtype, (np.float32, np.float64, np.float16, ml_dtypes.bfloat16))
}
"""The types that a leaf may have, by name."""


@dataclass(frozen=True)
class Schema:
    """The leaves of a message, in the order in which ``jax.tree`` lists them.

    Example:
        >>> schema = Schema.of({"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)})
        >>> schema.paths, schema.shapes, schema.size, schema.nbytes
        (("['b']", "['w']"), ((2,), (2, 3)), 8, 32)
    """

    paths: tuple[str, ...]
    """Where each leaf stands in the tree, as ``jax.tree_util.keystr`` writes it."""
    shapes: tuple[tuple[int, ...], ...]
    """Shape of each leaf; ``()`` for a number."""
    dtypes: tuple[np.dtype, ...]
    """Type of each leaf, one of ``DTYPES``."""
    structure: Any  # jax.tree_util.PyTreeDef
    """The tree without its leaves. It stays here: only paths, shapes and types are compared with those of peers."""

    @classmethod
    def of(cls, message: Message) -> "Schema":
        """The schema of a message, given as arrays or as ``jax.ShapeDtypeStruct``.

        Raises:
            InputError: a leaf is no array of float32, float64, float16 or bfloat16.

        Example:
            >>> Schema.of([jax.ShapeDtypeStruct((4,), np.float32)]).shapes
            ((4,),)
        """
        named, structure = jax.tree_util.tree_flatten_with_path(message)
        paths = tuple(jax.tree_util.keystr(path) for path, _ in named)
        leaves = [leaf for _, leaf in named]
        dtypes = tuple(_float_type(path, leaf) for path, leaf in zip(paths, leaves, strict=True))
        return cls(paths, tuple(tuple(leaf.shape) for leaf in leaves), dtypes, structure)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each leaf holds."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """How many numbers a message holds."""
        return sum(self.sizes)

    @property
    def nbytes(self) -> int:
        """Bytes that the leaves take in memory."""
        return sum(size * dtype.itemsize for size, dtype in zip(self.sizes, self.dtypes, strict=True))

    @cached_property
    def digest(self) -> bytes:
        """Hash of paths, shapes and types: 16 bytes, the same in every process, different for any other schema.

        BLAKE2b of the JSON text of ``[[path, type, shape], ...]`` without spaces.

        Example:
            >>> Schema.of({"w": np.zeros((2, 3), np.float32)}).digest.hex()
            'c0cddec80e7c29acafa40ec0679e8219'
        """
        rows = [[path, dtype.name, shape] for path, dtype, shape in self._rows()]
        return hashlib.blake2b(json.dumps(rows, separators=(",", ":")).encode(), digest_size=16).digest()

    def leaves(self, message: Message) -> list[np.ndarray]:
        """The leaves of a message as arrays on the host, in their own types; without a copy where they are there.

        Raises:
            InputError: the message is not of this schema.

        Example:
            >>> Schema.of({"b": np.ones(2, np.float32)}).leaves({"b": np.ones(2, np.float32)})
            [array([1., 1.], dtype=float32)]
        """
        leaves, structure = jax.tree.flatten(message)
        if structure != self.structure:
            raise InputError(f"the message is a tree {structure}; it must be {self.structure}")
        on_host = [np.asarray(leaf) for leaf in jax.device_get(leaves)]
        self.require_leaves(on_host)
        return on_host

    def tree(self, leaves: Sequence[np.ndarray]) -> Message:
        """The message that has these leaves.

        Raises:
            InputError: the leaves are not of this schema.

        Example:
            >>> Schema.of({"b": np.ones(2, np.float32)}).tree([np.zeros(2, np.float32)])
            {'b': array([0., 0.], dtype=float32)}
        """
        self.require_leaves(leaves)
        return jax.tree.unflatten(self.structure, leaves)

    def require_leaves(self, leaves: Sequence[np.ndarray]) -> None:
        """Refuse leaves of another number, shape or type.

        Raises:
            InputError: they are not of this schema.
        """
        if len(leaves) != len(self.paths):
            raise InputError(f"the message has {len(leaves)} leaves; it must have {len(self.paths)}")
        for leaf, (path, dtype, shape) in zip(leaves, self._rows(), strict=True):
            if (leaf.shape, leaf.dtype) != (shape, dtype):
                raise InputError(
                    f"{name_of(path)} is {leaf.dtype.name}{list(leaf.shape)}; "
                    f"it must be {dtype.name}{list(shape)}"
                )

    def _rows(self) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
        return list(zip(self.paths, self.dtypes, self.shapes, strict=True))


def name_of(path: str) -> str:
    """How a sentence speaks of the leaf at a path; a message that is a single array has none.

    Example:
        >>> name_of("['w']"), name_of("")
        ("leaf ['w']", 'the message')
    """
    return f"leaf {path}" if path else "the message"


def _float_type(path: str, leaf: object) -> np.dtype:
    # By name, since a key of jax.random has a dtype that numpy does not know.
    name = str(getattr(leaf, "dtype", type(leaf).__name__))
    if name not in DTYPES or not hasattr(leaf, "shape"):
        raise InputError(f"{name_of(path)} is {name}; it must be an array of {', '.join(DTYPES)}")
    return DTYPES[name]
