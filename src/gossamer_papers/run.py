"""Makes a reproduction: its trainings in several processes, resumed where they stand, then its verdicts on disk.

What is trained and concluded is said elsewhere.
"""

import csv
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gossamer.analysis.pictures import save_picture
from gossamer.errors import InputError, require_at_least, require_choice
from gossamer.experience import Episodes
from gossamer.experiment import Experiment
from gossamer.recipes.diffdac import Scale
from gossamer.runs import checkpoints
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import provenance, read_config, read_metrics, write_json
from gossamer.runs.progress import Lines
from gossamer.runs.restore import run_folders
from gossamer.system.processes import available_cores, become_worker, is_orphan
from gossamer.train import Interrupted, resume, train
from gossamer_papers.measures import environments_of_each
from gossamer_papers.protocol import Claim, Findings, Reproduction, Training

_QUICK_SEEDS = 5


def reproduce(
    reproduction: Reproduction,
    scale: Scale = "quick",
    seeds: int | None = None,
    out: Path = Path("results"),
    runs: Path = Path("runs/reproduce"),
    processes: int | None = None,
) -> tuple[Path, tuple[Claim, ...]]:
    """Train what is not trained yet, and write data, picture and verdicts.

    Trainings are shared between reproductions, scales never mix: a training lies in ``runs/scale/name``. Interrupted,
    a later call resumes there.

    Args:
        reproduction: what to make.
        scale: ``quick`` fits two cores, ``paper`` is the published size.
        seeds: of every training; by default 5, or the published number at scale ``paper``.
        out: a folder of the reproduction's name is written here.
        runs: where trainings are kept.
        processes: trainings at once, each on a core of its own; by default one for each core.

    Returns:
        The folder with ``summary.json``, the picture and the curves; and the claims.

    Raises:
        InputError: bad numbers, or a training folder that holds another experiment.
        Interrupted: it was asked to stop; trainings have saved themselves.
    """
    require_choice("scale", scale, ("quick", "paper"))
    seeds = seeds if seeds is not None else _QUICK_SEEDS if scale == "quick" else reproduction.published_seeds
    require_at_least("seeds", seeds, 1)
    processes = processes if processes is not None else len(available_cores())
    require_at_least("processes", processes, 1)
    trainings = reproduction.trainings(scale, seeds)
    folders = {name: runs / scale / name for name in trainings}
    waiting = {name: each for name, each in trainings.items() if not is_finished(each, folders[name])}
    _train_all(waiting, folders, min(processes, len(waiting)))
    findings = reproduction.conclude(folders)
    folder = write_findings(reproduction, findings, scale, seeds, folders, out / reproduction.name)
    return folder, findings.claims


def is_finished(experiment: Experiment, folder: Path) -> bool:
    """Whether a folder holds this training to its end.

    Raises:
        InputError: it holds another one.
    """
    if not (folder / "config.json").exists():
        return False
    held = load_experiment(folder)
    if replace(held, rounds=experiment.rounds) != experiment or held.rounds > experiment.rounds:
        raise InputError(
            f"{folder} holds another training than is wanted now; move it away, or give another folder of trainings "
            "(--runs)"
        )
    saved = [checkpoints.rounds(each / "checkpoints") for each in run_folders(folder)]
    return all(rounds and rounds[-1] == experiment.rounds for rounds in saved)


def write_findings(
    reproduction: Reproduction,
    findings: Findings,
    scale: Scale,
    seeds: int,
    folders: Mapping[str, Path],
    out: Path,
) -> Path:
    """What a reproduction leaves.

    ``verdicts.md`` (claims and trainings, to read), ``summary.json`` (the same with all data and versions), the
    picture, and the learning curve of each training as CSV.
    """
    if findings.picture is not None:
        save_picture(findings.picture, out / "picture.png")
    for name, folder in folders.items():
        _write_curve(folder, out / f"{name}.csv")
    experiments = {name: load_experiment(folder) for name, folder in folders.items()}
    sizes = [
        Training(name, each.agents, environments_of_each(each), _length(each), each.seeds)
        for name, each in experiments.items()
    ]
    _write(out / "verdicts.md", verdicts(reproduction, findings.claims, scale, seeds, sizes))
    write_json(
        out / "summary.json",
        {
            "name": reproduction.name,
            "title": reproduction.title,
            "scale": scale,
            "seeds": seeds,
            "claims": [claim._asdict() for claim in findings.claims],
            "data": findings.data,
            "trainings": {name: read_config(folder)["experiment"] for name, folder in folders.items()},
            "sizes": [training._asdict() for training in sizes],
            "date": datetime.now(UTC).date().isoformat(),
            "provenance": provenance(),
        },
    )
    return out


