"""One agent of a population as a process: joins its fleet, drives its own run folder, and resumes.

It depends on no other process: it knows the others by their messages only.
"""

import json
import os
import time
from contextlib import ExitStack, closing
from pathlib import Path

import jax

from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.network.access import Access, Credentials, zenoh_config
from gossamer.network.agent_runtime import AgentRuntime
from gossamer.network.credentials import check
from gossamer.network.membership import Membership
from gossamer.network.refusals import Refusals
from gossamer.network.schema import Schema
from gossamer.network.wire import Expected, message_bytes
from gossamer.runs import checkpoints
from gossamer.runs.description import load_experiment
from gossamer.runs.driver import drive, save
from gossamer.runs.folder import (
    create_run,
    provenance,
    read_config,
    replace_config,
    require_recorded,
    write_json,
)
from gossamer.runs.lock import claimed
from gossamer.runs.log import RunLog, has_begun
from gossamer.runs.metrics import Totals
from gossamer.runs.progress import Reporter, Silent
from gossamer.runs.restore import restore, shape_of
from gossamer.runs.serialization import to_data
from gossamer.runtimes.build import Parts, build, require_memory_of_one
from gossamer.system.compilation_cache import persistent_cache
from gossamer.system.signals import Stop


def run_member(
    experiment: Experiment,
    membership: Membership,
    folder: Path,
    stop: Stop,
    reporter: Reporter | None = None,
) -> Path:
    """Run one agent, from joining to leaving; it resumes from its folder's newest checkpoint, if there is one.

    Args:
        experiment: that of the whole population, the same for all agents.
        membership: which agent this is, and how it is reached.
        folder: where its metrics and checkpoints are, or will be.
        stop: asks it to save itself and leave.
        reporter: shows progress; nothing is shown by default.

    Returns:
        ``folder``.

    Raises:
        InputError: the experiment, the membership, the certificates or the folder are invalid, or the network cannot be
            entered. Nothing is written.
        Interrupted: ``stop`` was set. It has saved itself; in lockstep, it stays at its last regular checkpoint.
        Replaced: another process speaks for the agent.
        NonFiniteParameters: learning diverged; the last checkpoint is kept.
    """
    parts = build(experiment)
    membership.fleet.require_agents(experiment.agents)
    require_memory_of_one(experiment, parts, membership.number)
    config, expected = _connection(parts, membership)
    refusals, reporter = Refusals(membership.name), reporter or Silent()
    new, store = not (folder / "config.json").exists(), folder / "checkpoints"
    with persistent_cache(), ExitStack() as stack:
        if not new:
            # First: a process that holds the folder may hold the port too, and then this is the error to report.
            stack.enter_context(claimed(folder))
            _require_own(folder, experiment, membership)
        runtime = stack.enter_context(closing(AgentRuntime(experiment, parts, membership.number)))
        population, totals, offset = runtime.start(), Totals(), 0
        if has_begun(folder):
            restored = restore(shape_of(runtime.saved(population)), [folder])
            totals, offset = restored.totals[0], restored.offsets[0]
            require_recorded(folder / "metrics.jsonl", offset)
            population = runtime.restore(restored.population)
        process = folder / PROCESS
        last = json.loads(process.read_text())["incarnation"] if process.exists() else 0
        incarnation = max(time.time_ns(), last + 1)
        runtime.connect(membership, config, expected, incarnation, stop, refusals)
        # From here on it writes.
        if new:
            agent = {"agent": membership.data(), "resume": runtime.resumes}
            create_run(folder, {"experiment": to_data(experiment), **agent, "provenance": provenance()})
            stack.enter_context(claimed(folder))
        else:
            # Its addresses may have changed.
            replace_config(folder, {**read_config(folder), "agent": membership.data()})
        checkpoints.remove_left_overs(store)  # of a process that was killed while it saved itself
        log = stack.enter_context(
            closing(RunLog(folder, totals, offset, experiment.keep_best, "the same command"))
        )
        saved = int(population.round)
        if not checkpoints.rounds(store):
            save([log], runtime.saved(population))
        # The last file that it opens: copies of the folder count on files that only grow from here on.
        write_json(process, {"incarnation": incarnation, "pid": os.getpid()})
        with reporter:
            reporter.begin("compiling, then waiting for the first messages")
            drive(
                experiment,
                parts._replace(task_index=parts.task_index[membership.number :][:1]),
                runtime,
                runtime.join(),
                [log],
                reporter,
                stop,
                saved=saved,
                name=membership.name,
                # In lockstep all agents must resume from the same round.
                save_when_stopped=not parts.schedule.in_step,
            )
    return folder


def load_membership(folder: Path) -> tuple[Experiment, Membership]:
    """The experiment of an agent's folder, and its place in the fleet when it began.

    Raises:
        InputError: it is no folder of an agent.
    """
    config = read_config(folder)
    experiment, agent = load_experiment(folder), config.get("agent")
    if not isinstance(agent, dict):
        raise InputError(f"{folder} holds no agent of a fleet; give a folder that gossamer agent wrote")
    return experiment, Membership.of_data(agent)


def _connection(parts: Parts, membership: Membership) -> tuple[dict[str, str], Expected]:
    """Zenoh's configuration, and what the agent's messages must be.

    Raises:
        InputError: invalid certificates or endpoints.
    """
    fleet, learner = membership.fleet, jax.eval_shape(parts.algorithm.init, jax.random.key(0))
    schema = Schema.of(jax.eval_shape(parts.algorithm.message, learner))
    limit = message_bytes(schema, membership.compression)
    credentials = access = None
    if membership.keys is not None:
        credentials = Credentials.of(check(Path(membership.keys), membership.name))
        names = (membership.name, *fleet.neighbours(parts.links, membership.name))
        access = Access(fleet.run, membership.name, names, fleet.observers)
    config = zenoh_config(
        membership.listen,
        membership.connect,
        credentials,
        access,
        insecure=membership.insecure,
        largest_message=max(limit, _LEAST_LIMIT),
    )
    return config, Expected(bytes.fromhex(fleet.run), schema, membership.compression, limit)


def _require_own(folder: Path, experiment: Experiment, membership: Membership) -> None:
    """Refuse the folder of another agent or run; the number of rounds may differ."""
    held, begun = load_membership(folder)
    theirs, ours = ({**to_data(each), "rounds": None} for each in (held, experiment))
    if (begun.fleet.run, begun.name, theirs) != (membership.fleet.run, membership.name, ours):
        raise InputError(
            f"{folder} holds {begun.name} of another run; give another folder, or the same name and experiment"
        )


PROCESS = "process.json"
_LEAST_LIMIT = 65536  # bytes: answers about an agent's status must pass too
