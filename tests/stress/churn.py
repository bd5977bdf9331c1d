"""Do agents learn on while others come and go? Processes on this machine that are killed and begun at random.

    python -m tests.stress.churn [--seconds 600] [--pool 12] [--seed 0] [--out benchmarks/results/churn.json]

A pool of names is held to between a third of them and all living agents; every 3 to 8 seconds one is killed (SIGKILL,
it says no farewell) or begun. They gossip over mutual TLS and wait for messages that are more than five updates old,
up to a deadline. At the end all are asked to save themselves, and what is left behind is looked for.
"""

import argparse
import json
import random
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gossamer.experiment import Experiment
from gossamer.network.agent import PROCESS
from gossamer.network.launcher import Launch, Supervisor, agent_folder, issue_all, local_addresses
from gossamer.network.membership import Fleet, default_names
from gossamer.recipes import cartpole_balance
from gossamer.runs.folder import provenance, read_last_row, read_metrics, write_json
from gossamer.schedules import Schedule
from gossamer.schedules.adaptive_timeout import AdaptiveTimeout

PATIENCE = AdaptiveTimeout(deviations=10.0, least=0.5, first=5.0)
BETWEEN = (3.0, 8.0)  # seconds between two events
END_SECONDS = 60.0  # for all to save themselves
STALENESS = 5
SAMPLED = 1.0  # seconds between two looks at how all that live are


def population(pool: int, seed: int) -> Experiment:
    """Cart-pole balance with 2×64 units, agents that wait for messages more than five updates old."""
    recipe = cartpole_balance()
    return replace(
        recipe,
        algorithm=replace(recipe.algorithm, hidden=(64, 64)),
        runtime="network",
        agents=pool,
        tasks=pool,
        # Two thirds of all, so that half of them can be away and the others still be connected.
        topology=f"erdos_renyi:mean_neighbourhood={2 * pool / 3:g}",
        schedule=Schedule("most_recent", staleness=STALENESS),
        patience=PATIENCE,
        rounds=10**9,
        checkpoint_every=20,
        seed=seed,
    )


class Sample(NamedTuple):
    """How those that lived were at a moment."""

    second: float
    alive: int
    learning: int  # how many of them had made a round since they were begun
    mean_return: float | None
    slowest: int  # rounds
    fastest: int


class Event(NamedTuple):
    """Somebody was begun or killed."""

    second: float
    name: str
    what: str
    alive: int  # afterwards


