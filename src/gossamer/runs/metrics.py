"""The definition of a line of ``metrics.jsonl``: what it holds, for a population and for agents that are processes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gossamer.diagnostics.consensus_bound import Verdict
from gossamer.runs.folder import summarise
from gossamer.runtimes.build import Parts
from gossamer.runtimes.protocol import Report
from gossamer.types import Finished


class Totals(NamedTuple):
    """What a run has used so far."""

    env_steps: int = 0
    seconds: float = 0.0


class Timed(NamedTuple):
    """A report, the seconds that its rounds took, and what the machine had used by then."""

    report: Report
    seconds: float
    power: dict[str, float] | None = None


def _line(
    *,
    number: int,
    totals: Totals,
    env_steps_per_second: float,
    episodes: int,
    episodic_length: float | None,
    task_return: np.ndarray,
    agent_return: np.ndarray,
    consensus_distance: float,
    losses: dict[str, float],
    messages: dict[str, Any],
) -> dict[str, Any]:
    """One line. Everything that a clock measured is under ``time``.

    Returns are means over the episodes that ended, NaN (null in the file) where none did. The population's is the mean
    over tasks, so that a task with short episodes counts no more than others.
    """
    return {
        "round": number,
        "env_steps": totals.env_steps,
        "episodes": episodes,
        "episodic_return": _mean(task_return),
        "episodic_length": episodic_length,
        "consensus_distance": consensus_distance,
        "losses": losses,
        "messages": messages,
        "agent_return": summarise(agent_return),
        "task_return": summarise(task_return),
        "time": {"seconds": totals.seconds, "env_steps_per_second": env_steps_per_second},
    }


def _messages(
    *, sent: int, lost: int, combined: int, bytes: int, total_age: float, oldest: int, ages: np.ndarray
) -> dict[str, Any]:
    """What was exchanged: counts, bytes handed to links, and ages (updates) of what was combined.

    ``ages[a]`` counts messages of age a; from 16 on they are counted together.
    """
    return {
        "sent": sent,
        "lost": lost,
        "combined": combined,
        "bytes": bytes,
        "links_down": lost / sent if sent else 0.0,
        "mean_age": total_age / combined if combined else None,
        "oldest": oldest,
        "ages": np.trim_zeros(ages, "b").tolist(),
    }


def record_rows(
    parts: Parts, reports: Sequence[Timed], seed: int, done: int, totals: Totals
) -> list[dict[str, Any]]:
    """Lines for some reports of one seed, up to one in which something was not finite.

    Args:
        parts: what the run is made of.
        reports: what happened, and how long it took.
        seed: which of the run's seeds, by its place.
        done: rounds before the first report.
        totals: what the run had used before.
    """
    rows = []
    for report, seconds, power in reports:
        record = jax.tree.map(lambda leaf: leaf[seed], report.record)
        if not record.finite.all():
            break
        done, agents, finished = done + report.rounds, record.agents, record.agents.finished
        steps, updates = int(agents.env_steps.sum()), np.maximum(agents.updates.sum(), 1)
        totals = Totals(totals.env_steps + steps, totals.seconds + seconds)
        # Each task's episodes, over the agents and environments that it was dealt to.
        tasks = parts.task_index.ravel()
        per_task = _per_episode(*(np.bincount(tasks, weights=np.ravel(total)) for total in finished))
        traffic = {
            name: int(values[seed]) for name, values in report.traffic._asdict().items() if name != "ages"
        }
        row = _line(
            number=done,
            totals=totals,
            env_steps_per_second=steps / seconds,
            episodes=int(finished.episodes.sum()),
            episodic_length=_mean(per_task.lengths),
            task_return=per_task.returns,
            agent_return=_per_episode(*(total.sum(-1) for total in finished)).returns,
            consensus_distance=float(record.consensus_distance),
            losses={name: float(values.sum() / updates) for name, values in agents.info.items()},
            messages=_messages(
                **traffic, bytes=traffic["sent"] * parts.message_bytes, ages=report.traffic.ages[seed]
            ),
        )
        if report.waiting:
            row["time"]["waiting"] = report.waiting._asdict()
        if power:
            row["time"]["power"] = power
        rows.append({**row, **_certificate(report.certificate), **_correlation(report.correlation)})
    return rows


def merged_rows(by_agent: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The lines of a population from those of its agents, for the rounds that all of them have reached.

    Args:
        by_agent: lines of each agent's ``metrics.jsonl``, in order.

    Example:
        >>> merged_rows([[], []])
        []
    """
    reached = min((rows[-1]["round"] if rows else 0 for rows in by_agent), default=0)
    rounds = sorted({row["round"] for rows in by_agent for row in rows if row["round"] <= reached})
    latest: list[Mapping[str, Any] | None] = [None] * len(by_agent)
    place = [0] * len(by_agent)
    merged = []
    for number in rounds:
        for agent, rows in enumerate(by_agent):
            while place[agent] < len(rows) and rows[place[agent]]["round"] <= number:
                latest[agent] = rows[place[agent]]
                place[agent] += 1
        merged.append(_merged(number, latest))
    return merged


