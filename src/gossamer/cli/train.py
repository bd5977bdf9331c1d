"""``gossamer train`` and ``demo``: a population in this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gossamer.catalogue import PROGRAM, RECIPES
from gossamer.cli.catalogue import columns, recipe_named
from gossamer.cli.parse import HELP, parse

FIRST = (
    "--out",
    "--rounds",
    "--seed",
    "--seeds",
    "--agents",
    "--tasks",
    "--topology",
    "--runtime",
    "--env-id",
    "--learning-rate",
    "--actor-learning-rate",
    "--critic-learning-rate",
)
"""Flags that the help of a recipe shows first, of those that the recipe has."""


def train_command(arguments: list[str]) -> None:
    """Run a recipe, or continue a run with --resume RUN."""
    if not arguments or arguments[0] in HELP:
        print(
            f"usage: {PROGRAM} train RECIPE [OPTIONS]   ({PROGRAM} train RECIPE --help)\n"
            f"       {PROGRAM} train --resume RUN [--rounds INT] [--no-cache]\n\n"
            f"recipes:\n{columns(RECIPES)}"
        )
        return
    if is_resumed(arguments):
        _resume(arguments)
        return
    _train_recipe(recipe_named(arguments[0]), arguments[1:])


def is_resumed(arguments: Sequence[str]) -> bool:
    """Whether a run is to go on, wherever that is said.

    Example:
        >>> is_resumed(["--rounds", "600", "--resume=runs/ring"])
        True
    """
    return any(each.partition("=")[0] == "--resume" for each in arguments)


def _train_recipe(name: str, arguments: list[str]) -> None:
    from gossamer import recipes
    from gossamer.experiment import Experiment

    @dataclass(frozen=True)
    class Options:
        experiment: Experiment
        out: Path | None = None
        """Folder of the run, new or empty; by default runs/RECIPE-DATE-TIME."""
        cache: bool = True
        """Reuse compiled programs and keep new ones; --no-cache compiles all of them again."""

    default = Options(recipes.RECIPES[name]())
    description = f"Train {name}: {RECIPES[name]}.\n\nContinue a run with {PROGRAM} train --resume RUN."
    options = parse(
        Options, arguments, f"train {name}", first=FIRST, default=default, description=description
    )
    from gossamer.runs.progress import reporter
    from gossamer.system.compilation import keep_memory_mapped
    from gossamer.system.compilation_cache import disable_cache
    from gossamer.train import train

    out = options.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if not options.cache:
        disable_cache()
    keep_memory_mapped()
    print(train(options.experiment, out, reporter(name)))


def _resume(arguments: list[str]) -> None:
    @dataclass(frozen=True)
    class Options:
        """Continue a run from its newest checkpoint, exactly as if it had never stopped."""

        resume: Path
        """Folder of the run."""
        rounds: int | None = None
        """New total number of rounds; by default what the run was started with."""
        cache: bool = True
        """Reuse compiled programs and keep new ones; --no-cache compiles all of them again."""

    advice = "a run keeps what it was begun with, and takes --rounds and --no-cache only"
    options = parse(Options, arguments, "train", advice)
    from gossamer.runs.progress import reporter
    from gossamer.system.compilation import keep_memory_mapped
    from gossamer.system.compilation_cache import disable_cache
    from gossamer.train import resume

    if not options.cache:
        disable_cache()
    keep_memory_mapped()
    print(resume(options.resume, options.rounds, reporter(options.resume.name)))


def demo_command(arguments: list[str]) -> None:
    """Train 25 agents on 25 tasks by diffusion, and a centralised learner beside them."""

    @dataclass(frozen=True)
    class Options:
        """Cart-pole balance, 25 tasks: Diff-SiAC and centralised SiAC, compared and drawn."""

        rounds: int = 200
        """Rounds of both trainings."""
        seed: int = 0
        """Seed of both trainings."""
        out: Path | None = None
        """Folder of the two runs and the picture; by default runs/demo-DATE-TIME."""
        cache: bool = True
        """Reuse compiled programs and keep new ones; --no-cache compiles all of them again."""

    options = parse(Options, arguments, "demo")
    from gossamer.cli.demo import demo
    from gossamer.system.compilation_cache import disable_cache

    if not options.cache:
        disable_cache()
    out = options.out or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    demo(out, options.rounds, options.seed)
