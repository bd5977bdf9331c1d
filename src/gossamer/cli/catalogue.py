"""``gossamer list``, and the tables and checks of names that other commands share; answered without importing jax."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from gossamer.catalogue import RECIPES, REPRODUCTIONS, TOPOLOGIES, WEIGHT_RULES
from gossamer.cli.parse import parse
from gossamer.errors import InputError, nearest


def list_names(arguments: list[str]) -> None:
    """List the recipes, figures and tables, topologies and weight rules."""

    @dataclass(frozen=True)
    class Options:
        """List the recipes, figures and tables, topologies and weight rules."""

    parse(Options, arguments, "list")
    print(f"recipes (gossamer train RECIPE)\n{columns(RECIPES)}\n")
    print(f"figures and tables (gossamer reproduce NAME)\n{columns(REPRODUCTIONS)}\n")
    print(f"topologies (--topology)\n{columns(TOPOLOGIES)}\n")
    print(f"weight rules (--weights)\n{columns(WEIGHT_RULES)}")


def columns(lines: Mapping[str, str]) -> str:
    """Names and what is said about them, side by side, wrapped to 80 columns.

    Example:
        >>> print(columns({"ring": "Agent i hears i - 1 and i + 1"}))
          ring  Agent i hears i - 1 and i + 1
    """
    width = max(map(len, lines)) + 4
    return "\n".join(
        textwrap.fill(
            line,
            80,
            initial_indent=f"  {name}".ljust(width),
            subsequent_indent=" " * width,
            break_on_hyphens=False,
        )
        for name, line in lines.items()
    )


def recipe_named(name: str) -> str:
    """The name of a recipe, checked."""
    if name.startswith("-"):
        raise InputError(f"expected a recipe, not {name!r}; known are {', '.join(RECIPES)}")
    if name not in RECIPES:
        raise InputError(f"{name!r} is not a recipe; {nearest(name, list(RECIPES))}")
    return name
