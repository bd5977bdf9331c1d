"""What one run is: its choices as a frozen configuration, and the parts that are built from them.

Recipes return an ``Experiment``, the command line overrides its fields, ``build`` checks and derives
everything else. Nothing here runs, reads or writes a run.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from scipy.sparse import csr_array

from gossamer.algorithms.siac import SiAC
from gossamer.environments import Environment, TaskSet
from gossamer.errors import InputError, require_at_least, require_choice
from gossamer.experience.device import Episodes
from gossamer.mixing import RULES, Mixer, is_strongly_connected, named_rule, plan, read_matrix, weigh
from gossamer.runtimes.vectorised import InitialParameters, Population, initialise
from gossamer.topologies import Topology, named, require_connected
from gossamer.types import Spaces


@dataclass(frozen=True)
class Experiment:
    """The choices that make a run; plain, hashable data that ``config.json`` holds whole.

    Raises:
        InputError: where a value alone is out of its range; what does not fit together, ``build`` refuses.
    """

    environment: Any
    """The family of tasks and the constants of its dynamics."""
    algorithm: SiAC
    """What every agent learns with; ``build`` fits its spaces to the environment."""
    experience: Episodes = field(default_factory=Episodes)
    """How each agent collects what it learns from in a round."""
    tasks: int = 25
    """Number of tasks, a grid over the family's two parameters; 1 is its standard single task."""
    agents: int = 25
    """Number of agents; either agents divide tasks or tasks divide agents."""
    copies: int = 1
    """Copies of each of an agent's environments (specialised agents: as many as there are tasks)."""
    topology: str = "erdos_renyi:mean_neighbourhood=4.2"
    """Who may talk to whom: NAME, NAME:parameter=value,..., or the path of an edge-list file."""
    weights: str = "metropolis_hastings"
    """How much an agent believes its neighbours: a weight rule, or the path of a matrix file."""
    initial_parameters: InitialParameters = "independent"
    """Each agent's own initial parameters (Diff-DAC's Algorithm 1), or the same for all."""
    rounds: int = 300
    """Rounds to run; in each, every agent collects, adapts once and combines once."""
    seed: int = 0
    """Seed of every random choice but the topology's."""
    seeds: int = 1
    """How many runs to make side by side, with seeds seed, seed + 1, ..."""
    checkpoint_every: int = 50
    """Rounds between checkpoints; one is also written at the end and on Ctrl-C."""
    block: int | None = None
    """Agents that act and adapt at once, the others waiting their turn; by default what suits the cache."""

    def __post_init__(self) -> None:
        self._check_types()
        for name in ("tasks", "agents", "copies", "rounds", "seeds", "checkpoint_every"):
            require_at_least(name, getattr(self, name), 1)
        if not isinstance(self.environment, Environment):
            raise InputError(f"environment is {self.environment!r}; it must have the methods of Environment")
        require_at_least("seed", self.seed, 0)
        if self.block is not None:
            require_at_least("block", self.block, 1)
        if self.seed + self.seeds > 2**31:
            raise InputError(
                f"seed is {self.seed}; with {self.seeds} seeds it must be below {2**31 - self.seeds}"
            )
        require_choice("initial_parameters", self.initial_parameters, ("independent", "shared"))

    def _check_types(self) -> None:
        """A configuration may come from a file that a person changed."""
        counts = ("tasks", "agents", "copies", "rounds", "seed", "seeds", "checkpoint_every")
        for name in (*counts, *(("block",) if self.block is not None else ())):
            if type(getattr(self, name)) is not int:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be a whole number")
        kinds = {"topology": str, "weights": str, "experience": Episodes, "algorithm": SiAC}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise InputError(f"{name} is {getattr(self, name)!r:.60}; it must be of type {kind.__name__}")


class Parts(NamedTuple):
    """What an experiment is made of once everything is derived: the arguments of the runtime."""

    environment: Any
    experience: Episodes
    algorithm: SiAC
    topology: Topology
    weights: tuple[csr_array, ...]
    mixer: Mixer
    task_set: TaskSet
    tasks: Any
    task_index: np.ndarray
    seeds: Int[Array, " seed"]
    block: int


