"""The driver: gives agents their places, copies what they write, and begins them again when they die."""

import contextlib
import logging
import math
import os
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from gossamer.experiment import Experiment
from gossamer.network.credentials import check, issue
from gossamer.network.launcher import (
    KEYS,
    SAVE_SECONDS,
    AgentsFailed,
    Launch,
    Progress,
    agent_folder,
    back_to_common_round,
    gather_saved,
    output_of,
    stopped,
    write_addresses,
)
from gossamer.network.membership import Beginning, Fleet, Membership
from gossamer.network.merge import gather
from gossamer.network.mirror import Held, changes_of, take_over
from gossamer.network.ray.connection import Connection
from gossamer.network.ray.place import Cluster
from gossamer.network.ray.remote import News, RemoteAgent, Seat
from gossamer.runs.lock import claimed
from gossamer.runs.progress import Reporter
from gossamer.runtimes.build import build
from gossamer.system.signals import Interrupted, Stop, stop_requests

_log = logging.getLogger(__name__)


@dataclass
class _Running:
    """One agent as the driver knows it: a question that it was asked, and what comes after the answer."""

    name: str
    actor: Any = None
    state: Literal["waiting", "placed", "running", "ended", "failed"] = "waiting"
    begun: int = 0
    since: float = 0.0
    question: Callable[[], Any] | None = None
    answer: Any = None
    then: Callable[[Any], None] | None = None
    seat: Seat | None = None
    held: Held = field(default_factory=Held)
    said: int = 0

    @property
    def lives(self) -> bool:
        """Whether there is more to come from it."""
        return self.state in ("waiting", "placed", "running")


