"""The command line. It parses, calls the library and prints; every decision is made below it.

Bad input leaves one sentence on standard error and exit status 2, an interrupted run status 130, a run that
diverged or could not be written any more status 1. A defect leaves its traceback.
"""

import contextlib
import difflib
import errno
import functools
import io
import itertools
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gossamer.errors import InputError

PROGRAM = "gossamer"
_INTERRUPTED = 130
_FULL = (errno.ENOSPC, errno.EDQUOT)


def program() -> None:
    """The command line as a process of its own."""
    _say_our_warnings_plainly()
    try:
        main()
    except SystemExit as ending:
        if ending.code != _INTERRUPTED:
            raise
        # What XLA still compiles or computes would crash while the interpreter takes itself apart.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(_INTERRUPTED)


def _say_our_warnings_plainly() -> None:
    """Without the line of code that warns; other people's warnings stay as they are."""
    usual = warnings.formatwarning

    def shown(message: Any, category: type[Warning], *where: Any, **more: Any) -> str:
        ours = category.__module__.partition(".")[0] == PROGRAM
        return f"{PROGRAM}: {message}\n" if ours else usual(message, category, *where, **more)

    warnings.formatwarning = shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with its status."""
    try:
        _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        _exit(2, str(error))
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        # Of all that the system may refuse, only this is never a defect, wherever it comes up.
        if error.errno not in _FULL:
            raise
        _exit(
            1, f"{error.filename or 'a file'} cannot be written ({error.strerror}); make room and try again"
        )
    except KeyboardInterrupt:
        _exit(_INTERRUPTED, "interrupted")
    except Exception as error:
        # The ends of a run that are no defects; anything else keeps its traceback.
        from gossamer.stopping import Interrupted, Unfinished

        if isinstance(error, Interrupted):
            _exit(_INTERRUPTED, str(error))
        if isinstance(error, Unfinished):
            _exit(1, str(error))
        raise


def _exit(status: int, message: str) -> None:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    sys.exit(status)


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    if arguments[0] == "--version":
        print(f"{PROGRAM} {version('gossamer')}")
        return
    # A run may name classes of the user's own, whose modules lie where the command is given.
    with contextlib.suppress(FileNotFoundError):  # a directory that was removed meanwhile
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    name, *rest = arguments
    if name not in COMMANDS:
        raise InputError(f"{name!r} is no command; {_nearest(name, list(COMMANDS))}")
    COMMANDS[name](rest)


def _overview() -> str:
    lines = [
        "gossamer: fully decentralised deep reinforcement learning",
        "",
        f"usage: {PROGRAM} COMMAND [ARGUMENTS]   ({PROGRAM} COMMAND --help says more)",
        "",
    ]
    lines += [f"  {name:<10} {command.__doc__ or ''}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", f"  {'--version':<10} Print the version."])


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{guess}known are {', '.join(known)}"


def _call_of(function: Callable[..., Any], arguments: Sequence[str], command: str) -> Callable[[], Any]:
    """The call that the arguments describe, not made yet: tyro would make it before it has seen all of them."""

    @functools.wraps(function)
    def described(*given: Any, **named: Any) -> Callable[[], Any]:
        return functools.partial(function, *given, **named)

    return _parse(described, arguments, command)


def _parse(kind: Any, arguments: Sequence[str], command: str, advice: str = "", **options: Any) -> Any:
    """Parse with tyro, but refuse unknown flags in one sentence, which ends with the advice.

    ``kind`` is called before unknown flags are seen: it must make data and do nothing.
    """
    program = f"{PROGRAM} {command}"
    _refuse_repeated(arguments)
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed, unknown = tyro.cli(
                kind,
                args=list(arguments),
                prog=program,
                config=config,
                return_unknown_args=True,
                **options,
            )
    except SystemExit as exit_:
        if exit_.code == 2:
            raise InputError(_sentence(complaint.getvalue())) from None
        raise
    if unknown:
        flags = _flags(kind, config, **options)
        near = difflib.get_close_matches(unknown[0], flags, n=2, cutoff=0.5)
        guess = f"did you mean {' or '.join(near)}? " if near else ""
        what = "flag" if unknown[0].startswith("-") else "argument"
        advice = advice or f"{guess}{program} --help lists what is accepted"
        raise InputError(f"unknown {what} {unknown[0]}; {advice}")
    return parsed


def _refuse_repeated(arguments: Sequence[str]) -> None:
    """Of a flag given twice the parser would keep the last without a word."""
    flags = [argument.partition("=")[0] for argument in arguments if re.match(r"--[a-z]", argument)]
    twice = [flag for flag in flags if flags.count(flag) > 1]
    if twice:
        raise InputError(
            f"{twice[0]} is given {flags.count(twice[0])} times; give it once, with all its values"
        )


def _sentence(box: str) -> str:
    """What tyro says in a box, as one line in our own manner: the text above the box's first rule."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    # Where the output is no terminal, rules are dashes, and one of them stands above the text too.
    begun = itertools.dropwhile(_is_rule, lines)
    text = " ".join(line for line in itertools.takewhile(lambda line: not _is_rule(line), begun) if line)
    for pattern, ours in _OURS:
        text = re.sub(pattern, ours, text)
    return text


