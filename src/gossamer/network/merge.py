"""Folders of agents that were processes become one run: its metrics and a checkpoint of the whole population.

Afterwards it is plotted and evaluated like any other run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.network.agent import State, load_membership, state_like
from gossamer.runs import checkpoints
from gossamer.runs.checkpoints import Checkpoint
from gossamer.runs.folder import MetricsLog, create_run, provenance, read_config, read_metrics, summarise
from gossamer.runs.lock import claimed
from gossamer.runs.serialization import to_data
from gossamer.runtimes.build import Parts, build, require_memory
from gossamer.runtimes.tally import Place, Tally
from gossamer.runtimes.vectorised import Population


def gather(folders: Sequence[Path], out: Path) -> Path:
    """Put the newest checkpoints and the metrics of all agents of a run together.

    A line of the result has the rounds that every agent has made, and is about those agents that have a line of that
    round: one that began again with a neighbour's parameters has none of those it left out. ``consensus_distance`` is
    the root mean square of what agents saw: their distances, and those they hear, to the mean of these.

    Args:
        folders: of all agents, in any order.
        out: the run's folder; made if it is missing. If these agents were launched or gathered there before, its
            metrics and checkpoints are made anew.

    Raises:
        InputError: a folder that holds no agent, or no checkpoint yet; agents of different runs; not all of them;
            more than this machine can hold; ``out`` holds anything else. Nothing is written then.
    """
    experiment, run, by_number = _agents(folders)
    parts = build(experiment)
    require_memory(experiment, parts)
    _require_own(out, run)
    like = state_like(experiment, parts)
    saved = [_saved(by_number[number], like) for number in range(experiment.agents)]
    rows = merged_rows(
        [read_metrics(by_number[number] / "metrics.jsonl") for number in range(experiment.agents)]
    )
    if not (out / "config.json").exists():
        config = {"experiment": to_data(experiment), "resume": "learner-exact", "provenance": provenance()}
        create_run(out, {**config, "gathered": run})
    with claimed(out):
        _write(parts, saved, rows, out)
    return out


def _require_own(out: Path, run: str) -> None:
    if not (out / "config.json").exists():
        return  # a folder that is taken by anything else is refused where it is made
    config = read_config(out)
    if run not in (config.get("gathered"), config.get("fleet", {}).get("run")):
        raise InputError(
            f"{out} holds another run, which would be overwritten; give a folder that is new or empty, or the one in "
            "which these agents were launched or gathered"
        )


def _write(parts: Parts, saved: Sequence[Checkpoint], rows: Sequence[dict[str, Any]], out: Path) -> None:
    with MetricsLog(out / "metrics.jsonl") as log:
        log.truncate(0)
        log.append(rows)
        log.sync()
        offset = log.offset
    done = min(each.round for each in saved)
    last = rows[-1] if rows else {"env_steps": 0, "time": {"seconds": 0.0}}
    metadata = {"metrics_offset": offset, "env_steps": last["env_steps"], "seconds": last["time"]["seconds"]}
    population = _population(parts, [State(*each.state) for each in saved])
    state = jax.tree.map(lambda leaf: leaf[0], tuple(population)[:-1])
    checkpoints.save(out / "checkpoints", Checkpoint(done, state, metadata))


def merged_rows(by_agent: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The lines of a population from those of its agents, for the rounds that all of them have reached.

    Args:
        by_agent: lines of ``metrics.jsonl``, in order.

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
    known = [row for row in latest if row is not None]
    present = [row for row in known if row["round"] == number]
    # Above a hundred tasks a line holds quantiles of their returns, which do not add up to those of all agents.
    by_task = _mean_of_each([row["task_return"].get("each", [row["episodic_return"]]) for row in present])
    by_agent = np.array(
        [_number(row and row["round"] == number and row["episodic_return"]) for row in latest], float
    )
    lengths = [row["episodic_length"] for row in present if row["episodic_length"] is not None]
    messages = [row["messages"] for row in present]
    counts = {name: sum(each[name] for each in messages) for name in ("sent", "lost", "combined", "bytes")}
    ages = [each["mean_age"] * each["combined"] for each in messages if each["combined"]]
    names = {name for row in present for name in row["losses"]}
    return {
        "round": number,
        "env_steps": sum(row["env_steps"] for row in known),
        "episodes": sum(row["episodes"] for row in present),
        "episodic_return": _mean(by_task),
        "episodic_length": float(np.mean(lengths)) if lengths else None,
        "consensus_distance": float(np.sqrt(np.mean([row["consensus_distance"] ** 2 for row in present]))),
        "losses": {
            name: float(np.mean([row["losses"][name] for row in present if name in row["losses"]]))
            for name in sorted(names)
        },
        "messages": {
            **counts,
            "links_down": counts["lost"] / counts["sent"] if counts["sent"] else 0.0,
            "mean_age": sum(ages) / counts["combined"] if counts["combined"] else None,
            "oldest": max((each["oldest"] for each in messages), default=0),
            "ages": _sum_of_each([each["ages"] for each in messages]),
        },
        "agent_return": summarise(by_agent),
        "task_return": summarise(by_task),
        "time": {
            "seconds": max(row["time"]["seconds"] for row in known),
            "env_steps_per_second": sum(row["time"]["env_steps_per_second"] for row in present),
        },
    }


def _agents(folders: Sequence[Path]) -> tuple[Experiment, str, dict[int, Path]]:
    by_number: dict[int, Path] = {}
    first: tuple[Experiment, str] | None = None
    for folder in folders:
        experiment, membership = load_membership(folder)
        run, number = membership.fleet.run, membership.number
        if first is None:
            first = experiment, run
        if first[1] != run:
            raise InputError(
                f"{folder} is of run {run}; {folders[0]} is of {first[1]}, give agents of one run"
            )
        if number in by_number:
            raise InputError(
                f"{folder} holds {membership.name}, as does {by_number[number]}; give each agent once"
            )
        by_number[number] = folder
    if first is None:
        raise InputError("no folder was given; give those of all agents of a run")
    missing = sorted(set(range(first[0].agents)) - set(by_number))
    if missing:
        raise InputError(
            f"the folders of agents number {', '.join(map(str, missing))} are missing; "
            f"give those of all {first[0].agents}"
        )
    return *first, by_number


def _saved(folder: Path, like: State) -> Checkpoint:
    if not checkpoints.rounds(folder / "checkpoints"):
        raise InputError(f"{folder} holds no checkpoint yet; wait until its first one is written")
    return checkpoints.restore_newest(folder / "checkpoints", tuple(like))


def _population(parts: Parts, states: Sequence[State]) -> Population:
    """In the form of a population whose agents are threads."""
    learner = jax.tree.map(lambda *leaves: jnp.stack(leaves)[None], *[each.learner for each in states])
    environments = jax.tree.map(
        lambda *leaves: np.stack(jax.device_get(leaves))[None], *[each.environments for each in states]
    )
    count, width = jax.tree.leaves(parts.tasks)[0].shape
    nothing = Tally([Place(agent, slice(None)) for agent in range(count)], count, width).state()
    return Population(learner, environments, nothing, jnp.zeros((), jnp.int32))


def _mean_of_each(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Of the tasks, over the agents that know them; NaN where none does."""
    width = max((len(row) for row in rows), default=0)
    total, count = np.zeros(width), np.zeros(width)
    for row in rows:
        values = np.array([_number(value) for value in row], float)
        known = np.isfinite(values)
        total[: len(row)][known] += values[known]
        count[: len(row)] += known
    with np.errstate(invalid="ignore"):
        return total / count


def _sum_of_each(rows: Sequence[Sequence[int]]) -> list[int]:
    total = np.zeros(max((len(row) for row in rows), default=0), np.int64)
    for row in rows:
        total[: len(row)] += np.array(row, np.int64)
    return total.tolist()


def _number(value: Any) -> float:
    return float(value) if isinstance(value, float | int) and not isinstance(value, bool) else np.nan


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
