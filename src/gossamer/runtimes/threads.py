"""Agents that each move in their own time, in threads of one process; and workers around one learner.

Rounds are counted over all of them: one is over when there were as many updates more as there are workers.
"""

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gossamer.diagnostics.consensus_bound import Verdict
from gossamer.diagnostics.gradient_correlation import correlation
from gossamer.experiment import Experiment
from gossamer.running_statistics import without_statistics
from gossamer.runtimes.agent_step import apply_alone, spread_alone
from gossamer.runtimes.bound_monitor import BoundMonitor
from gossamer.runtimes.build import Parts, initial_population
from gossamer.runtimes.central import AllReduce, Asynchronous, Centre, work
from gossamer.runtimes.clock import MonotonicClock
from gossamer.runtimes.inbox import Inbox
from gossamer.runtimes.peer import Neighbourhood, Peer, Update
from gossamer.runtimes.protocol import Report, Resume, stretches
from gossamer.runtimes.tally import Place, Tally
from gossamer.runtimes.thread_group import AgentThreads, CompletedUpdate, SharedMemoryTransport, Work
from gossamer.runtimes.vectorised import Population
from gossamer.runtimes.workers import Worker
from gossamer.types import Learner


class ThreadsRuntime:
    """A crew of threads, the accounts of what it does, and what a checkpoint holds of both.

    All stand still while a checkpoint is written. Where workers are in step with each other a run is exact, and goes
    on exactly; elsewhere what was under way, messages and waiting workers, is forgotten at a checkpoint.
    """

    def __init__(self, experiment: Experiment, parts: Parts):
        self._experiment, self._parts = experiment, parts
        agents, environments = jax.tree.leaves(parts.tasks)[0].shape
        self._team = (
            _Central(experiment, parts)
            if experiment.runtime in ("all_reduce", "a3c")
            else _Peers(experiment, parts)
        )
        self._tally = Tally(self._team.places, agents, environments)
        self._early: deque[CompletedUpdate] = deque()  # came while all were brought to a stand
        self._crew: AgentThreads | None = None
        self._stands = False
        self._workers = [
            Worker(parts, number, _at(parts.tasks, place), experiment.correlate)
            for number, place in enumerate(self._team.places)
        ]

    @property
    def resumes(self) -> Resume:
        """Exactly where workers are in step and their environments can tell their state."""
        exact = self._team.in_step and self._workers[0].remembers
        return "exact" if exact else "learner-exact"

    def start(self) -> Population:
        """The population before its first round."""
        population = initial_population(
            self._parts.algorithm, self._experiment, self._parts.mailbox, self._parts.tasks
        )
        self._begin(population.learner)
        for worker, place in zip(self._workers, self._team.places, strict=True):
            worker.start(_at(jax.tree.map(lambda leaf: leaf[0], population.environments), place))
        return population

    def most_rounds(self, every: int) -> int:
        """There is no limit: what comes is added up at once."""
        return self._experiment.rounds

    def advance(self, population: Population, rounds: int, every: int) -> tuple[Population, list[Report]]:
        """Gather the updates of some rounds, of any worker; in lockstep the workers wait afterwards."""
        done, reports = int(population.round), []
        for length in stretches(done, rounds, every):
            done += length
            # In step everybody stands at the gate when a record is made, which is then the same in every run.
            self._open(done if self._team.in_step else self._experiment.rounds)
            self._count(self._gather(length * len(self._workers) - self._tally.count))
            distance, finite = jax.device_get(self._spread())
            report = self._tally.report(length, float(distance), finite)
            certificate, alike = self._team.certificate(), self._correlation()
            reports.append(report._replace(certificate=certificate, correlation=alike))
        return population._replace(round=jax.device_put(np.int32(done))), reports

    def saved(self, population: Population) -> Population:
        """All stand still; learners, where environments stand, and updates that no report has counted yet."""
        if self._crew is not None:
            self._early.extend(self._crew.stand_still())
            self._stands = True
        for happened in self._early:
            self._team.saw(happened)
        learner = jax.tree.map(lambda *leaves: jnp.stack(leaves)[None], *self._team.learners())
        states = [worker.state() for worker in self._workers]
        environments = jax.tree.map(lambda *leaves: np.stack(jax.device_get(leaves))[None], *states)
        return Population(learner, environments, self._uncounted(), population.round)

    def restore(self, population: Population) -> Population:
        """Resume the learners, and environments and messages as far as they were saved."""
        self._begin(population.learner)
        for number, worker in enumerate(self._workers):
            worker.restore(jax.tree.map(lambda leaf, i=number: leaf[0, i], population.environments))
        self._tally.restore(population.mail)
        return population._replace(environments=(), mail=())

    def close(self) -> None:
        """End the threads and let go of simulators."""
        if self._crew is not None:
            self._crew.close()
        for worker in self._workers:
            worker.close()

    def _begin(self, learners: Any) -> None:
        every = range(self._experiment.agents)
        apart = [jax.tree.map(lambda leaf, i=agent: leaf[0, i], learners) for agent in every]
        self._team.begin(apart, self._workers)

    def _open(self, limit: int) -> None:
        if self._crew is None:
            # Compiled before anybody moves: meanwhile updates would pile up, and look like speed afterwards.
            jax.block_until_ready(self._spread())
            self._crew = AgentThreads(self._team.work(), wake=self._team.wake, release=self._team.release)
        if self._stands:
            self._team.go_on()
            self._stands = False
        self._crew.open(limit)

    def _count(self, gathered: Iterator[CompletedUpdate]) -> None:
        """Add up updates as they come; in step in an order of their own, as sums are rounded."""
        in_step: list[Update] = []
        for happened in gathered:
            self._team.saw(happened)
            in_step.append(happened.update) if self._team.in_step else self._tally.add(happened.update)
        for update in sorted(in_step, key=lambda update: (update.version, update.agent)):
            self._tally.add(update)

    def _gather(self, count: int) -> Iterator[CompletedUpdate]:
        assert self._crew is not None
        early = [self._early.popleft() for _ in range(min(count, len(self._early)))]
        yield from early
        yield from self._crew.gather(count - len(early))

    def _uncounted(self) -> Any:
        tally = Tally(self._team.places, *jax.tree.leaves(self._parts.tasks)[0].shape)
        tally.restore(self._tally.state())
        for happened in self._early:
            tally.add(happened.update)
        return tally.state()

    def _correlation(self) -> Any:
        """Of the workers' last gradients, if they are kept and everybody has one."""
        gradients = [worker.last_gradient for worker in self._workers]
        if any(gradient is None for gradient in gradients):
            return None
        gradients = [without_statistics(gradient) for gradient in gradients]
        flat = [
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(gradient))])
            for gradient in gradients
        ]
        return correlation(np.stack(flat))

    def _spread(self) -> Any:
        message = self._parts.algorithm.message
        return spread_alone(tuple(message(learner) for learner in self._team.learners()))