def _is_rule(line: str) -> bool:
    return line.startswith(("─", "╰", "---"))


_OURS = (
    # Which dataclass a bad field stands in is our affair.
    (r"^Error parsing (?!-)[\w.]+: ", ""),
    (
        r"^Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)$",
        r"\1 is \2; it must be an integer",
    ),
    (r"^Error parsing (\S+): could not convert string to float: (.*)$", r"\1 is \2; it must be a number"),
    (
        r"^Error parsing (\S+): Could not find valid parse for arguments: (.*)$",
        r"\1 is \2; --help says what it accepts",
    ),
    (r"^Missing value for argument '(\S+)'\..*$", r"\1 has no value; --help says what it accepts"),
    (
        r"^invalid choice (.*) for argument '(\S+)'\. Expected one of \((.*)\)\.$",
        r"\2 is \1; it must be one of \3",
    ),
    (
        r"^Error parsing (\S+): no type matching (\S+) could be instantiated from \['(.*?)'\]\. .*$",
        r"\1 is '\3'; it must be one of \2",
    ),
    (r"^Missing from .*?: (\S+)(?: [A-Z{}|]+| \[.*\])? (.*?) \(required\)$", r"\1 is missing: \2"),
)


def _flags(kind: Any, config: Any, **options: Any) -> list[str]:
    """Every flag that the help text names; tyro offers no other list."""
    text = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(text):
        tyro.cli(kind, args=["--help"], config=config, **options)
    return sorted(set(re.findall(r"--[a-z][a-z-]*", text.getvalue())))


def _list(arguments: list[str]) -> None:
    """List the recipes, figures and tables, topologies and weight rules."""

    @dataclass(frozen=True)
    class Options:
        """List the recipes, figures and tables, topologies and weight rules."""

    _parse(Options, arguments, "list")
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


def _train(arguments: list[str]) -> None:
    """Run a recipe, or continue a run with --resume RUN."""
    from gossamer.recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: {PROGRAM} train RECIPE [OPTIONS]   ({PROGRAM} train RECIPE --help lists them)\n"
            f"       {PROGRAM} train --resume RUN [--rounds INT]\n\n"
            f"recipes: {', '.join(RECIPES)}"
        )
        return
    if _is_resumed(arguments):
        _resume(arguments)
        return
    _train_recipe(_recipe(arguments[0]), arguments[1:])


def _is_resumed(arguments: Sequence[str]) -> bool:
    return any(each.partition("=")[0] == "--resume" for each in arguments)


