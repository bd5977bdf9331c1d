"""Merges the folders of agents that were processes into one run: its metrics and a checkpoint of the population.

It is then plotted and evaluated like any other run.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.network.agent import load_membership
from gossamer.network.agent_runtime import AgentRuntime
from gossamer.runs import checkpoints
from gossamer.runs.checkpoints import Checkpoint
from gossamer.runs.folder import MetricsLog, create_run, provenance, read_config, read_metrics
from gossamer.runs.lock import claimed
from gossamer.runs.log import has_begun
from gossamer.runs.metrics import merged_rows
from gossamer.runs.restore import Restored, restore, shape_of
from gossamer.runs.serialization import to_data
from gossamer.runtimes.build import Parts, build, require_memory
from gossamer.runtimes.tally import Place, Tally


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
    folders = [by_number[number] for number in range(experiment.agents)]
    for folder in folders:
        if not has_begun(folder):
            raise InputError(f"{folder} holds no checkpoint yet; wait until its first one is written")
    with closing(AgentRuntime(experiment, parts, 0)) as runtime:
        like = shape_of(runtime.saved(runtime.start()))
    saved = [restore(like, [folder]) for folder in folders]
    rows = merged_rows([read_metrics(folder / "metrics.jsonl") for folder in folders])
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


def _write(parts: Parts, saved: Sequence[Restored], rows: Sequence[dict[str, Any]], out: Path) -> None:
    with MetricsLog(out / "metrics.jsonl") as log:
        log.truncate(0)
        log.append(rows)
        log.sync()
        offset = log.offset
    last = rows[-1] if rows else {"env_steps": 0, "time": {"seconds": 0.0}}
    metadata = {"metrics_offset": offset, "env_steps": last["env_steps"], "seconds": last["time"]["seconds"]}
    # As of agents that are threads. What is read back has an axis for one seed, which here becomes that of agents.
    learner = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves), *[each.population.learner for each in saved]
    )
    environments = jax.tree.map(
        lambda *leaves: np.concatenate(jax.device_get(leaves)),
        *[each.population.environments for each in saved],
    )
    agents, width = jax.tree.leaves(parts.tasks)[0].shape
    nothing = Tally([Place(agent, slice(None)) for agent in range(agents)], agents, width).state()
    state = (learner, environments, jax.tree.map(lambda leaf: leaf[0], nothing))
    checkpoints.save(out / "checkpoints", Checkpoint(min(each.done for each in saved), state, metadata))


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
