"""What can be named on a command line: recipes, figures and tables, topologies, weight rules."""

from dataclasses import dataclass

from gossamer.cli.parse import nearest, parse
from gossamer.errors import InputError


def list_names(arguments: list[str]) -> None:
    """List the recipes, figures and tables, topologies and weight rules."""

    @dataclass(frozen=True)
    class Options:
        """List the recipes, figures and tables, topologies and weight rules."""

    parse(Options, arguments, "list")
    from gossamer.mixing import RULES
    from gossamer.recipes import RECIPES
    from gossamer.reproductions import REPRODUCTIONS
    from gossamer.topologies import NAMES

    print("recipes (gossamer train RECIPE)")
    for name, recipe in RECIPES.items():
        print(f"  {name:<30} {(recipe.__doc__ or '').strip().splitlines()[0]}")
    print("\nfigures and tables (gossamer reproduce NAME)")
    for name, reproduction in REPRODUCTIONS.items():
        print(f"  {name:<30} {reproduction.title}")
    for title, functions in (("topologies (--topology)", NAMES), ("weight rules (--weights)", RULES)):
        print(f"\n{title}")
        for name, function in functions.items():
            print(f"  {name:<30} {(function.__doc__ or '').strip().splitlines()[0]}")


def recipe_named(name: str) -> str:
    """The name of a recipe, checked."""
    from gossamer.recipes import RECIPES

    if name.startswith("-"):
        raise InputError(f"{name!r} stands where a recipe was expected; known are {', '.join(RECIPES)}")
    if name not in RECIPES:
        raise InputError(f"{name!r} is no recipe; {nearest(name, list(RECIPES))}")
    return name