def _merged(number: int, latest: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """One line from the newest line of each agent; those of earlier rounds count for the totals only."""
    known = [row for row in latest if row is not None]
    present = [row for row in known if row["round"] == number]
    exchanged = [row["messages"] for row in present]
    by_agent = [row["episodic_return"] if row and row["round"] == number else None for row in latest]
    # Above a hundred tasks a line holds quantiles of their returns, which do not add up to those of all agents.
    by_task = _padded([row["task_return"].get("each", [row["episodic_return"]]) for row in present], np.nan)
    with np.errstate(invalid="ignore"):
        task_return = np.nansum(by_task, 0) / np.isfinite(by_task).sum(0)
    return _line(
        number=number,
        totals=Totals(sum(row["env_steps"] for row in known), max(row["time"]["seconds"] for row in known)),
        env_steps_per_second=sum(row["time"]["env_steps_per_second"] for row in present),
        episodes=sum(row["episodes"] for row in present),
        episodic_length=_mean(np.array([row["episodic_length"] for row in present], float)),
        task_return=task_return,
        agent_return=np.array(by_agent, float),
        consensus_distance=float(np.sqrt(np.mean([row["consensus_distance"] ** 2 for row in present]))),
        losses={
            name: float(np.mean([row["losses"][name] for row in present if name in row["losses"]]))
            for name in sorted({name for row in present for name in row["losses"]})
        },
        messages=_messages(
            **{name: sum(each[name] for each in exchanged) for name in ("sent", "lost", "combined", "bytes")},
            total_age=sum(each["mean_age"] * each["combined"] for each in exchanged if each["combined"]),
            oldest=max(each["oldest"] for each in exchanged),
            ages=_padded([each["ages"] for each in exchanged], 0).sum(0),
        ),
    )


def _padded(rows: Sequence[Sequence[Any]], fill: float) -> np.ndarray:
    """A table of rows of different lengths; None becomes NaN."""
    table = np.full((len(rows), max(map(len, rows))), fill)
    for place, row in enumerate(rows):
        table[place, : len(row)] = np.array(row, float)
    return table


def _per_episode(episodes: Any, returns: Any, lengths: Any) -> Finished:
    """Sums divided by numbers of episodes; NaN where there was none."""
    with np.errstate(invalid="ignore"):
        return Finished(episodes, returns / episodes, lengths / episodes)


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _certificate(verdict: Verdict | None) -> dict[str, Any]:
    """The agents' distance, and the bound that the events since the beginning put on it."""
    if verdict is None:
        return {}
    return {
        "certificate": {
            "distance": verdict.distance,
            "bound": verdict.bound,
            "printed_bound": verdict.printed,
            "holds": verdict.holds,
        }
    }


def _correlation(matrix: np.ndarray | None) -> dict[str, Any]:
    """Pearson's correlation of the agents' last gradients; NaN where one has no direction."""
    return {} if matrix is None else {"gradient_correlation": matrix.tolist()}