def _train_recipe(name: str, arguments: list[str]) -> None:
    from gossamer.experiment import Experiment
    from gossamer.progress import reporter
    from gossamer.recipes import RECIPES
    from gossamer.train import train

    @dataclass(frozen=True)
    class Options:
        experiment: Experiment
        out: Path | None = None
        """Folder of the run, new or empty; by default runs/RECIPE-DATE-TIME."""

    default = Options(RECIPES[name]())
    description = f"Train the recipe {name}: {(RECIPES[name].__doc__ or '').strip().splitlines()[0]}"
    options = _parse(Options, arguments, f"train {name}", default=default, description=description)
    out = options.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    _keep_memory()
    print(train(options.experiment, out, reporter(name)))


def _resume(arguments: list[str]) -> None:
    from gossamer.progress import reporter
    from gossamer.train import resume

    @dataclass(frozen=True)
    class Options:
        """Continue a run from its newest checkpoint, exactly as if it had never stopped."""

        resume: Path
        """Folder of the run."""
        rounds: int | None = None
        """New total number of rounds; by default what the run was started with."""

    advice = "a run keeps what it was begun with, and takes --rounds only"
    options = _parse(Options, arguments, "train", advice)
    _keep_memory()
    print(resume(options.resume, options.rounds, reporter(options.resume.name)))


def _keep_memory() -> None:
    """Temporaries of large networks are not given back to the kernel between updates; for a whole process."""
    from gossamer.compilation import keep_memory_mapped

    keep_memory_mapped()


def _evaluate(arguments: list[str]) -> None:
    """Play episodes with every agent of a run on every task."""

    @dataclass(frozen=True)
    class Options:
        """Play episodes with every agent of a run on every task; prints a table and writes it to the run."""

        run: tyro.conf.Positional[Path]
        """Folder of the run."""
        episodes: int = 10
        """Episodes per agent and task."""
        policy: Literal["greedy", "sampled"] = "greedy"
        """Play the most probable action, or sample as in training."""
        seed: int = 0
        """Seed of the initial states and of the sampled actions."""
        tasks: tuple[str, ...] = ()
        """Other tasks than the run's (zero-shot): names that the environment holds out, or parameter=value,..."""
        checkpoint: Literal["newest", "best"] = "newest"
        """Which checkpoint plays; the best one is kept by runs with --keep-best."""

    options = _parse(Options, arguments, "evaluate")
    from gossamer.evaluate import evaluate, table, tasks_named, write_evaluation
    from gossamer.train import load_experiment

    greedy, others = options.policy == "greedy", None
    if options.tasks:
        others = tasks_named(load_experiment(options.run).environment, options.tasks)
    best = options.checkpoint == "best"
    evaluation = evaluate(options.run, options.episodes, greedy, options.seed, others, best)
    zero_shot = f"-zero-shot-{'+'.join(options.tasks)[:80]}" if options.tasks else ""
    name = f"evaluation-{options.policy}{'-best' if best else ''}{zero_shot}.json"
    path = write_evaluation(evaluation, options.run / name)
    print(table(evaluation))
    print(path)


def _video(arguments: list[str]) -> None:
    """Film one game, or episode, of a trained agent."""

    @dataclass(frozen=True)
    class Options:
        """Film one game, or episode, of an agent of a run: Atari, or environments of Gymnasium that render."""

        run: tyro.conf.Positional[Path]
        """Folder of the run."""
        agent: int = 0
        """Number of the agent that plays."""
        policy: Literal["greedy", "sampled"] = "greedy"
        """Play the most probable action, or sample as in training."""
        seed: int = 0
        """Seed of the opening and of the sampled actions."""
        out: Path | None = None
        """The video, a .gif, or an .mp4 where imageio-ffmpeg is installed; by default video.gif in the run."""

    options = _parse(Options, arguments, "video")
    from gossamer.video import record_video

    greedy = options.policy == "greedy"
    video = record_video(options.run, options.out, options.agent, greedy, options.seed)
    end = "" if video.finished else ", then the video ends before the game does"
    print(f"{video.steps} steps, return {video.score:g}{end}")
    print(video.path)