@dataclass
class Churn:
    """Begins and kills agents.

    Args:
        supervisor: begins them.
        least: fewest that live at any time.
        generator: of who, what and when.
    """

    supervisor: Supervisor
    least: int
    generator: random.Random
    living: dict[str, BaseProcess] = field(default_factory=dict)
    died: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def begin(self, name: str, begins_with: Any = "newest") -> None:
        """One more."""
        process = self.supervisor.begin(name, begins_with)
        assert process.pid is not None
        self.living[name] = process
        self.pids.append(process.pid)
        self._note(name, "begun")

    def kill(self, name: str) -> None:
        """One less, without a word."""
        process = self.living.pop(name)
        process.kill()
        process.join()
        self._note(name, "killed")

    def step(self) -> None:
        """One event; first it is noted who died without being killed, which nobody should."""
        for name in [name for name, process in self.living.items() if not process.is_alive()]:
            self.living.pop(name)
            self.died.append(name)
            self._note(name, "died")
        names = self.supervisor.fleet.names
        absent = [name for name in names if name not in self.living]
        if len(self.living) <= self.least or (absent and self.generator.random() < 0.5):
            self.begin(self.generator.choice(absent))
        else:
            self.kill(self.generator.choice(sorted(self.living)))

    def sample(self) -> None:
        """Note how those are that live and have joined, by the last line of their metrics."""
        joined = [name for name, process in self.living.items() if self._had_begun(name, process)]
        paths = [agent_folder(self.supervisor.out, name) / "metrics.jsonl" for name in joined]
        rows = [row for path in paths if (row := read_last_row(path))]
        returns = [row["episodic_return"] for row in rows if row["episodic_return"] is not None]
        rounds = [row["round"] for row in rows]
        self.samples.append(
            Sample(
                time.monotonic() - self.began,
                len(self.living),
                len(rows),
                float(np.mean(returns)) if returns else None,
                min(rounds, default=0),
                max(rounds, default=0),
            )
        )

    def end(self) -> dict[str, int]:
        """Ask all that live to save themselves: the exit status of each that had joined, negative if it was killed.

        One that was begun so late that it is still being loaded has nothing to save, and just ends.
        """
        status = {}
        for process in self.living.values():
            process.terminate()
        for name, process in self.living.items():
            process.join(END_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
            if self._had_begun(name, process):
                status[name] = process.exitcode if process.exitcode is not None else -signal.SIGKILL
        return status

    def _had_begun(self, name: str, process: BaseProcess) -> bool:
        file = agent_folder(self.supervisor.out, name) / PROCESS
        return file.exists() and json.loads(file.read_text())["pid"] == process.pid

    def _note(self, name: str, what: str) -> None:
        self.events.append(Event(time.monotonic() - self.began, name, what, len(self.living)))


def churn(seconds: float, pool: int, least: int, seed: int, folder: Path) -> dict[str, Any]:
    """Let agents come and go for a while, and look at what became of them.

    Args:
        seconds: how long.
        pool: how many names there are.
        least: fewest that live at any time.
        seed: of the population, and of who comes and goes.
        folder: where agents write; made if it is missing.
    """
    generator = random.Random(seed)
    names = default_names(pool)
    fleet = Fleet.named(f"churn {seed}", names, addresses=local_addresses(names, tls=True))
    how = Launch(tls=True)
    folder.mkdir(parents=True, exist_ok=True)
    issue_all(folder, fleet)
    shared = _shared_memory()
    churning = Churn(Supervisor(population(pool, seed), fleet, how, folder), least, generator)
    for name in names[: (least + pool) // 2]:
        churning.begin(name, "own")
    until = churning.began + seconds
    following = churning.began + generator.uniform(*BETWEEN)
    while (now := time.monotonic()) < until:
        if now >= following:
            following = now + generator.uniform(*BETWEEN)
            churning.step()
        churning.sample()
        time.sleep(SAMPLED)
    print(f"{len(churning.living)} live after {seconds:g} s; they are asked to save themselves", flush=True)
    status = churning.end()
    return _found(churning, status, folder, fleet, shared)


def _found(
    churning: Churn, status: dict[str, int], folder: Path, fleet: Fleet, shared: set[str]
) -> dict[str, Any]:
    lives = {name: _rows(folder, name) for name in fleet.names}
    returns = _course(churning.samples)
    waits = [row["time"]["waiting"]["longest"] for rows in lives.values() for row in rows]
    gaps = [gap for rows in lives.values() for gap in _gaps(rows)]
    alive = [event.alive for event in churning.events[(churning.least + len(fleet.names)) // 2 :]]
    return {
        "events": [event._asdict() for event in churning.events],
        "samples": [sample._asdict() for sample in churning.samples],
        "begun": sum(event.what == "begun" for event in churning.events),
        "killed": sum(event.what == "killed" for event in churning.events),
        "died": churning.died,
        "living": {"least": min(alive, default=0), "most": max(alive, default=0)},
        "exit_status": status,
        "rounds": {name: rows[-1]["round"] if rows else 0 for name, rows in lives.items()},
        "longest_wait": max(waits, default=0.0),
        "longest_deadline": PATIENCE.first,
        "longest_round": max(gaps, default=0.0),
        "median_round": float(np.median(gaps)) if gaps else None,
        "expired": sum(row["time"]["waiting"]["expired"] for rows in lives.values() for row in rows),
        "returns": returns,
        "left_behind": {
            "processes": [pid for pid in churning.pids if _exists(pid)],
            "ports": [name for name, address in fleet.addresses.items() if not _is_free(address)],
            "shared_memory": sorted(_shared_memory() - shared),
            "half_written": [
                str(path.relative_to(folder))
                for name in status
                for path in (agent_folder(folder, name) / "checkpoints").glob("*ing-*")
            ],
        },
    }


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    """What must hold of a run."""
    first, last = found["returns"]["first"], found["returns"]["last"]
    return {
        "no wait is longer than its deadline": found["longest_wait"] <= found["longest_deadline"] + _SLACK,
        "nobody died by itself": not found["died"],
        "all that lived saved themselves when asked": set(found["exit_status"].values()) <= {130},
        "returns improve": last is not None and first is not None and last > first,
        "nothing is left behind": not any(found["left_behind"].values()),
    }


def last_line(found: dict[str, Any], seconds: float) -> str:
    """What was survived, in one line."""
    first, last = found["returns"]["first"], found["returns"]["last"]
    holds = all(verdicts(found).values())
    return (
        f"{'survived' if holds else 'NOT survived'}: {seconds:g} s, {found['begun']} beginnings and "
        f"{found['killed']} kills, {found['living']['least']} to {found['living']['most']} living; longest wait "
        f"{found['longest_wait']:.2f} s (deadline {found['longest_deadline']:g} s), mean return {first:.0f} at first "
        f"and {last:.0f} at last, {len(found['left_behind']['processes'])} processes left"
    )


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    path = agent_folder(folder, name) / "metrics.jsonl"
    return read_metrics(path) if path.exists() else []


def _gaps(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Seconds that each round took; of the first of a life, which compiles, none."""
    seconds = [row["time"]["seconds"] for row in rows]
    return np.diff(seconds).tolist()


def _course(samples: Sequence[Sample]) -> dict[str, float | None]:
    """Mean return of those that lived, in the first and in the last tenth of the time in which they learned."""
    known = [each.mean_return for each in samples if each.mean_return is not None]
    share = max(len(known) // 10, 1)
    return {
        "first": float(np.mean(known[:share])) if known else None,
        "last": float(np.mean(known[-share:])) if known else None,
    }


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _is_free(address: str) -> bool:
    host, _, port = address.partition("/")[2].rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True


def _shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if not name.startswith("sem.mp-")}  # of other programs: ours have none


_SLACK = 0.25  # seconds between a deadline and the moment at which a busy machine lets the agent run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--pool", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/churn.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = churn(given.seconds, given.pool, max(given.pool // 3, 1), given.seed, Path(folder))
    holds = verdicts(found)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {"seconds": given.seconds, "pool": given.pool, "seed": given.seed, "between": BETWEEN}
    write_json(given.out, {"settings": settings, "verdicts": holds, **found, "provenance": provenance()})
    print(
        json.dumps(
            {name: value for name, value in found.items() if name not in ("events", "samples")}, indent=1
        )
    )
    for claim, verdict in holds.items():
        print(f"{'holds' if verdict else 'does not hold':<14} {claim}")
    print(last_line(found, given.seconds))


if __name__ == "__main__":
    main()
