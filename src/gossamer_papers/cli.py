"""``gossamer reproduce`` and ``report``: what the papers publish, made again and set beside it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from gossamer.catalogue import PROGRAM, REPRODUCTIONS
from gossamer.cli.parse import call_of, parse
from gossamer.errors import InputError, nearest


def reproduce_command(arguments: list[str]) -> None:
    """Make a published figure or table, or --all: trainings, picture, and a verdict on every claim."""
    if "--all" in arguments:
        place = arguments.index("--all")
        _reproduce_all(arguments[:place] + arguments[place + 1 :])
        return

    @dataclass(frozen=True)
    class Options(_Making):
        """Train what is not trained yet, then write data, a picture and a verdict on every claim; resumes.

        With --all in place of a name, all of them are made, and then the report.
        """

        name: tyro.conf.Positional[str] = tyro.MISSING
        """Which one: gossamer list names them."""

    options = parse(Options, arguments, "reproduce")
    if options.name not in REPRODUCTIONS:
        raise InputError(
            f"{options.name!r} is not a reproduction; {nearest(options.name, list(REPRODUCTIONS))}"
        )
    from gossamer.system.compilation import keep_memory_mapped
    from gossamer.system.compilation_cache import disable_cache
    from gossamer_papers import registry
    from gossamer_papers.run import reproduce, verdict_table

    if not options.cache:
        disable_cache()
    keep_memory_mapped()
    reproduction = registry.REPRODUCTIONS[options.name]
    folder, claims = reproduce(
        reproduction, options.scale, options.seeds, options.out, options.runs, options.processes
    )
    print(verdict_table(claims))
    print(folder)


def _reproduce_all(arguments: list[str]) -> None:
    @dataclass(frozen=True)
    class Options(_Making):
        """Make every figure and table in turn, each resumed where it stopped; then the report."""

        report: Path = Path("docs/reproduction.md")
        """The report in Markdown; report.html lies with the results."""

    options = parse(Options, arguments, "reproduce --all")
    from gossamer.system.compilation import keep_memory_mapped
    from gossamer.system.compilation_cache import disable_cache
    from gossamer.system.signals import Unfinished
    from gossamer_papers import registry
    from gossamer_papers.report import write_report
    from gossamer_papers.run import verdict_table
    from gossamer_papers.series import reproduce_all

    if not options.cache:
        disable_cache()
    keep_memory_mapped()
    failed = reproduce_all(
        registry.REPRODUCTIONS,
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
        raise Unfinished(
            f"{len(failed)} of {len(REPRODUCTIONS)} were not made; repeat the command to continue"
        )


def report_command(arguments: list[str]) -> None:
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

    options = parse(Options, arguments, "report")
    from gossamer_papers.report import write_report

    for path in write_report(options.results, options.out, options.html or options.results / "report.html"):
        print(path)


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
    cache: bool = True
    """Reuse compiled programs and keep new ones; --no-cache compiles all of them again."""


def theory_command(arguments: list[str]) -> None:
    """Check what the papers' theorems say by numbers: what holds, what does not, and a counterexample."""
    from rich.console import Console

    from gossamer_papers.theory.tables import SUBJECTS

    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: {PROGRAM} theory SUBJECT [OPTIONS]   ({PROGRAM} theory SUBJECT --help lists them)\n\n"
            f"subjects: {', '.join(SUBJECTS)}"
        )
        return
    name, *rest = arguments
    if name not in SUBJECTS:
        raise InputError(f"{name!r} is no subject of theory; {nearest(name, list(SUBJECTS))}")
    console = Console(width=max(100, Console().width))
    for table in call_of(SUBJECTS[name], rest, f"theory {name}")():
        console.print(table)