def _plot(arguments: list[str]) -> None:
    """Draw the learning curves of one or several runs."""

    @dataclass(frozen=True)
    class Options:
        """Draw returns and consensus distances of one or several runs."""

        runs: tyro.conf.Positional[tuple[Path, ...]]
        """Folders of runs; one with several seeds is one curve with an interval."""
        out: Path | None = None
        """The picture (png, pdf or svg); by default figures/curves.png in the first run."""
        labels: tuple[str, ...] | None = None
        """One label for each run; by default what its configuration says."""
        x: Annotated[Literal["env_steps", "rounds"], tyro.conf.arg(name="x")] = "env_steps"
        """What the x axis counts."""
        title: str | None = None
        """Title of the picture."""

    options = _parse(Options, arguments, "plot")
    from gossamer.analysis import plot

    if not options.runs:
        raise InputError("no run was given; give at least one run folder")
    out = options.out or options.runs[0] / "figures" / "curves.png"
    print(plot(options.runs, out, options.labels, options.x, options.title))


def _topology(arguments: list[str]) -> None:
    """Print a topology's properties and draw it."""

    @dataclass(frozen=True)
    class Options:
        """Print the properties of a topology with its combination weights, and draw it."""

        name: tyro.conf.Positional[str]
        """NAME, NAME:parameter=value,..., or the path of an edge-list file."""
        agents: int | None = None
        """Number of agents; by default 25, and in a file as many as its largest number says."""
        weights: str = "metropolis_hastings"
        """A weight rule, or the path of a matrix file."""
        out: Path | None = None
        """The picture (png, pdf or svg); by default topology-NAME-AGENTS.png here."""

    options = _parse(Options, arguments, "topology")
    from gossamer.analysis.graphs import MOST_DRAWN, describe, draw
    from gossamer.analysis.pictures import check_format
    from gossamer.experiment import weigh_by
    from gossamer.topologies import file_of, named

    file = file_of(options.name)
    agents = options.agents if options.agents is not None or file is not None else 25
    topology = named(options.name, agents)
    weights = weigh_by(options.weights, topology)
    stem = options.name.partition(":")[0] if file is None else file.stem
    out = options.out or Path(f"topology-{stem}-{topology.agents}.png")
    check_format(out)
    for name, value in describe(topology, weights).items():
        print(f"{name:<34} {value}")
    if topology.agents > MOST_DRAWN:
        print(f"no picture: more than {MOST_DRAWN} agents")
        return
    print(draw(topology, out))


@dataclass(frozen=True)
class _Making:
    """How reproductions are made, one or all."""

    scale: Literal["quick", "paper"] = "quick"
    """quick fits two CPU cores; paper is the published size."""
    seeds: int | None = None
    """Seeds of every training; by default 5, or the published number at scale paper."""
    out: Path = Path("results")
    """Where a folder with the results is written."""
    runs: Path = Path("runs/reproduce")
    """Where trainings are kept, shared by all figures and tables of a scale."""
    processes: int | None = None
    """Trainings at once, each on a core of its own; by default one for each core."""


def _reproduce(arguments: list[str]) -> None:
    """Make a published figure or table, or --all: trainings, picture, and a verdict on every claim."""
    if "--all" in arguments:
        place = arguments.index("--all")
        _reproduce_all(arguments[:place] + arguments[place + 1 :])
        return
    from gossamer.reproductions import REPRODUCTIONS

    @dataclass(frozen=True)
    class Options(_Making):
        """Train what is not trained yet, then write data, a picture and a verdict on every claim; resumes.

        With --all in place of a name, all of them are made, and then the report.
        """

        name: tyro.conf.Positional[str] = tyro.MISSING
        """Which one: gossamer list names them."""

    options = _parse(Options, arguments, "reproduce")
    if options.name not in REPRODUCTIONS:
        raise InputError(
            f"{options.name!r} is no reproduction; {_nearest(options.name, list(REPRODUCTIONS))}"
        )
    from gossamer.reproductions import reproduce, verdict_table

    _keep_memory()
    reproduction = REPRODUCTIONS[options.name]
    folder, claims = reproduce(
        reproduction, options.scale, options.seeds, options.out, options.runs, options.processes
    )
    print(verdict_table(claims))
    print(folder)


