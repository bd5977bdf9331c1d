"""The loop of every run: advance a runtime, write lines and checkpoints, show progress, stop when asked.

It is the same for a population in one process and for an agent that is a process.
"""

import time
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import jax
import numpy as np

from gossamer.diagnostics.energy import EnergyMeter, PowerReading
from gossamer.experiment import Experiment
from gossamer.runs.log import NonFiniteParameters, RunLog
from gossamer.runs.metrics import Timed, Totals, record_rows
from gossamer.runs.progress import Reporter, Status
from gossamer.runtimes.build import Parts
from gossamer.runtimes.protocol import Report, Runtime
from gossamer.runtimes.vectorised import Population
from gossamer.system.signals import Interrupted, Stop

_SECONDS_PER_CHUNK = 1.0


def drive(
    experiment: Experiment,
    parts: Parts,
    runtime: Runtime,
    population: Population,
    logs: Sequence[RunLog],
    reporter: Reporter,
    stop: Stop,
    *,
    saved: int | None = None,
    name: str | None = None,
    test: Callable[[Population, int], list[dict[str, Any]]] = lambda population, done: [],
    save_when_stopped: bool = True,
) -> None:
    """Advance a population to its last round.

    Args:
        experiment: how many rounds there are, and after which of them lines and checkpoints are written.
        parts: of the agents that the lines describe.
        runtime: advances the population.
        population: where it starts.
        logs: the run folder of each seed.
        reporter: shows progress.
        stop: becomes true when the run should end early.
        saved: round of the newest checkpoint; by default that of ``population``.
        name: of the only agent, for messages; by default agents are numbered.
        test: what to add to the last line of each seed after so many rounds; nothing by default.
        save_when_stopped: whether a stop saves a checkpoint. Otherwise the last regular one is kept.

    Raises:
        Interrupted: ``stop`` became true before the last round.
        NonFiniteParameters: learning diverged; the last checkpoint is kept.
        UnwritableRun: a folder cannot be written; its last checkpoint is kept.
    """
    done, every, pace = int(population.round), experiment.record_every, _Pace()
    saved = done if saved is None else saved
    pending: Report | None = None  # of rounds that have no line yet
    seconds, started = 0.0, time.perf_counter()  # the former since the last line
    with EnergyMeter() as meter:
        while done < experiment.rounds:
            length = min(pace.rounds, runtime.most_rounds(every), _to_boundary(done, experiment))
            to_line = every - done % every
            if length > to_line:
                length = to_line if stop else length - (done + length) % every
            if experiment.runtime == "vectorised":
                started = time.perf_counter()  # other runtimes advance while lines are written
            population, reports = runtime.advance(population, length, every)
            elapsed = time.perf_counter() - started
            before, done = done, int(population.round)
            started, seconds = started + elapsed, seconds + elapsed
            if pending and reports:
                reports[0] = pending.and_then(reports[0])
            first = done - sum(report.rounds for report in reports)
            whole = done % every == 0
            if whole:
                _write_lines(
                    parts, logs, _timed(reports, seconds, meter.read()), first, test(population, done)
                )
            _require_finite(reports, first, parts, logs, name, saved)
            if done > before:
                pace.learn(done - before, elapsed)
            if reports:
                reporter.show(_status(experiment, parts, reports, first, seconds, pace))
            pending, seconds = (None, 0.0) if whole else (reports[-1] if reports else None, seconds)
            # Agents that are processes may stop within a line: their checkpoints hold what no line has counted yet.
            cut_short = done < before + length
            stopped = done < experiment.rounds and (cut_short or (bool(stop) and whole))
            if done != saved and (done % experiment.checkpoint_every == 0 or (stopped and save_when_stopped)):
                saved = save(logs, runtime.saved(population))
            if stopped:
                raise Interrupted(
                    f"stopped after round {done} of {experiment.rounds}, saved as of round {saved}; "
                    f"resume with: {logs[0].resume_with}"
                )
    if done != saved:
        save(logs, runtime.saved(population))


def save(logs: Sequence[RunLog], population: Population) -> int:
    """Write a checkpoint of each seed; returns its round."""
    # Indexed on the host: on the device, each shape would be a program.
    *state, done = jax.device_get(tuple(population))
    for seed, log in enumerate(logs):
        log.save(int(done), jax.tree.map(lambda leaf, seed=seed: leaf[seed], tuple(state)))
    return int(done)


class _Pace:
    """Chunks of about a second, so that progress is shown and Ctrl-C answered; their length changes no result."""

    def __init__(self) -> None:
        self.rounds = 1
        self._seconds_per_round: float | None = None
        self._compiled = False

    def learn(self, rounds: int, seconds: float) -> None:
        """Adapt to the time of a chunk, except the first, which compiles."""
        if self._compiled:
            self._seconds_per_round = seconds / rounds
            # At most twice as many: one chunk that went fast says little of the next.
            self.rounds = max(1, min(2 * rounds, int(rounds * _SECONDS_PER_CHUNK / seconds)))
        self._compiled = True

    def seconds_left(self, rounds: int) -> float | None:
        """How long some rounds will take, once that is known."""
        return None if self._seconds_per_round is None else rounds * self._seconds_per_round


def _to_boundary(done: int, experiment: Experiment) -> int:
    """Rounds until the next checkpoint, the next test or the end."""
    regular = (experiment.checkpoint_every, experiment.test_every)
    return min(experiment.rounds - done, *(each - done % each for each in regular if each is not None))


def _timed(reports: Sequence[Report], seconds: float, power: PowerReading) -> list[Timed]:
    """Reports, each with its share of the time, and with what sensors measured, if there are any."""
    known = {name: value for name, value in power._asdict().items() if isinstance(value, float)}
    rounds = sum(report.rounds for report in reports)
    # The first of what is known is only the time.
    return [
        Timed(each, seconds * each.rounds / rounds, known if len(known) > 1 else None) for each in reports
    ]


def _write_lines(
    parts: Parts, logs: Sequence[RunLog], reports: list[Timed], first: int, tests: list[dict[str, Any]]
) -> None:
    for seed, log in enumerate(logs):
        rows = record_rows(parts, reports, seed, first, log.totals)
        if tests and len(rows) == len(reports):
            rows[-1] |= tests[seed]
        log.append(rows)


def _require_finite(
    reports: Sequence[Report], done: int, parts: Parts, logs: Sequence[RunLog], name: str | None, saved: int
) -> None:
    for report in reports:
        bad = np.argwhere(~report.record.finite)
        if len(bad):
            seed, agent = bad[0]
            last = done + report.rounds
            raise NonFiniteParameters(
                f"{name or f'agent {agent}'} of seed {int(parts.seeds[seed])} has parameters that are not finite in "
                f"{f'round {last}' if report.rounds == 1 else f'rounds {done + 1} to {last}'}; the run stopped and the "
                f"checkpoint of round {saved} in {logs[seed].folder} is kept (a lower learning rate may help)"
            )
        done += report.rounds


def _status(
    experiment: Experiment, parts: Parts, reports: Sequence[Report], first: int, seconds: float, pace: _Pace
) -> Status:
    together = [Timed(reduce(Report.and_then, reports), seconds)]
    seeds = range(len(parts.seeds))
    rows = [row for seed in seeds for row in record_rows(parts, together, seed, first, Totals())]
    left = experiment.rounds - rows[0]["round"]
    return Status.of(rows, experiment.rounds, pace.seconds_left(left))