def verdict_table(claims: tuple[Claim, ...]) -> str:
    """Two lines a claim: the verdict and what was claimed, and the figures.

    Example:
        >>> print(verdict_table((Claim("a beats b", "holds", "2 against 1"),)))
        holds          a beats b
                       2 against 1
    """
    return "\n".join(f"{claim.verdict:<14} {claim.text}\n{'':<14} {claim.evidence}" for claim in claims)


def verdicts(
    reproduction: Reproduction,
    claims: tuple[Claim, ...],
    scale: Scale,
    seeds: int,
    sizes: Sequence[Training],
) -> str:
    """Claims and trainings as Markdown."""
    lines = [f"# {reproduction.title}", ""]
    lines += [f"`gossamer reproduce {reproduction.name} --scale {scale} --seeds {seeds}`", ""]
    lines += ["| verdict | claim | in our runs |", "|---|---|---|"]
    lines += [f"| **{claim.verdict}** | {claim.text} | {claim.evidence} |" for claim in claims]
    if sizes:
        lines += [
            "",
            "| training | agents | environments of each | length | seeds |",
            "|---|---|---|---|---|",
        ]
    lines += [
        f"| {each.name} | {each.agents} | {each.environments} | {each.length} | {each.seeds} |"
        for each in sizes
    ]
    return "\n".join([*lines, ""])


def _length(experiment: Experiment) -> str:
    """Of a training, in each environment."""
    if not isinstance(experiment.experience, Episodes):
        steps = f"{experiment.rounds * experiment.experience.steps:,} steps in each environment"
        return steps if experiment.schedule.synchronous else f"{steps}, less where agents rested"
    episodes = experiment.rounds * experiment.experience.episodes_per_environment
    return f"{episodes:,} episodes in each environment"


def _train_all(waiting: Mapping[str, Experiment], folders: Mapping[str, Path], processes: int) -> None:
    if not waiting:
        return
    try:
        if processes == 1:
            for name, experiment in waiting.items():
                _train_one(name, experiment, folders[name])
        else:
            _train_side_by_side(waiting, folders, processes)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted("stopped; all trainings are saved, repeat the command to continue") from None


def _train_side_by_side(
    waiting: Mapping[str, Experiment], folders: Mapping[str, Path], processes: int
) -> None:
    context = multiprocessing.get_context("spawn")
    cores, available = context.Queue(), available_cores()
    for index in range(processes):
        cores.put(available[index % len(available)])
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(cores,)) as pool:
        jobs = [pool.submit(_train_for_parent, name, each, folders[name]) for name, each in waiting.items()]
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            # What has not begun must not begin, what runs saves itself.
            for child in multiprocessing.active_children():
                child.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)


def _begin(cores: Any) -> None:
    become_worker(cores.get())


_INTERRUPTED = threading.Event()  # in the process of a worker


def _train_for_parent(name: str, experiment: Experiment, folder: Path) -> None:
    """As ``_train_one``; once one was interrupted no other begins, and an orphan ends with it.

    The pool hands out a few jobs before their time, which it cannot take back.
    """
    if _INTERRUPTED.is_set():
        raise Interrupted(f"{name} was not begun")
    try:
        _train_one(name, experiment, folder)
    except Interrupted:
        _INTERRUPTED.set()
        raise
    finally:
        if is_orphan():
            os._exit(
                1
            )  # no parent is left to receive an exception, and the pool's loop would take the next job


def _train_one(name: str, experiment: Experiment, folder: Path) -> None:
    """Train, or resume where an earlier call stopped."""
    if (folder / "config.json").exists():
        resume(folder, experiment.rounds, Lines(name, seconds=30))
    else:
        train(experiment, folder, Lines(name, seconds=30))


def _write_curve(run: Path, out: Path) -> None:
    """Every line of every seed's metrics, as recorded; and where there are tests, the return of each in every task."""
    names = ("round", "env_steps", "episodic_return", "consensus_distance")
    lines, tests = [], []
    for folder in run_folders(run):
        seed = load_experiment(folder).seed
        for row in read_metrics(folder / "metrics.jsonl"):
            lines.append([seed, *(_cell(row[name]) for name in names)])
            if "test" in row:
                tests.append([seed, row["round"], *(_cell(each) for each in row["test"]["task_return"])])
    _write_table(out, ["seed", *names], lines)
    if tests:
        columns = ["seed", "round", *(f"task_{number}" for number in range(len(tests[0]) - 2))]
        _write_table(out.with_name(f"{out.stem}-tests.csv"), columns, tests)


def _write_table(out: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    _write(out, table.getvalue())


def _write(out: Path, text: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror}); give another folder (--out)"
        ) from error


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