def _reproduce_all(arguments: list[str]) -> None:
    @dataclass(frozen=True)
    class Options(_Making):
        """Make every figure and table, one after the other, each going on where it stopped; then the report."""

        report: Path = Path("docs/reproduction.md")
        """The report in Markdown; report.html lies with the results."""

    options = _parse(Options, arguments, "reproduce --all")
    from gossamer.reproductions import REPRODUCTIONS, reproduce_all, verdict_table, write_report

    _keep_memory()
    failed = reproduce_all(
        REPRODUCTIONS,
        lambda name, claims: print(f"{name}\n{verdict_table(claims)}\n", flush=True),
        options.scale,
        options.seeds,
        options.out,
        options.runs,
        options.processes,
    )
    for name, why in failed.items():
        print(f"{PROGRAM}: {name} was not made: {why}", file=sys.stderr)
    if len(failed) < len(REPRODUCTIONS):
        for path in write_report(options.out, options.report, options.out / "report.html"):
            print(path)
    if failed:
        _exit(1, f"{len(failed)} of {len(REPRODUCTIONS)} were not made; the same command goes on with them")


def _report(arguments: list[str]) -> None:
    """Set all results beside what the papers claim, as Markdown and as one HTML page."""

    @dataclass(frozen=True)
    class Options:
        """Set all results beside what the papers claim; every figure and table is there, run or not."""

        results: tyro.conf.Positional[Path] = Path("results")
        """Folder of the results."""
        out: Path = Path("docs/reproduction.md")
        """The page in Markdown, whose pictures are links into the results."""
        html: Path | None = None
        """The page in HTML, whose pictures are inside; by default report.html with the results."""

    options = _parse(Options, arguments, "report")
    from gossamer.reproductions import write_report

    for path in write_report(options.results, options.out, options.html or options.results / "report.html"):
        print(path)


def _theory(arguments: list[str]) -> None:
    """Check what the papers' theorems say by numbers: what holds, what does not, and a counterexample."""
    from rich.console import Console

    from gossamer.theory.tables import SUBJECTS

    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: {PROGRAM} theory SUBJECT [OPTIONS]   ({PROGRAM} theory SUBJECT --help lists them)\n\n"
            f"subjects: {', '.join(SUBJECTS)}"
        )
        return
    name, *rest = arguments
    if name not in SUBJECTS:
        raise InputError(f"{name!r} is no subject of theory; {_nearest(name, list(SUBJECTS))}")
    console = Console(width=max(100, Console().width))
    for table in _call_of(SUBJECTS[name], rest, f"theory {name}")():
        console.print(table)


def _launch(arguments: list[str]) -> None:
    """Run a recipe with a process for each agent, or continue with --resume RUN."""
    from gossamer.recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: {PROGRAM} launch RECIPE [OPTIONS]   ({PROGRAM} launch RECIPE --help lists them)\n"
            f"       {PROGRAM} launch RECIPE --runtime ray [--address ADDRESS] [OPTIONS]\n"
            f"       {PROGRAM} launch --resume RUN [--rounds INT] [--address ADDRESS]\n\n"
            f"recipes: {', '.join(RECIPES)}"
        )
        return
    if _is_resumed(arguments):
        _resume_launch(arguments)
        return
    _launch_recipe(_recipe(arguments[0]), arguments[1:])


