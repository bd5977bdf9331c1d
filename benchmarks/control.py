"""How fast populations learn control tasks on this machine, beside what the machine could do at most.

    python -m benchmarks.control [--quick] [--out benchmarks/results/control.json]

Env-steps are real transitions, learning and combining included; each figure is the median of five. The limits
are measured in the same run: the rate of large float32 matrix products, and the bandwidth of reading memory.
The least time of a round is the time its floating-point operations take at that rate, or, where each agent
acts alone (E = 1), the time of reading every agent's actor once per step if that is longer.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gossamer.experience import Episodes
from gossamer.mixing import mix
from gossamer.recipes import pendulum
from gossamer.runs.folder import provenance
from gossamer.runs.metrics import Timed, Totals, record_rows
from gossamer.runtimes.build import Parts, build, initial_population, tree_bytes
from gossamer.runtimes.protocol import Report, Traffic
from gossamer.runtimes.vectorised import Population, run_chunk
from gossamer.topologies import erdos_renyi, star

REPEATS = 5
# agents, width, E, and the sizes of a block to compare
BLOCKS = (
    (25, 64, 16, (1, 5, 25)),
    (25, 400, 1, (1, 5, 25)),
    (25, 400, 5, (1, 5, 25)),
    (1000, 16, 1, (25, 100, 256, 1000)),
)


@dataclass(frozen=True)
class Limits:
    """What the machine reached on its own: floating-point operations and bytes a second."""

    flops: float
    bandwidth: float


def median_seconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median wall time of some work, after one run that is not counted."""
    jax.block_until_ready(work())
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(work())
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure_limits() -> Limits:
    size = 2048
    square = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    flops = 2 * size**3 / median_seconds(lambda: product(square, square))
    # Larger than any cache; a sum reads each byte once.
    long = jnp.ones(64 * 2**20)
    total = jax.jit(jnp.sum)
    return Limits(flops, long.nbytes / median_seconds(lambda: total(long)))


class Trainer:
    """A population that can be run for a number of rounds at a time."""

    def __init__(self, agents: int, width: int, episodes: int, tasks: int = 25, block: int | None = None):
        recipe = pendulum()
        experiment = replace(
            recipe,
            agents=agents,
            tasks=tasks,
            topology="ring",
            block=block,
            algorithm=replace(recipe.algorithm, hidden=(width, width)),
            experience=Episodes(episodes),
        )
        self.parts: Parts = build(experiment)
        self.population: Population = initial_population(
            self.parts.algorithm, experiment, self.parts.mailbox, self.parts.tasks
        )

    def run(self, rounds: int) -> Any:
        parts = self.parts
        self.population, record = run_chunk(
            self.population,
            parts.algorithm,
            parts.mixer,
            parts.tasks,
            parts.seeds,
            jnp.asarray(rounds, jnp.int32),
            environment=parts.environment,
            experience=parts.experience,
            capacity=rounds,
            block=parts.block,
        )
        return jax.device_get(record)

    @property
    def actor_weights(self) -> int:
        """Weights of one agent's actor, all layers."""
        actor = self.population.learner.params.actor
        return sum(leaf[0, 0].size for leaf in jax.tree.leaves(actor))


def speed(agents: int, width: int, episodes: int, limits: Limits) -> dict[str, float]:
    """Env-steps/s of a population on a ring, and the share of the machine's limit it reached."""
    trainer = Trainer(agents, width, episodes)
    steps = int(trainer.run(1).agents.env_steps.sum())
    started = time.perf_counter()
    trainer.run(1)
    rounds = max(1, round(1.0 / (time.perf_counter() - started)))
    seconds = median_seconds(lambda: trainer.run(rounds)) / rounds
    # Multiply and add per weight: one forward pass to act, then forward and twice as much backward for both networks.
    operations = steps * 2 * trainer.actor_weights * (1 + 3 + 3)
    computing = operations / limits.flops
    acting = steps * 2 * trainer.actor_weights / limits.flops
    reading = 200 * agents * trainer.actor_weights * 4 / limits.bandwidth
    least = computing - acting + max(acting, reading)
    return {
        "agents": agents,
        "width": width,
        "episodes_per_environment": episodes,
        "env_steps_per_second": steps / seconds,
        "limit_env_steps_per_second": steps / least,
        "fraction_of_limit": least / seconds,
        "seconds_per_round": seconds,
    }


def combining_share() -> dict[str, float]:
    """The time of combining beside a whole round, at N = 25 on a ring with 2×64 networks, E = 1."""
    trainer = Trainer(25, 64, 1)
    trainer.run(1)
    whole = median_seconds(lambda: trainer.run(50)) / 50
    messages = jax.tree.map(lambda leaf: leaf[0], trainer.population.learner.params)
    mixer = trainer.parts.mixer

    @jax.jit
    def combine_many(tree: Any) -> Any:
        return jax.lax.fori_loop(0, 200, lambda index, carry: mix(mixer, carry, index), tree)

    combining = median_seconds(lambda: combine_many(messages)) / 200
    return {"seconds_per_round": whole, "seconds_combining": combining, "share": combining / whole}