class Driver:
    """Places agents, copies what they write, and begins them again; they do not need it to learn."""

    def __init__(
        self,
        cluster: Connection,
        experiment: Experiment,
        fleet: Fleet,
        how: Launch,
        place: Cluster,
        out: Path,
    ):
        self._ray, self._host = cluster.ray, cluster.host
        self._experiment, self._how, self._place, self._out = experiment, how, place, out
        self._fleet = replace(fleet, addresses={})
        parts = build(experiment)
        self._links, self._in_step = parts.links, parts.schedule.in_step
        self._agents = [_Running(name) for name in fleet.names]
        self._stopping, self._lost = False, []  # the latter by a stop: those that did not save themselves
        self._remote = self._ray.remote(RemoteAgent).options(
            num_cpus=place.cpus_per_agent,
            num_gpus=place.gpus_per_agent,
            max_restarts=0,  # its replacement must be told where the others are
            max_concurrency=_AT_ONCE,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": _environment(place)},
        )

    def run(self, reporter: Reporter) -> Path:
        """Until all agents have ended; then gather them."""
        folders = [agent_folder(self._out, agent.name) for agent in self._agents]
        with claimed(self._out), stop_requests() as stop, reporter:
            reporter.begin(f"starting {len(folders)} agents, each of which compiles its round")
            if self._in_step:
                back_to_common_round(folders)
            try:
                self._watch(stop, Progress(reporter, self._experiment, folders).show)
            finally:
                for agent in self._agents:
                    self._release(agent)
        if stop:
            raise Interrupted(stopped(self._out, self._lost) + gather_saved(self._out, self._fleet))
        failed = [agent.name for agent in self._agents if agent.state == "failed"]
        if failed:
            raise AgentsFailed(
                f"{', '.join(failed)} died {self._how.restarts + 1} times; what they said is in "
                f"{output_of(self._out, failed[0])}, and gossamer launch --resume {self._out} begins them again"
            )
        gather(folders, self._out)
        return self._out

    def _watch(self, stop: Stop, show: Callable[[], None]) -> None:
        until = math.inf
        for agent in self._agents:
            self._wait_for_place(agent)
        while any(agent.lives for agent in self._agents):
            self._hear_somebody()
            show()
            if stop and not self._stopping:
                self._stopping, until = True, time.monotonic() + SAVE_SECONDS
                self._stop_all()
            if time.monotonic() > until:
                self._lost += [agent.name for agent in self._agents if agent.lives]
                return
            if not self._stopping:
                self._begin_placed()
                self._give_up_waiting()

    def _wait_for_place(self, agent: _Running) -> None:
        agent.state, agent.since, agent.seat = "waiting", time.monotonic(), None
        agent.begun += 1
        agent.actor = actor = self._remote.remote(self._fleet.run, agent.name, self._how.tls, self._host)
        self._ask(agent, lambda: actor.prepare.remote(), lambda seat: self._placed(agent, seat))

    def _placed(self, agent: _Running, seat: Seat) -> None:
        agent.state, agent.seat = "placed", seat
        _log.info("%s is placed at %s", agent.name, seat.endpoint)

    def _begin_placed(self) -> None:
        # At first all begin together: in lockstep no agent waits long for one that has no place yet.
        if any(agent.state == "waiting" and agent.begun == 1 for agent in self._agents):
            return
        for agent in self._agents:
            if agent.state == "placed":
                self._begin(agent)

    def _begin(self, agent: _Running) -> None:
        seat, actor = agent.seat, agent.actor
        assert seat is not None, "it was placed"
        self._fleet = replace(self._fleet, addresses={**self._fleet.addresses, agent.name: seat.endpoint})
        write_addresses(self._out, self._fleet)
        copy = agent_folder(self._out, agent.name)
        begins_with: Beginning = "own" if agent.begun == 1 else "newest"
        membership = Membership(
            self._fleet,
            agent.name,
            (seat.endpoint,),
            self._known_neighbours(agent.name),
            insecure=self._place.insecure,
            compression=self._how.compression,
            begins_with=begins_with,
        )
        keys = self._certificate(agent.name, seat.host) if self._how.tls else {}
        start = changes_of(copy) if (copy / "config.json").exists() else None
        agent.state, agent.held, agent.said = "running", Held(), 0
        self._ask(
            agent,
            lambda: actor.begin.remote(self._experiment, membership, keys, start),
            lambda _: self._poll(agent),
        )

    def _known_neighbours(self, name: str) -> tuple[str, ...]:
        """Addresses of the neighbours that have begun: of any two, the later one connects, and keeps trying."""
        near = self._fleet.neighbours(self._links, name)
        running = {agent.name for agent in self._agents if agent.state == "running"}
        return tuple(self._fleet.addresses[each] for each in near if each in running)

    def _certificate(self, name: str, host: str) -> dict[str, bytes]:
        """Of an agent at its new address; the authority's key stays here."""
        for suffix in ("pem", "key"):
            (self._out / KEYS / f"{name}.{suffix}").unlink(missing_ok=True)
        issue(self._out / KEYS, name, (host,))
        return {path.name: path.read_bytes() for path in check(self._out / KEYS, name)}

    def _poll(self, agent: _Running) -> None:
        actor = agent.actor
        self._ask(
            agent,
            lambda: actor.poll.remote(agent.held, agent.said),
            lambda news: self._copy(agent, news),
        )

    def _copy(self, agent: _Running, news: News) -> None:
        if news.changes is not None:
            take_over(agent_folder(self._out, agent.name), news.changes)
            agent.held = agent.held.and_then(news.changes)
        self._write_output(agent, news.said)
        agent.said += len(news.said)
        if news.state == "running":
            self._poll(agent)
            return
        actor = agent.actor
        self._ask(agent, lambda: actor.clear.remote(), lambda _: self._ended(agent, news))

    def _ended(self, agent: _Running, news: News) -> None:
        if news.state == "failed" or (news.state == "stopped" and not self._stopping):
            self._died(agent, news.message)
            return
        agent.state = "ended"
        self._release(agent)

    def _died(self, agent: _Running, why: str) -> None:
        self._write_output(agent, f"{agent.name} died: {why}\n".encode())
        self._release(agent)
        why = textwrap.shorten(why, _REASON_WIDTH)
        if self._stopping:
            agent.state = "ended"
            self._lost.append(agent.name)
            _log.error("%s died before it had saved itself: %s", agent.name, why)
        elif agent.begun > self._how.restarts:
            agent.state = "failed"
            _log.error("%s died and is not restarted: %s", agent.name, why)
        else:
            _log.warning("%s died and is restarted: %s", agent.name, why)
            self._wait_for_place(agent)

    def _give_up_waiting(self) -> None:
        for agent in self._agents:
            if agent.state == "waiting" and time.monotonic() - agent.since > self._place.wait_seconds:
                self._died(agent, f"no node had room for it in {self._place.wait_seconds:g} s")

    def _stop_all(self) -> None:
        for agent in self._agents:
            if agent.state == "running":
                agent.actor.stop.remote()
            elif agent.lives:
                agent.state = "ended"
                self._release(agent)

    def _release(self, agent: _Running) -> None:
        """Give its place back."""
        addresses = {name: each for name, each in self._fleet.addresses.items() if name != agent.name}
        self._fleet = replace(self._fleet, addresses=addresses)
        actor, agent.actor, agent.answer = agent.actor, None, None
        if actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)

    def _ask(self, agent: _Running, question: Callable[[], Any], then: Callable[[Any], None]) -> None:
        agent.question, agent.then = question, then
        agent.answer = question()

    def _hear_somebody(self) -> None:
        """What agents answer, as soon as one does, if that is soon."""
        asked = {agent.answer: agent for agent in self._agents if agent.answer is not None}
        if not asked:
            return
        self._ray.wait(list(asked), num_returns=1, timeout=_LOOK_AGAIN)
        answers, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for answer in answers:
            agent = asked[answer]
            assert agent.question is not None
            assert agent.then is not None
            try:
                value = self._ray.get(answer)
            except self._ray.exceptions.ActorUnavailableError:
                # It may be cut off for a moment only. Ray says when it has died.
                time.sleep(_LOOK_AGAIN)
                agent.answer = agent.question()
            except self._ray.exceptions.RayError as error:
                self._died(agent, _last_line(error))
            else:
                agent.answer = None
                agent.then(value)

    def _write_output(self, agent: _Running, said: bytes) -> None:
        path = output_of(self._out, agent.name)
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            file.write(said)


def _last_line(error: Exception) -> str:
    """Of what Ray says, which is a page with the reason at its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _environment(place: Cluster) -> dict[str, str]:
    """Variables of an agent's process: it uses what Ray keeps for it, and no more."""
    variables = {name: os.environ[name] for name in ("JAX_ENABLE_COMPILATION_CACHE",) if name in os.environ}
    if place.cpus_per_agent <= 1:
        flags = os.environ.get("XLA_FLAGS", "")
        variables["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
        variables["OMP_NUM_THREADS"] = "1"
    # Set in any case: what the driver uses, or its Ray, is not theirs to inherit.
    variables["JAX_PLATFORMS"] = "" if place.gpus_per_agent else "cpu"
    if 0 < place.gpus_per_agent < 1:
        # By default JAX takes three quarters of a GPU for itself.
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * place.gpus_per_agent:.3f}"
    return variables


# Methods of an actor: one waits for news, one for a lock, and a request to stop must come through.
_AT_ONCE = 4
_LOOK_AGAIN = 0.2  # seconds between looks at requests to stop
_REASON_WIDTH = 200  # characters: Ray adds advice, which is in the agent's log