def _launch_recipe(name: str, arguments: list[str]) -> None:
    from gossamer.experiment import Experiment
    from gossamer.fleet.cluster import Cluster, launch_on_ray
    from gossamer.fleet.launch import Launch, launch
    from gossamer.progress import reporter
    from gossamer.recipes import RECIPES

    @dataclass(frozen=True)
    class Options:
        experiment: Experiment
        how: Launch
        place: Cluster
        out: Path | None = None
        """Folder of the run, new or empty; by default runs/RECIPE-DATE-TIME."""

    on_ray, arguments = _is_on_ray(arguments)
    recipe = RECIPES[name]()
    default = Options(replace(recipe, runtime="network"), Launch(), Cluster())
    description = (
        f"Run {name}, a process for each agent: {(RECIPES[name].__doc__ or '').strip().splitlines()[0]} "
        "--runtime ray places them on a cluster."
    )
    options = _parse(Options, arguments, f"launch {name}", default=default, description=description)
    given = [each.name for each in fields(Cluster) if getattr(options.place, each.name) != each.default]
    if given and not on_ray:
        raise InputError(
            f"{given[0]} is {getattr(options.place, given[0])!r}, which is for agents on a cluster; add --runtime ray"
        )
    out = options.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    if on_ray:
        _leave_gpus_alone()
        print(launch_on_ray(options.experiment, out, options.how, options.place, reporter(name)))
    else:
        print(launch(options.experiment, out, options.how, reporter(name)))


def _leave_gpus_alone() -> None:
    """Who only begins and gathers agents takes no memory of the GPUs that they need; for a whole process."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def _is_on_ray(arguments: list[str]) -> tuple[bool, list[str]]:
    """Whether --runtime says ray, which is no runtime of an experiment: its agents run as on any network."""
    _refuse_repeated(arguments)
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


def _resume_launch(arguments: list[str]) -> None:
    from gossamer.fleet.launch import resume_launch
    from gossamer.progress import reporter

    @dataclass(frozen=True)
    class Options:
        """Continue a launch, each agent from its newest checkpoint."""

        resume: Path
        """Folder of the launch."""
        rounds: int | None = None
        """New total number of rounds; by default what it was started with."""
        address: str | None = None
        """Of the Ray to use, for a launch with --runtime ray; by default that which it used."""

    advice = "a launch keeps what it was begun with, and takes --rounds and --address only"
    options = _parse(Options, arguments, "launch", advice)
    _leave_gpus_alone()
    print(resume_launch(options.resume, options.rounds, reporter(options.resume.name), options.address))


def _agent(arguments: list[str]) -> None:
    """Be one agent of a fleet, on a device of its own; goes on where its folder stands."""
    from gossamer.recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: {PROGRAM} agent RECIPE --name NAME --fleet FLEET.toml [OPTIONS]   "
            f"({PROGRAM} agent RECIPE --help lists them)\n\n"
            f"recipes: {', '.join(RECIPES)}"
        )
        return
    _be_agent(_recipe(arguments[0]), arguments[1:])


def _be_agent(recipe: str, arguments: list[str]) -> None:
    from gossamer.experiment import Experiment
    from gossamer.fleet.device import Device, be_agent
    from gossamer.progress import reporter
    from gossamer.recipes import RECIPES

    recipes_own = replace(RECIPES[recipe](), runtime="network")

    @dataclass(frozen=True)
    class Options:
        device: Device
        experiment: Experiment = recipes_own
        out: Path | None = None
        """Folder of the agent; one that it wrote before is gone on with. By default runs/RECIPE/NAME."""

    options = _parse(Options, arguments, f"agent {recipe}", description=f"Be one agent of {recipe}.")
    out = options.out or Path("runs") / recipe / options.device.name
    print(be_agent(options.experiment, options.device, out, reporter(options.device.name)))


def _status(arguments: list[str]) -> None:
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

    options = _parse(Options, arguments, "status")
    from rich.console import Console

    from gossamer.fleet.status import ask_run, table

    status = ask_run(options.run, options.seconds, options.keys, options.observer)
    Console(width=max(100, Console().width)).print(table(status))


def _gather(arguments: list[str]) -> None:
    """Put the folders of all agents of a fleet together into one run, to plot and evaluate."""

    @dataclass(frozen=True)
    class Options:
        """Put the folders of all agents of a fleet together into one run."""

        folders: tyro.conf.Positional[tuple[Path, ...]]
        """Folders of the agents, in any order."""
        out: Path
        """Folder of the run."""

    options = _parse(Options, arguments, "gather")
    from gossamer.fleet.gather import gather

    print(gather(options.folders, options.out))


def _keys(arguments: list[str]) -> None:
    """Make a run's authority (keys init) and the certificates of its agents (keys issue)."""
    usage = (
        f"usage: {PROGRAM} keys init FOLDER --title TITLE [--days DAYS]\n"
        f"       {PROGRAM} keys issue FOLDER --names NAME ... [--addresses HOST ...] [--days DAYS]\n\n"
        "init makes authority.pem and authority.key, which never leaves this folder. issue makes NAME.pem and\n"
        "NAME.key of agents, and of observers, whose names begin with observer-; copy them and authority.pem to\n"
        "the device."
    )
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        return
    action, *rest = arguments
    actions = {"init": _init_keys, "issue": _issue_keys}
    if action not in actions:
        raise InputError(f"{action!r} is no action of keys; {_nearest(action, list(actions))}")
    actions[action](rest)


