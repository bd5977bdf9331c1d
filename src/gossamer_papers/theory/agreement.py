"""Diff-DAC's theorem 2: agents that adapt by their own stochastic gradients and combine agree in the end.

A diffusion run with plain stochastic gradient steps (46a)-(46b) and the step sizes of (50), made of the library's own
gradients and mixing. It checks agreement; whether anything is learned is asked elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import csr_array

from gossamer.algorithms.siac import SiAC
from gossamer.environments import CartPoleBalance, spaces_of
from gossamer.errors import InputError, require_at_least, require_positive, require_within
from gossamer.experience import Episodes
from gossamer.mixing import (
    Dense,
    Mixer,
    metropolis_hastings,
    mix,
    plan,
    weigh,
)
from gossamer.runtimes.rounds import agent_key, collect
from gossamer.topologies import isolated, ring
from gossamer.types import ActorCritic, Learner, Params

_ROUNDOFF = 1e-6  # of float32, relative to the parameters, after a few products and sums


@dataclass(frozen=True)
class StepSizes:
    """α_i = a / i^p for the critic and β_i = b / i^q for the actor, i = 1, 2, …; plain gradient steps.

    With a ``plateau`` of τ rounds, (τ + i − 1) / τ stands for i: for about so long steps hardly fall.

    Assumption 3 prints Σ α_i = Σ β_i (50). Σ α_i = Σ β_i = ∞ is meant, which is what is used, and follows from
    p, q ≤ 1; squares are summable as 1/2 < p, q, and β_i / α_i → 0 as p < q.

    Raises:
        InputError: a step that is not positive, powers that break (50), or a plateau below 1.

    Example:
        >>> StepSizes().at(jnp.array(1))
        ActorCritic(actor=Array(0.02, ...), critic=Array(0.05, ...))
        >>> StepSizes(critic_power=0.9, actor_power=0.8)
        Traceback (most recent call last):
        gossamer.errors.InputError: powers are 0.9 (critic) and 0.8 (actor); they must be above 1/2, at most 1, and
        the critic's the smaller
    """

    critic: float = 0.05
    actor: float = 0.02
    critic_power: float = 0.8
    actor_power: float = 1.0
    plateau: int = 1

    def __post_init__(self) -> None:
        require_positive("critic step", self.critic)
        require_positive("actor step", self.actor)
        if not 0.5 < self.critic_power < self.actor_power <= 1:
            raise InputError(
                f"powers are {self.critic_power} (critic) and {self.actor_power} (actor); they must be above 1/2,"
                " at most 1, and the critic's the smaller"
            )
        require_at_least("plateau", self.plateau, 1)

    def at(self, round: Int[Array, ""] | int) -> ActorCritic:
        """Both steps of a round, the first of which is 1."""
        i = (self.plateau + round - 1) / self.plateau
        return ActorCritic(actor=self.actor / i**self.actor_power, critic=self.critic / i**self.critic_power)


class Course(NamedTuple):
    """Of every round: ‖φ^dis‖ (65) after adapting, after combining, and ‖φ‖ of all agents together.

    ``start`` is ‖φ^dis‖ of the initial parameters.
    """

    start: float
    adapted: Float[np.ndarray, " round"]
    combined: Float[np.ndarray, " round"]
    norm: Float[np.ndarray, " round"]

    @property
    def remaining(self) -> float:
        """What is left of the initial disagreement in the end, as a ratio."""
        return float(self.combined[-1]) / self.start

    def violations(self, rate: float) -> int:
        """Rounds that break (66)-(67): ‖φ^dis‖ after > ‖C − J‖₂ · ‖φ^dis‖ before, but for rounding to float32."""
        return int((self.combined > rate * self.adapted + _ROUNDOFF * self.norm).sum())


def diffuse(
    weights: Sequence[csr_array], rounds: int, steps: StepSizes | None = None, seed: int = 0
) -> Course:
    """Agents with initial parameters and a task of their own, by (46a)-(46b), on cart-pole balance.

    SiAC's gradients, small networks, episodes of at most 40 steps. The recursion begins at different parameters:
    from equal ones agreement would say little.

    Args:
        weights: one matrix for each phase; round i uses phase i mod their number.
        rounds: > 0.
        steps: of the gradients.
        seed: of parameters and episodes.

    Raises:
        InputError: no round.

    Example:
        >>> from gossamer.mixing import consensus_rate, metropolis_hastings, weigh
        >>> from gossamer.topologies import ring
        >>> course = diffuse(weigh(ring(4), metropolis_hastings), rounds=30)
        >>> course.violations(consensus_rate(weigh(ring(4), metropolis_hastings)))
        0
        >>> course.remaining < 0.05
        True
    """
    require_at_least("rounds", rounds, 1)
    agents = len(weights[0].toarray())
    environment = CartPoleBalance(max_steps=40)
    algorithm = SiAC(hidden=(8,), activation="tanh", discount=0.9).bind(spaces_of(environment))
    tasks = environment.task_set(agents).deal(agents)
    start, courses = _run(
        algorithm, environment, tasks, plan(weights, Dense), steps or StepSizes(), rounds, jnp.asarray(seed)
    )
    return Course(float(start), *(np.asarray(each, np.float64) for each in courses))


class Comparison(NamedTuple):
    """Runs of the same agents under other combinations, by name, and what each promises to leave in a round, at most.

    ``rates`` holds ‖C − J‖₂ for a fixed C, and ``mean_square_rate`` for i.i.d. ones: an expectation, and no bound of
    each round.
    """

    courses: Mapping[str, Course]
    rates: Mapping[str, float]


def compare(agents: int = 8, rounds: int = 2000, seed: int = 0, failure: float = 0.5) -> Comparison:
    """Theorem 2 on a ring, ``isolated`` agents, and i.i.d. combinations: ``failing links`` and ``permutations``.

    Links fail one way at a time. Random permutations have an expectation that meets assumption 1, like all the others
    but isolated agents', who are the comparison.

    Raises:
        InputError: fewer than 2 agents, no round, or a probability outside [0, 1].

    Example:
        >>> comparison = compare(agents=4, rounds=20)
        >>> [name for name, course in comparison.courses.items() if course.remaining < 0.1]
        ['ring', 'failing links']
    """
    require_at_least("agents", agents, 2)
    require_at_least("rounds", rounds, 1)
    W = weigh(ring(agents), metropolis_hastings)[0]
    # As many matrices as rounds for all of them: one program runs all four.
    weights = {
        "ring": (W,) * rounds,
        "failing links": failing_links(W, failure, rounds, seed),
        "permutations": permutations(agents, rounds, seed),
        "isolated": weigh(isolated(agents), metropolis_hastings) * rounds,
    }
    return Comparison(
        courses={name: diffuse(phases, rounds, seed=seed) for name, phases in weights.items()},
        rates={name: mean_square_rate(phases) for name, phases in weights.items()},
    )


def disagreement(params: Params) -> Float[Array, ""]:
    """‖φ^dis‖ (65): Euclidean distance of all agents' parameters, stacked, to their mean.

    Example:
        >>> float(disagreement({"w": jnp.array([[1.0, 0.0], [-1.0, 0.0]])})).__round__(3)
        1.414
    """
    return _norm(jax.tree.map(lambda leaf: leaf - leaf.mean(0, keepdims=True), params))


def failing_links(W: csr_array, failure: float, rounds: int, seed: int = 0) -> tuple[csr_array, ...]:
    """i.i.d. matrices C(i): every link of W fails with a probability, and its weight returns to the receiver.

    E[C] = (1 − p) W + p I is doubly stochastic if W is. Where links fail one way at a time, no C(i) need be: agents
    agree, but the mean that they agree on wanders.

    Args:
        W: weights when all links are up.
        failure: probability in [0, 1].
        rounds: how many matrices.
        seed: of the draws.

    Raises:
        InputError: a probability outside [0, 1].

    Example:
        >>> from gossamer.mixing import is_doubly_stochastic, is_row_stochastic, metropolis_hastings, weigh
        >>> from gossamer.topologies import ring
        >>> drawn = failing_links(weigh(ring(5), metropolis_hastings)[0], failure=0.5, rounds=20)
        >>> all(is_row_stochastic(C) for C in drawn), all(is_doubly_stochastic(C) for C in drawn)
        (True, False)
    """
    require_within("failure", failure, 0.0, 1.0)
    generator = np.random.default_rng(seed)
    dense = W.toarray()
    others = dense - np.diag(dense.diagonal())

    def draw() -> csr_array:
        heard = others * (generator.random(dense.shape) >= failure)
        return csr_array(heard + np.diag(1 - heard.sum(1)))

    return tuple(draw() for _ in range(rounds))


def permutations(agents: int, rounds: int, seed: int = 0) -> tuple[csr_array, ...]:
    """i.i.d. matrices C(i), each a random permutation: E[C] = J satisfies (6)-(7), yet agents never agree.

    The text says of assumption 1 that it may hold in expectation only. That is not enough: what must be below one is
    not ‖E[C] − J‖₂ but ``mean_square_rate``.

    Example:
        >>> mean = sum(permutations(4, 4000)) / 4000
        >>> bool(abs(mean.toarray() - 0.25).max() < 0.05)
        True
        >>> round(mean_square_rate(permutations(4, 100)), 6)
        1.0
    """
    generator = np.random.default_rng(seed)
    return tuple(csr_array(np.eye(agents)[generator.permutation(agents)]) for _ in range(rounds))


def mean_square_rate(draws: Sequence[csr_array]) -> float:
    """√‖E[Cᵀ(I − J)C]‖₂ over disagreements: what is left of one in the root mean square, at most, per round.

    The expectation is over ``draws``. Below one, i.i.d. combinations make agents agree.

    Example:
        >>> from gossamer.mixing import consensus_rate, metropolis_hastings, weigh
        >>> from gossamer.topologies import ring
        >>> W = weigh(ring(5), metropolis_hastings)[0]
        >>> abs(mean_square_rate([W]) - consensus_rate(W)) < 1e-9
        True
    """
    dense = np.stack([C.toarray() for C in draws])
    projection = np.eye(dense.shape[1]) - 1 / dense.shape[1]
    centred = projection @ dense @ projection
    return float(np.sqrt(np.linalg.norm(np.einsum("dij,dik->jk", centred, centred) / len(draws), 2)))


@partial(jax.jit, static_argnames=("environment", "steps", "rounds"))
def _run(
    algorithm: SiAC,
    environment: CartPoleBalance,
    tasks: Any,
    mixer: Mixer,
    steps: StepSizes,
    rounds: int,
    seed: Int[Array, ""],
) -> tuple[Array, tuple[Array, Array, Array]]:
    agents = len(jax.tree.leaves(tasks)[0])
    keys = jax.vmap(agent_key, in_axes=(None, 0, None))
    learners = jax.vmap(algorithm.init)(keys(seed, jnp.arange(agents), jnp.zeros((), jnp.int32)))
    one_agent = partial(_adapt, algorithm, environment)

    def one_round(params: Params, round: Int[Array, ""]) -> tuple[Params, tuple[Array, Array, Array]]:
        own = learners._replace(params=params)
        adapted = jax.vmap(one_agent, in_axes=(0, 0, 0, None))(
            own, tasks, keys(seed, jnp.arange(agents), round), steps.at(round)
        )
        combined = mix(mixer, adapted, round)
        return combined, (disagreement(adapted), disagreement(combined), _norm(combined))

    _, course = jax.lax.scan(one_round, learners.params, jnp.arange(1, rounds + 1))
    return disagreement(learners.params), course


def _adapt(
    algorithm: SiAC,
    environment: CartPoleBalance,
    learner: Learner,
    tasks: Any,
    key: Array,
    steps: ActorCritic,
) -> ActorCritic:
    """(46a) of one agent: what it collects by its own policy, and one plain gradient step for each network."""
    collect_key, gradient_key = jax.random.split(key)
    trajectory = collect(algorithm, Episodes(), environment, learner, (), tasks, collect_key).trajectory
    gradient, _ = algorithm.gradient(learner, trajectory, gradient_key)
    return ActorCritic(
        *(
            jax.tree.map(lambda x, g, step=step: x - step * g, params, slope)
            for params, slope, step in zip(learner.params, gradient, steps, strict=True)
        )
    )


def _norm(params: Params) -> Float[Array, ""]:
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)))
