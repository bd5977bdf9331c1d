"""What one run is: its choices as a frozen configuration.

Recipes return an ``Experiment``, the command line overrides its fields, ``parts.build`` checks and derives everything
else. Nothing here builds, runs, reads or writes, so that a command line can describe an experiment quickly.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from gossamer.algorithms.protocol import Averaging, Cyclic
from gossamer.environments import Environment, HostEnvironment
from gossamer.errors import InputError, require_at_least, require_choice
from gossamer.experience import Episodes, Steps, Unrolls
from gossamer.schedules import Schedule
from gossamer.schedules.adaptive_timeout import AdaptiveTimeout
from gossamer.types import InitialParameters

AnyExperience: TypeAlias = Episodes | Steps | Unrolls
RuntimeName: TypeAlias = Literal["vectorised", "threads", "all_reduce", "a3c", "network"]


@dataclass(frozen=True)
class Experiment:
    """The choices that make a run; plain, hashable data that ``config.json`` holds whole.

    Raises:
        InputError: where a value alone is out of its range; what does not fit together, ``build`` refuses.
    """

    environment: Any
    """The family of tasks and the constants of its dynamics."""
    algorithm: Any
    """What every agent learns with, ours or your own under ``algorithms.protocol``; ``build`` binds it."""
    experience: AnyExperience = field(default_factory=Episodes)
    """How each agent collects what it learns from in a round."""
    tasks: int = 25
    """Number of tasks of the family, a grid over its parameters or drawn from its task seed; 1 is its standard one."""
    agents: int = 25
    """Number of agents; either agents divide tasks or tasks divide agents."""
    copies: int = 1
    """Copies of each of an agent's environments (specialised agents: as many as there are tasks)."""
    topology: str = "erdos_renyi:mean_neighbourhood=4.2"
    """Who may talk to whom: NAME, NAME:parameter=value,..., or the path of an edge-list file."""
    weights: str = "metropolis_hastings"
    """How much an agent believes its neighbours: a weight rule, or the path of a matrix file."""
    schedule: Schedule = field(default_factory=Schedule)
    """What departs from lockstep: failing links, late messages, slow or absent agents. Nothing by default."""
    runtime: RuntimeName = "vectorised"
    """One program for all agents, a thread or (gossamer launch) a process for each, or workers around one learner:
    all_reduce (A2C) and a3c."""
    workers: int = 1
    """Workers that divide the environments of the one agent of all_reduce and a3c."""
    patience: AdaptiveTimeout = field(default_factory=AdaptiveTimeout)
    """How long an agent in a thread or a process waits for a peer where its rule makes it wait."""
    certify: bool = False
    """Whether records say how far apart agents in threads are and, by GALA's proposition 1, can be."""
    correlate: bool = False
    """Whether records say how alike the gradients of threads are, which they then keep until the next."""
    initial_parameters: InitialParameters = "independent"
    """Each agent's own initial parameters (Diff-DAC's Algorithm 1), the same for all, or the mean of many for all."""
    rounds: int = 300
    """Rounds to run; in each, every agent that is due collects, adapts once and combines once."""
    record_every: int = 1
    """Rounds that share a line of the metrics; rounds, checkpoint_every and test_every must be multiples of it."""
    seed: int = 0
    """Seed of every random choice but the topology's and the tasks', which have seeds of their own."""
    seeds: int = 1
    """How many runs to make side by side, with seeds seed, seed + 1, ..."""
    checkpoint_every: int = 50
    """Rounds between checkpoints; one is also written at the end and on Ctrl-C."""
    test_every: int | None = None
    """Rounds between tests, greedy episodes of all agents in their own tasks; None: no tests."""
    test_episodes: int = 10
    """Episodes of a test in each environment of each agent."""
    keep_best: bool = False
    """Whether the best checkpoint so far is kept beside the newest ones, by the return since the one before it."""
    block: int | None = None
    """Agents that act and adapt at once, the others waiting their turn; by default what suits the cache."""

    def __post_init__(self) -> None:
        self._check_types()
        for name in (
            "tasks",
            "agents",
            "copies",
            "rounds",
            "seeds",
            "checkpoint_every",
            "record_every",
            "workers",
            "test_episodes",
            *self._given_of("test_every", "block"),
        ):
            require_at_least(name, getattr(self, name), 1)
        for name in ("rounds", "checkpoint_every", "test_every"):
            if getattr(self, name) is not None and getattr(self, name) % self.record_every:
                raise InputError(
                    f"{name} is {getattr(self, name)}; it must be a multiple of record_every, {self.record_every}"
                )
        if not isinstance(self.algorithm, Averaging | Cyclic):
            lacks = [name for name in dir(Averaging) if name[0] != "_" and not hasattr(self.algorithm, name)]
            raise InputError(
                f"algorithm is {self.algorithm!r:.60}; it must have the methods of Averaging or of Cyclic, and lacks "
                f"{', '.join(lacks)}"
            )
        if self.test_every is not None and self.test_every > self.rounds:
            raise InputError(
                f"test_every is {self.test_every}; it must be at most rounds, {self.rounds}, or there is no test"
            )
        if not isinstance(self.environment, Environment | HostEnvironment):
            raise InputError(f"environment is {self.environment!r}; it must have the methods of Environment")
        require_at_least("seed", self.seed, 0)
        if self.seed + self.seeds > 2**31:
            raise InputError(
                f"seed is {self.seed}; with {self.seeds} seeds it must be below {2**31 - self.seeds}"
            )
        require_choice("runtime", self.runtime, get_args(RuntimeName))
        require_choice("initial_parameters", self.initial_parameters, get_args(InitialParameters))

    def _given_of(self, *names: str) -> tuple[str, ...]:
        return tuple(name for name in names if getattr(self, name) is not None)

    def _check_types(self) -> None:
        """A configuration may come from a file that a person changed."""
        counts = (
            "tasks",
            "agents",
            "copies",
            "rounds",
            "seed",
            "seeds",
            "checkpoint_every",
            "record_every",
            "workers",
            "test_episodes",
        )
        for name in (*counts, *self._given_of("test_every", "block")):
            if type(getattr(self, name)) is not int:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be a whole number")
        kinds = {
            "topology": (str,),
            "weights": (str,),
            "experience": (Episodes, Steps, Unrolls),
            "schedule": (Schedule,),
            "patience": (AdaptiveTimeout,),
            "certify": (bool,),
            "keep_best": (bool,),
            "correlate": (bool,),
        }
        for name, classes in kinds.items():
            if not isinstance(getattr(self, name), classes):
                accepted = " or ".join(each.__name__ for each in classes)
                raise InputError(f"{name} is {getattr(self, name)!r:.60}; it must be of type {accepted}")


def on_host(environment: Any) -> bool:
    """Whether an environment's dynamics run on the host; this is the one place that decides it.

    Example:
        >>> from gossamer.environments import Pendulum
        >>> on_host(Pendulum())
        False
    """
    return not isinstance(environment, Environment)