def _init_keys(arguments: list[str]) -> None:
    @dataclass(frozen=True)
    class Options:
        """Make the authority of a run."""

        folder: tyro.conf.Positional[Path]
        """Where; made if it is missing."""
        title: str
        """Name of the run in the authority's certificate."""
        days: float = 365.0
        """How long it is valid."""

    options = _parse(Options, arguments, "keys init")
    from gossamer.keys import create_authority, require_name

    require_name("title", options.title)
    print(create_authority(options.folder, options.title, options.days))


def _issue_keys(arguments: list[str]) -> None:
    @dataclass(frozen=True)
    class Options:
        """Make certificates and keys."""

        folder: tyro.conf.Positional[Path]
        """Of the authority."""
        names: tuple[str, ...]
        """Of agents, or of observers."""
        addresses: tuple[str, ...] = ("127.0.0.1", "localhost")
        """Names and numbers under which the device is reached."""
        days: float = 365.0
        """How long they are valid."""

    options = _parse(Options, arguments, "keys issue")
    from gossamer.keys import issue, require_name

    for name in options.names:
        require_name("name", name)  # all of them, before a certificate of the first is made
    for name in options.names:
        print(issue(options.folder, name, options.addresses, options.days))


def _recipe(name: str) -> str:
    """The name of a recipe, checked."""
    from gossamer.recipes import RECIPES

    if name.startswith("-"):
        raise InputError(f"{name!r} stands where a recipe was expected; known are {', '.join(RECIPES)}")
    if name not in RECIPES:
        raise InputError(f"{name!r} is no recipe; {_nearest(name, list(RECIPES))}")
    return name


def _demo(arguments: list[str]) -> None:
    """Train 25 agents on 25 tasks by diffusion, and a centralised learner beside them."""

    @dataclass(frozen=True)
    class Options:
        """Cart-pole balance, 25 tasks: Diff-SiAC and centralised SiAC, compared and drawn."""

        rounds: int = 300
        """Rounds of both trainings."""
        seed: int = 0
        """Seed of both trainings."""
        out: Path | None = None
        """Folder of the two runs and the picture; by default runs/demo-DATE-TIME."""

    options = _parse(Options, arguments, "demo")
    from gossamer.demo import demo

    out = options.out or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    demo(out, options.rounds, options.seed)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "list": _list,
    "train": _train,
    "launch": _launch,
    "agent": _agent,
    "status": _status,
    "gather": _gather,
    "keys": _keys,
    "evaluate": _evaluate,
    "video": _video,
    "plot": _plot,
    "topology": _topology,
    "reproduce": _reproduce,
    "report": _report,
    "theory": _theory,
    "demo": _demo,
}