def build(experiment: Experiment) -> Parts:
    """Everything an experiment needs to run, checked.

    Raises:
        InputError: if tasks do not fit the agents, the topology is unknown, undefined at this number of
            agents or not connected, the weights do not fit it, or the state would not fit in memory.

    Example:
        >>> from gossamer.recipes import pendulum
        >>> parts = build(replace(pendulum(), agents=5, topology="ring"))
        >>> parts.tasks.mass.shape
        (5, 5)
    """
    environment = experiment.environment
    task_set = environment.task_set(experiment.tasks)
    tasks = task_set.deal(experiment.agents, experiment.copies)
    topology = named(experiment.topology, experiment.agents)
    require_connected(topology)
    weights = weigh_by(experiment.weights, topology)
    _require_mixing(topology, weights)
    spaces = Spaces(environment.observation_size, environment.action_space)
    algorithm = replace(experiment.algorithm, spaces=spaces)
    _require_memory(population_shape(algorithm, experiment))
    columns = jax.tree.leaves(tasks)[0].shape[1] * experiment.experience.episodes_per_environment
    return Parts(
        environment=environment,
        experience=experiment.experience,
        algorithm=algorithm,
        topology=topology,
        weights=weights,
        mixer=plan(weights),
        task_set=task_set,
        tasks=tasks,
        task_index=np.asarray(task_set.index(experiment.agents, experiment.copies)),
        seeds=jnp.arange(experiment.seed, experiment.seed + experiment.seeds),
        block=experiment.block or _suitable_block(algorithm, experiment, columns),
    )


def weigh_by(spec: str, topology: Topology) -> tuple[csr_array, ...]:
    """The weights that a rule's name, or the path of a matrix file, gives a topology; one matrix per phase.

    Raises:
        InputError: unknown rule, a matrix that is not stochastic, or one that does not fit the topology.

    Example:
        >>> weigh_by("uniform", named("ring", agents=3))[0].toarray().round(2).tolist()
        [[0.33, 0.33, 0.33], [0.33, 0.33, 0.33], [0.33, 0.33, 0.33]]
    """
    if spec.partition(":")[0] not in RULES and Path(spec).is_file():
        return read_matrix(spec, topology)
    return weigh(topology, named_rule(spec))


def population_shape(algorithm: SiAC, experiment: Experiment) -> Population:
    """The population as shapes and dtypes, without making it."""

    def make() -> Population:
        return initialise(
            algorithm,
            jnp.arange(experiment.seeds),
            agents=experiment.agents,
            initial_parameters=experiment.initial_parameters,
        )

    return jax.eval_shape(make)


def tree_bytes(tree: Any) -> int:
    """Bytes that the leaves of a tree of arrays or shapes take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _require_mixing(topology: Topology, weights: tuple[csr_array, ...]) -> None:
    """Refuse weights under which news of some agent never reaches another, unless nobody is to talk at all."""
    if not topology.name.startswith("isolated") and not is_strongly_connected(sum(weights)):
        raise InputError(
            f"the weights leave the {topology.agents} agents of {topology.name} in parts that never hear each "
            "other; give weights above 0 along a path between any two, or choose the topology isolated"
        )


def _require_memory(population: Population) -> None:
    """Refuse a state that cannot be held twice: old and new stand side by side while messages are mixed."""
    needed = 2 * tree_bytes(population)
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if jax.default_backend() == "cpu" and needed > present:
        raise InputError(
            f"the population would need {needed / 2**30:.1f} GiB and this machine has {present / 2**30:.1f} GiB; "
            "fewer agents or seeds, or smaller hidden layers, would fit"
        )


def _suitable_block(algorithm: SiAC, experiment: Experiment, columns: int) -> int:
    """How many agents act and adapt at once; docs/decisions/blocks.md holds the measurements.

    Few rows through a large network: several agents together, as long as their parameters stay in the cache.
    Many rows: one agent at a time, whose matrix products are then large enough to use every core.
    """
    agents = experiment.agents * experiment.seeds
    one_agent = tree_bytes(population_shape(algorithm, experiment).learner.params) // agents
    if one_agent > _LARGE_NETWORK and columns >= _MANY_ROWS:
        return 1
    return max(1, min(agents, _CACHE // one_agent, _LARGEST_BLOCK))


_CACHE = 8 * 2**20  # bytes of parameters that may be in use together
_LARGEST_BLOCK = 256  # agents; the trajectories of more leave the cache however small the networks are
_LARGE_NETWORK = 2**18  # bytes; two networks of 2×256 are about twice as large
_MANY_ROWS = 4  # environments of one agent that act together
