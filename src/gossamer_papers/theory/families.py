"""Families of finite Markov decision processes that differ in their kernel: the tasks of Diff-DAC's section IV-A.

Values, visits and objectives are exact (linear solves in float64). Nothing here learns.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gossamer.errors import InputError, require_at_least

Policy = Float[np.ndarray, "state action"]

_SUM_TOLERANCE = 1e-9  # sums of a few float64 probabilities
_MOST_DISCOUNT = 0.95


@dataclass(frozen=True, eq=False)
class Family:
    """Tasks with the same states, actions, reward, start and discount, and a kernel each.

    ``kernels[k, s, a, t]`` is P_θk(t|s, a), ``reward[s, a, t]`` is r(s, a, t), ``start`` is μ, ``discount`` is γ. A
    single process is a family of one task.

    Raises:
        InputError: shapes that do not fit, rows that are no distribution, or a discount outside [0, 1).

    Example:
        >>> Family(np.full((1, 2, 1, 2), 0.5), np.ones((2, 1, 2)), np.array([1.0, 0.0]), discount=1.0)
        Traceback (most recent call last):
        gossamer.errors.InputError: discount is 1.0; it must be at least 0 and below 1
    """

    kernels: Float[np.ndarray, "task state action next"]
    reward: Float[np.ndarray, "_ _ _"]
    start: Float[np.ndarray, " _"]
    discount: float

    def __post_init__(self) -> None:
        tasks, states, actions, following = self.kernels.shape
        if following != states or self.reward.shape != (states, actions, states) or len(self.start) != states:
            raise InputError(
                f"kernels have shape {self.kernels.shape}, the reward {self.reward.shape} and the start"
                f" {self.start.shape}; they must be [task, state, action, state], [state, action, state], [state]"
            )
        require_at_least("tasks", tasks, 1)
        if not (is_row_stochastic(self.kernels) and is_row_stochastic(self.start)):
            raise InputError(
                "a kernel or the start is no distribution; probabilities must be at least 0 and sum to 1 over states"
            )
        if not 0 <= self.discount < 1:
            raise InputError(f"discount is {self.discount}; it must be at least 0 and below 1")

    @property
    def tasks(self) -> int:
        """N, the number of tasks."""
        return self.kernels.shape[0]

    @property
    def states(self) -> int:
        """Number of states."""
        return self.kernels.shape[1]

    @property
    def actions(self) -> int:
        """Number of actions."""
        return self.kernels.shape[2]

    @property
    def expected_reward(self) -> Float[np.ndarray, "task state action"]:
        """Σ_t P_θk(t|s, a) r(s, a, t)."""
        return np.einsum("ksat,sat->ksa", self.kernels, self.reward)

    @property
    def uniform_policy(self) -> Policy:
        """Every action alike in every state."""
        return np.full((self.states, self.actions), 1 / self.actions)


def is_row_stochastic(kernels: Float[np.ndarray, "*rows next"]) -> bool:
    """Whether the last axis holds distributions: proposition 1's property.

    Example:
        >>> is_row_stochastic(np.array([[0.5, 0.5], [0.0, 1.0]])), is_row_stochastic(np.array([0.5, 0.6]))
        (True, False)
    """
    sums = kernels.sum(-1)
    return bool((kernels >= 0).all() and (np.abs(sums - 1) <= _SUM_TOLERANCE).all())


def averaged(family: Family) -> Family:
    """The one process whose kernel is the mean of the tasks' (26): P̄ = (1/N) Σ_k P_θk.

    In it a task is drawn anew at every step, while in the family it lasts an episode: that is why corollary 1 fails.

    Example:
        >>> averaged(retrying()).kernels[0, 0, 1].tolist()
        [0.5, 0.5]
    """
    return Family(family.kernels.mean(0, keepdims=True), family.reward, family.start, family.discount)


def values(family: Family, policy: Policy) -> Float[np.ndarray, "task state"]:
    """v_θk^π(s) of every task (8), in units of the discounted return: the solution of (I − γ P_π) v = r_π.

    Example:
        >>> values(averaged(retrying()), np.array([[0.0, 1.0], [1.0, 0.0]])).round(3).tolist()
        [[0.909, 0.0]]
    """
    reward = np.einsum("ksa,sa->ks", family.expected_reward, policy)
    return np.linalg.solve(_bellman_operator(family, policy), reward[..., None])[..., 0]


def advantages(
    family: Family, value: Float[np.ndarray, "task state"]
) -> Float[np.ndarray, "task state action"]:
    """A_k(s, a) = Σ_t P_θk(t|s, a)(r(s, a, t) + γ v(t)) − v(s), (24) and (36), for a value of each task.

    Example:
        >>> family = retrying()
        >>> policy = family.uniform_policy
        >>> bool(np.allclose((advantages(family, values(family, policy)) * policy).sum(-1), 0))
        True
    """
    following = np.einsum("ksat,kt->ksa", family.kernels, value)
    return family.expected_reward + family.discount * following - value[..., None]


def visits(family: Family, policy: Policy) -> Float[np.ndarray, "task state"]:
    """ρ_γ^π(s) of every task (19): expected discounted visits of a state, 1 / (1 − γ) in total.

    Example:
        >>> visits(retrying(), np.array([[0.0, 1.0], [1.0, 0.0]])).round(6).tolist()
        [[1.0, 9.0], [10.0, 0.0]]
    """
    transposed = np.swapaxes(_bellman_operator(family, policy), -1, -2)
    start = np.broadcast_to(family.start, (family.tasks, family.states))
    return np.linalg.solve(transposed, start[..., None])[..., 0]


def occupancy(family: Family, policy: Policy) -> Float[np.ndarray, "task state action"]:
    """d(s, a) = ρ_γ^π(s) π(a|s) of every task, the discounted visits of pairs (18)."""
    return visits(family, policy)[..., None] * policy


def objective(family: Family, policy: Policy) -> float:
    """The multitask objective (3): (1/N) Σ_k J_θk(π), with J_θ(π) = μᵀ v_θ^π (9).

    Example:
        >>> family = retrying()
        >>> safe, retry = np.eye(2)[[0, 0]], np.eye(2)[[1, 0]]
        >>> [round(objective(family, policy), 3) for policy in (safe, retry)]
        [0.7, 0.5]
    """
    return float((values(family, policy) @ family.start).mean())


def value_iteration(family: Family, tolerance: float = 1e-9) -> Float[np.ndarray, "task state"]:
    """The optimal value of every task by itself, within ``tolerance``: v ← max_a Σ_t P(t|s, a)(r + γ v(t)).

    Example:
        >>> value_iteration(retrying()).round(3).tolist()
        [[1.0, 0.0], [0.7, 0.0]]
    """
    value = np.zeros((family.tasks, family.states))
    while True:
        error = advantages(family, value).max(-1)
        value = value + error
        if np.abs(error).max() * family.discount <= (1 - family.discount) * tolerance:
            return value


def random_family(seed: int, states: int = 20, actions: int = 5, tasks: int = 8) -> Family:
    """A family with random sizes from 2 up to those given.

    Kernels are Dirichlet, from nearly deterministic (concentration 0.03) to nearly uniform (3), alike for the family;
    rewards r(s, a, t) are uniform in [0, 1], the start is Dirichlet(1), the discount uniform in [0.5, 0.95].

    Raises:
        InputError: a size below 2, or a negative seed.

    Example:
        >>> family = random_family(0, states=4, actions=3, tasks=2)
        >>> family.kernels.shape
        (2, 4, 3, 4)
    """
    require_at_least("seed", seed, 0)
    for name, size in (("states", states), ("actions", actions), ("tasks", tasks)):
        require_at_least(name, size, 2)
    generator = np.random.default_rng(seed)
    tasks, states, actions = (int(generator.integers(2, size + 1)) for size in (tasks, states, actions))
    concentration = 10 ** generator.uniform(-1.5, 0.5)
    return Family(
        kernels=generator.dirichlet(np.full(states, concentration), size=(tasks, states, actions)),
        reward=generator.uniform(size=(states, actions, states)),
        start=generator.dirichlet(np.ones(states)),
        discount=float(generator.uniform(0.5, _MOST_DISCOUNT)),
    )


def retrying(safe: float = 0.7, discount: float = 0.9) -> Family:
    """The smallest counterexample to corollary 1: two tasks, and a choice between a safe end and an attempt.

    State 0 is where it starts, 1 is the end. Action 0 ends and earns ``safe``. Action 1 ends and earns 1 in the first
    task; in the second it never does. Under P̄ an attempt succeeds every other time and may be repeated, worth
    ½ / (1 − ½γ); in truth it earns 1 in one task and never anything in the other, worth ½.

    Raises:
        InputError: as ``Family``.
    """
    end, stay = [0.0, 1.0], [1.0, 0.0]
    kernels = np.array([[[end, end], [end, end]], [[end, stay], [end, end]]])
    reward = np.zeros((2, 2, 2))
    reward[0, 0, 1], reward[0, 1, 1] = safe, 1.0
    return Family(kernels, reward, np.array([1.0, 0.0]), discount)


def _bellman_operator(family: Family, policy: Policy) -> Float[np.ndarray, "task state next"]:
    """I − γ P_π."""
    under_policy = np.einsum("ksat,sa->kst", family.kernels, policy)
    return np.eye(family.states) - family.discount * under_policy
