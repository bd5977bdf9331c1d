"""``gossamer launch``, ``agent``, ``status`` and ``gather``: a process for each agent, here or anywhere."""

from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path

import tyro

from gossamer.catalogue import PROGRAM, RECIPES
from gossamer.cli.catalogue import columns, recipe_named
from gossamer.cli.parse import HELP, parse, refuse_repeated
from gossamer.cli.train import FIRST, is_resumed
from gossamer.errors import InputError


def launch_command(arguments: list[str]) -> None:
    """Run a recipe with a process for each agent, or continue with --resume RUN."""
    if not arguments or arguments[0] in HELP:
        print(
            f"usage: {PROGRAM} launch RECIPE [OPTIONS]   ({PROGRAM} launch RECIPE --help)\n"
            f"       {PROGRAM} launch RECIPE --runtime ray [--address ADDRESS] [OPTIONS]\n"
            f"       {PROGRAM} launch --resume RUN [--rounds INT] [--address ADDRESS]\n\n"
            f"recipes:\n{columns(RECIPES)}"
        )
        return
    if is_resumed(arguments):
        _resume_launch(arguments)
        return
    _launch_recipe(recipe_named(arguments[0]), arguments[1:])


def agent_command(arguments: list[str]) -> None:
    """Run one agent of a fleet on this device; resume it if its folder exists."""
    if not arguments or arguments[0] in HELP:
        print(
            f"usage: {PROGRAM} agent RECIPE --name NAME --fleet FLEET.toml [OPTIONS]\n"
            f"       {PROGRAM} agent RECIPE --help\n\n"
            f"recipes:\n{columns(RECIPES)}"
        )
        return
    _be_agent(recipe_named(arguments[0]), arguments[1:])


def status_command(arguments: list[str]) -> None:
    """Say which agents of a launch live, how old what they hear is, and how far apart they are."""

    @dataclass(frozen=True)
    class Options:
        """Ask the agents of a launch, or of a fleet, while they live, how they are."""

        run: tyro.conf.Positional[Path]
        """Folder of the launch, or of one agent of the fleet."""
        seconds: float = 3.0
        """How long answers are waited for, at most."""
        keys: Path | None = None
        """Folder with the observer's certificate, where a fleet talks by TLS; a launch has one of its own."""
        observer: str = "observer-status"
        """Name in that certificate, one of the fleet's observers."""

    options = parse(Options, arguments, "status")
    from rich.console import Console

    from gossamer.network.status import ask_run, table

    status = ask_run(options.run, options.seconds, options.keys, options.observer)
    Console(width=max(100, Console().width)).print(table(status))


def gather_command(arguments: list[str]) -> None:
    """Put the folders of all agents of a fleet together into one run, to plot and evaluate."""

    @dataclass(frozen=True)
    class Options:
        """Put the folders of all agents of a fleet together into one run."""

        folders: tyro.conf.Positional[tuple[Path, ...]]
        """Folders of the agents, in any order."""
        out: Path
        """Folder of the run."""

    options = parse(Options, arguments, "gather")
    from gossamer.network.merge import gather

    print(gather(options.folders, options.out))


def _launch_recipe(name: str, arguments: list[str]) -> None:
    from gossamer import recipes
    from gossamer.experiment import Experiment
    from gossamer.network.launcher import Launch, launch
    from gossamer.network.ray import Cluster, launch_on_ray
    from gossamer.runs.progress import reporter
    from gossamer.system.compilation_cache import disable_cache

    @dataclass(frozen=True)
    class Options:
        experiment: Experiment
        how: Launch
        place: Cluster
        out: Path | None = None
        """Folder of the run, new or empty; by default runs/RECIPE-DATE-TIME."""
        cache: bool = True
        """Reuse compiled programs and keep new ones; --no-cache compiles all of them again."""

    on_ray, arguments = _is_on_ray(arguments)
    recipe = recipes.RECIPES[name]()
    default = Options(replace(recipe, runtime="network"), Launch(), Cluster())
    description = f"Train {name}, one process per agent.\n\n--runtime ray places the agents on a cluster."
    options = parse(
        Options,
        arguments,
        f"launch {name}",
        first=("--tls", *FIRST),
        default=default,
        description=description,
    )
    given = [each.name for each in fields(Cluster) if getattr(options.place, each.name) != each.default]
    if given and not on_ray:
        raise InputError(
            f"{given[0]} is {getattr(options.place, given[0])!r}, which is for agents on a cluster; add --runtime ray"
        )
    out = options.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if not options.cache:
        disable_cache()
    if on_ray:
        _leave_gpus_alone()
        print(launch_on_ray(options.experiment, out, options.how, options.place, reporter(name)))
    else:
        print(launch(options.experiment, out, options.how, reporter(name)))


