"""``gossamer evaluate``, ``video``, ``plot`` and ``topology``: what is seen of runs and of graphs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gossamer.cli.parse import parse
from gossamer.errors import InputError


def evaluate_command(arguments: list[str]) -> None:
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
        cache: bool = True
        """Reuse compiled programs and keep new ones; --no-cache compiles all of them again."""

    options = parse(Options, arguments, "evaluate")
    from gossamer.evaluation.evaluate import evaluate, table, tasks_named, write_evaluation
    from gossamer.runs.description import load_experiment
    from gossamer.system.compilation_cache import disable_cache

    if not options.cache:
        disable_cache()
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


def video_command(arguments: list[str]) -> None:
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

    options = parse(Options, arguments, "video")
    from gossamer.evaluation.video import record_video

    greedy = options.policy == "greedy"
    video = record_video(options.run, options.out, options.agent, greedy, options.seed)
    end = "" if video.finished else ", then the video ends before the game does"
    print(f"{video.steps} steps, return {video.score:g}{end}")
    print(video.path)


def plot_command(arguments: list[str]) -> None:
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

    options = parse(Options, arguments, "plot")
    from gossamer.analysis import plot

    if not options.runs:
        raise InputError("no run was given; give at least one run folder")
    out = options.out or options.runs[0] / "figures" / "curves.png"
    print(plot(options.runs, out, options.labels, options.x, options.title))


def topology_command(arguments: list[str]) -> None:
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

    options = parse(Options, arguments, "topology")
    from gossamer.analysis.graphs import MOST_DRAWN, describe, draw
    from gossamer.analysis.pictures import check_format
    from gossamer.runtimes.build import weigh_by
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