class _Peers:
    """Every agent is a worker among peers. In step, each waits for its neighbours in every round."""

    def __init__(self, experiment: Experiment, parts: Parts):
        self._experiment, self._parts = experiment, parts
        self.in_step = parts.schedule.in_step
        self.places = [Place(agent, slice(None)) for agent in range(experiment.agents)]

    def begin(self, learners: list[Learner], workers: list[Worker]) -> None:
        """Take the agents' learners, and what workers do by themselves."""
        links, clock = self._parts.links, MonotonicClock()
        self._newest = list(learners)
        neighbourhoods = [Neighbourhood.of(links, agent) for agent in range(links.agents)]
        # In step, a neighbour may be ahead: its next message must not overwrite the one that is due.
        keep = None if self.in_step else 1
        self._inboxes = [Inbox(each.senders, clock, keep) for each in neighbourhoods]
        message = self._parts.algorithm.message
        # In step a sender may be ahead of a reader by as many updates as there are agents, and messages wait.
        kept = links.agents + 1 if self.in_step else 4
        self._certifier = BoundMonitor([*map(message, learners)], kept) if self._experiment.certify else None
        seed = int(self._parts.seeds[0])
        post = SharedMemoryTransport(links, self._inboxes, self._parts.schedule, seed, self._certifier)
        self._peers = [
            Peer(
                neighbourhood,
                worker,
                inbox,
                post,
                clock,
                self._parts.schedule,
                None if self.in_step else self._experiment.patience,
                self.in_step,
                self._certifier,
            )
            for neighbourhood, worker, inbox in zip(neighbourhoods, workers, self._inboxes, strict=True)
        ]

    def work(self) -> list[Work]:
        return [
            partial(peer.rounds, learner, int(learner.updates), self._experiment.rounds)
            for peer, learner in zip(self._peers, self._newest, strict=True)
        ]

    def saw(self, happened: CompletedUpdate) -> None:
        """Note an update; they come in the order in which they were reported."""
        self._newest[happened.update.agent] = happened.learner

    def learners(self) -> list[Learner]:
        """The newest of every agent."""
        return self._newest

    def certificate(self) -> Verdict | None:
        return self._certifier.verdict() if self._certifier else None

    def go_on(self) -> None:
        """Resume after all stood still."""
        for inbox in self._inboxes:
            inbox.go_on()

    def wake(self) -> None:
        """Make whatever waits look at the gate."""
        for inbox in self._inboxes:
            inbox.wake()

    release = wake


class _Central:
    """Workers that divide the environments of one agent, and compute gradients for its learner; methods as of peers."""

    def __init__(self, experiment: Experiment, parts: Parts):
        self._experiment, self._parts = experiment, parts
        self.in_step = experiment.runtime == "all_reduce"
        share = jax.tree.leaves(parts.tasks)[0].shape[1] // experiment.workers
        self.places = [
            Place(0, slice(worker * share, (worker + 1) * share)) for worker in range(experiment.workers)
        ]

    def begin(self, learners: list[Learner], workers: list[Worker]) -> None:
        (learner,) = learners
        apply, version = partial(apply_alone, self._parts.algorithm), int(learner.updates)
        self._workers, self._version = workers, version
        self._centre: Centre = (
            AllReduce(learner, version, apply, len(workers))
            if self.in_step
            else Asynchronous(learner, version, apply)
        )

    def work(self) -> list[Work]:
        return [
            partial(work, number, self._centre, worker, self._made(number), self._experiment.rounds)
            for number, worker in enumerate(self._workers)
        ]

    def saw(self, happened: CompletedUpdate) -> None:
        """The centre has the newest."""

    def learners(self) -> list[Learner]:
        return [self._centre.read()[0]]

    def certificate(self) -> None:
        """No-op: one learner has no consensus distance."""

    def go_on(self) -> None:
        """No-op: workers have no deadlines."""

    def wake(self) -> None:
        """No-op: workers wait for gradients that are being computed only."""

    def release(self) -> None:
        self._centre.stop()

    def _made(self, number: int) -> int:
        """Rounds that a worker has made: of A3C's updates, everybody's share."""
        if self.in_step:
            return self._version
        share, more = divmod(self._version, len(self._workers))
        return share + (number < more)


def _at(tree: Any, place: Place) -> Any:
    return jax.tree.map(lambda leaf: leaf[place.agent, place.environments], tree)