def blocks(cases: tuple[tuple[int, int, int, tuple[int, ...]], ...]) -> list[dict[str, Any]]:
    """Env-steps/s with so many agents acting and adapting at once; docs/decisions/blocks.md reads this table."""
    rows = []
    for agents, width, episodes, sizes in cases:
        for block in sizes:
            trainer = Trainer(agents, width, episodes, tasks=25 if agents == 25 else 1, block=block)
            steps = int(trainer.run(1).agents.env_steps.sum())
            rounds = max(1, 40_000 // (steps if width < 400 else 8 * steps))
            seconds = median_seconds(partial(trainer.run, rounds), repeats=3) / rounds
            row = {"agents": agents, "width": width, "episodes_per_environment": episodes, "block": block}
            rows.append({**row, "env_steps_per_second": steps / seconds})
    return rows


def run_and_record(trainer: Trainer, rounds: int) -> None:
    """Rounds, and their lines of ``metrics.jsonl``."""
    record = trainer.run(rounds)
    reports = [
        Timed(Report(1, jax.tree.map(lambda rows, i=i: rows[i], record), Traffic.none(1)), seconds=1.0)
        for i in range(rounds)
    ]
    json.dumps(record_rows(trainer.parts, reports, 0, 0, Totals()))


def scaling(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Cost per agent and round of ring populations (pendulum, E = 1, 2×16), records and metrics included."""
    rows = []
    for agents in sizes:
        trainer = Trainer(agents, 16, 1, tasks=1)
        rounds = max(2, 4000 // agents)
        seconds = median_seconds(partial(run_and_record, trainer, rounds)) / rounds
        rows.append({"agents": agents, "microseconds_per_agent_and_round": 1e6 * seconds / agents})
    for row in rows:
        base = rows[0]["microseconds_per_agent_and_round"]
        row["relative_to_smallest"] = row["microseconds_per_agent_and_round"] / base
    return rows


def combining_memory(agents: int = 10_000, parameters: int = 1_000) -> list[dict[str, Any]]:
    """Temporary memory and time of one combination of 10,000 agents, beside an N×N matrix."""
    from gossamer.mixing import metropolis_hastings, plan, weigh

    rows = []
    messages = jnp.ones((agents, parameters))
    for topology in (star(agents), erdos_renyi(agents)):
        mixer = plan(weigh(topology, metropolis_hastings))
        compiled = jax.jit(mix).lower(mixer, messages, 0).compile()
        analysis = compiled.memory_analysis()
        rows.append(
            {
                "topology": topology.name,
                "form": type(mixer).__name__,
                "temporary_MiB": (analysis.temp_size_in_bytes if analysis else float("nan")) / 2**20,
                "messages_MiB": tree_bytes(messages) / 2**20,
                "dense_matrix_MiB": agents * agents * 4 / 2**20,
                "milliseconds": 1e3 * median_seconds(partial(compiled, mixer, messages, 0)),
            }
        )
    return rows


def machine() -> dict[str, Any]:
    known = provenance()
    return {
        "device": known["device_kind"],
        **{name: known[name] for name in ("processor", "cores", "python", "gossamer", "jax", "jaxlib")},
        "date": time.strftime("%Y-%m-%d"),
    }


def show(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    for row in rows:
        cells = (
            f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items()
        )
        print("  " + ", ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="leave out 10,000 agents, 2×400 networks and blocks"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "control.json")
    arguments = parser.parse_args()
    limits = measure_limits()
    cases = [(25, 64, 1), (25, 64, 16)] + ([] if arguments.quick else [(25, 400, 1), (25, 400, 5)])
    sizes = (100, 1000) if arguments.quick else (100, 1000, 10_000)
    result: dict[str, Any] = {"command": "python -m benchmarks.control", "machine": machine()}
    show("machine", [result["machine"]])
    result["limits"] = asdict(limits)
    show("limits of the machine, per second", [result["limits"]])
    result["speed"] = [speed(*case, limits) for case in cases]
    show("pendulum on a ring (width of both hidden layers, E)", result["speed"])
    if not arguments.quick:
        result["blocks"] = blocks(BLOCKS)
        show("agents that act and adapt at once", result["blocks"])
    result["combining"] = combining_share()
    show("combining, 25 agents on a ring, 2×64, E = 1", [result["combining"]])
    result["scaling"] = scaling(sizes)
    show("ring populations, 2×16, E = 1", result["scaling"])
    result["combining_memory"] = combining_memory()
    show("one combination of 10,000 agents with 1,000 parameters", result["combining_memory"])
    result["peak_memory_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    show("peak memory", [{"MiB": result["peak_memory_MiB"]}])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1, default=float) + "\n")
    print(f"\n{arguments.out}")


if __name__ == "__main__":
    main()