def _resume_launch(arguments: list[str]) -> None:
    from gossamer.network.launcher import is_on_ray, resume_launch
    from gossamer.runs.progress import reporter
    from gossamer.system.compilation_cache import disable_cache

    @dataclass(frozen=True)
    class Options:
        """Continue a launch, each agent from its newest checkpoint."""

        resume: Path
        """Folder of the launch."""
        rounds: int | None = None
        """New total number of rounds; by default what it was started with."""
        address: str | None = None
        """Of the Ray to use, for a launch with --runtime ray; by default that which it used."""
        cache: bool = True
        """Reuse compiled programs and keep new ones; --no-cache compiles all of them again."""

    advice = "a launch keeps what it was begun with, and takes --rounds, --address and --no-cache only"
    options = parse(Options, arguments, "launch", advice)
    if not options.cache:
        disable_cache()
    _leave_gpus_alone()
    shown = reporter(options.resume.name)
    if is_on_ray(options.resume):
        from gossamer.network.ray import resume_on_ray

        print(resume_on_ray(options.resume, options.rounds, shown, options.address))
        return
    if options.address is not None:
        raise InputError(
            f"address is {options.address!r}; {options.resume} was not launched on Ray, leave it out"
        )
    print(resume_launch(options.resume, options.rounds, shown))


def _is_on_ray(arguments: list[str]) -> tuple[bool, list[str]]:
    """Whether --runtime says ray, which is no runtime of an experiment: its agents run as on any network."""
    refuse_repeated(arguments)
    split = [
        part
        for each in arguments
        for part in (each.split("=", 1) if each.startswith("--runtime=") else [each])
    ]
    if "--runtime" not in split[:-1]:
        return False, arguments
    place = split.index("--runtime")
    runtime = split[place + 1]
    if runtime not in ("network", "ray"):
        raise InputError(
            f"--runtime is {runtime!r}; {PROGRAM} launch takes network or ray, others are for train"
        )
    return runtime == "ray", split[:place] + split[place + 2 :]


def _leave_gpus_alone() -> None:
    """Who only begins and gathers agents takes no memory of the GPUs that they need; for a whole process."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def _be_agent(recipe: str, arguments: list[str]) -> None:
    from gossamer import recipes
    from gossamer.experiment import Experiment
    from gossamer.network.device import Device, be_agent
    from gossamer.runs.progress import reporter
    from gossamer.system.compilation_cache import disable_cache

    recipes_own = replace(recipes.RECIPES[recipe](), runtime="network")

    @dataclass(frozen=True)
    class Options:
        device: Device
        experiment: Experiment = recipes_own
        out: Path | None = None
        """Folder of the agent; one that it wrote before is gone on with. By default runs/RECIPE/NAME."""
        cache: bool = True
        """Reuse compiled programs and keep new ones; --no-cache compiles all of them again."""

    description = f"Run one agent of a fleet that trains {recipe}: {RECIPES[recipe]}."
    first = ("--name", "--fleet", "--listen", "--connect", "--keys", *FIRST)
    options = parse(Options, arguments, f"agent {recipe}", first=first, description=description)
    if not options.cache:
        disable_cache()
    out = options.out or Path("runs") / recipe / options.device.name
    print(be_agent(options.experiment, options.device, out, reporter(options.device.name)))
