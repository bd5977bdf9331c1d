"""GALA's propositions 1 and 2 in batch form: from all matrices, ages and updates of a run at once.

For short records and for checking; ``gossamer.diagnostics.consensus_bound`` maintains a tighter bound of the same
events during a run and needs no parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from gossamer.errors import InputError, require_at_least
from gossamer.mixing import SUM_TOLERANCE, is_strongly_connected

Matrices = Float[np.ndarray, "iteration agent agent"]

_ROUNDOFF = 1e-9  # of an eigenvalue of modulus 1, which is simple where it matters


@dataclass(frozen=True, eq=False)
class Gossip:
    """What happened in K iterations of N agents: who combined what, how old it was, and how parameters were updated.

    In iteration k agent i adapts, x_i + αg_i, and sends that; then x_i becomes Σ_j W[k, i, j] times what j sent
    ``ages[k, i, j]`` iterations before (0: in this one). An agent that rests has αg_i = 0, one that does not combine a
    row of the identity. Before the first iteration messages hold the initial parameters.

    Args:
        weights: W(k), rows sum to one.
        ages: [iteration, agent, agent], of what is combined, in iterations; of what has weight 0 they do not matter.
        updates: αG(k), [iteration, agent, parameter], applied updates (after the optimiser).
        start: X(0), [agent, parameter].

    Raises:
        InputError: shapes that do not fit, a row that is no mean, an agent that combines an old copy of itself, or a
            negative age.

    Example:
        >>> gossip = Gossip(np.eye(2)[None], np.zeros((1, 2, 2), int), np.ones((1, 2, 3)), np.zeros((2, 3)))
        >>> gossip.delay, gossip.nodes
        (0, 2)
    """

    weights: Matrices
    ages: Int[np.ndarray, "_ _ _"]
    updates: Float[np.ndarray, "_ _ parameter"]
    start: Float[np.ndarray, "_ _"]

    def __post_init__(self) -> None:
        iterations, agents = self.weights.shape[:2]
        require_at_least("iterations", iterations, 1)
        fits = (
            self.weights.shape == self.ages.shape == (iterations, agents, agents)
            and self.updates.shape[:2] == (iterations, agents)
            and self.start.shape == self.updates.shape[1:]
        )
        if not fits:
            raise InputError(
                f"weights have shape {self.weights.shape}, ages {self.ages.shape}, updates {self.updates.shape} and the"
                f" start {self.start.shape}; they must be [k, n, n], [k, n, n], [k, n, d], [n, d]"
            )
        if (self.weights < 0).any() or (np.abs(self.weights.sum(-1) - 1) > SUM_TOLERANCE).any():
            raise InputError(
                "a row of the weights is no mean; weights must be at least 0 and sum to 1 in every row"
            )
        if (self.ages < 0).any() or np.diagonal(self.ages, axis1=1, axis2=2).any():
            raise InputError(
                "an age is negative or an agent's own is not 0; a message has an age of 0 or more"
            )

    @property
    def agents(self) -> int:
        """N."""
        return self.weights.shape[1]

    @property
    def delay(self) -> int:
        """τ, the largest age of a message that counts."""
        return int(np.where(self.weights > 0, self.ages, 0).max())

    @property
    def nodes(self) -> int:
        """ñ = N (τ + 1): node m·N + i is agent i (m = 0), or what it sent m iterations ago."""
        return self.agents * (self.delay + 1)


def augmented(gossip: Gossip) -> Float[np.ndarray, "iteration node node"]:
    """P̃(k) of (7), row-stochastic: X(k+1) = P̃(k)(X(k) + αG(k)) over agents and virtual nodes.

    There is one virtual node for each agent and step of delay. Row i has agent i's weights in the columns of the
    messages that it combines; a virtual node's has a one where the message was an iteration ago. Virtual nodes have
    G = 0.

    Example:
        >>> weights = np.array([[[0.5, 0.5], [0.0, 1.0]]])
        >>> ages = np.array([[[0, 1], [0, 0]]])
        >>> gossip = Gossip(weights, ages, np.zeros((1, 2, 1)), np.zeros((2, 1)))
        >>> augmented(gossip)[0].tolist()
        [[0.5, 0.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    """
    iterations, n = len(gossip.weights), gossip.agents
    matrices = np.zeros((iterations, gossip.nodes, gossip.nodes))
    k, i, j = np.nonzero(gossip.weights)
    matrices[k, i, gossip.ages[k, i, j] * n + j] = gossip.weights[k, i, j]
    virtual = np.arange(n, gossip.nodes)
    matrices[:, virtual, virtual - n] = 1.0
    return matrices


def replay(gossip: Gossip) -> Float[np.ndarray, "state node parameter"]:
    """X(0), …, X(K): parameters of all agents and messages, recomputed from the record by (7).

    Example:
        >>> gossip = Gossip(np.full((1, 2, 2), 0.5), np.zeros((1, 2, 2), int), np.ones((1, 2, 1)), np.zeros((2, 1)))
        >>> replay(gossip)[1].tolist()
        [[1.0], [1.0]]
    """
    states = [np.tile(gossip.start, (gossip.delay + 1, 1))]
    for matrix, update in zip(augmented(gossip), _of_nodes(gossip), strict=True):
        states.append(matrix @ (states[-1] + update))
    return np.stack(states)


def distances(gossip: Gossip) -> Float[np.ndarray, " iteration"]:
    """‖Q X(k+1)‖ = ‖X(k+1) − X̄(k+1)‖ (Frobenius) after every iteration, over agents and virtual nodes.

    No less than the distance of agents alone to their own mean.
    """
    return np.array([_spread(state) for state in replay(gossip)[1:]])


def exact_bounds(gossip: Gossip) -> Float[np.ndarray, " iteration"]:
    """Proposition 1 as its proof goes, which holds: after every iteration, no less than ``distances``.

    ‖Q X(k+1)‖ ≤ Σ_{s≤k} ‖Q P̃(k)⋯P̃(s) Qᵀ‖·‖Q αG(s)‖ + ‖Q P̃(k)⋯P̃(0) Qᵀ‖·‖Q X(0)‖,

    spectral norms of the products that there were. Q has orthonormal rows orthogonal to 1, see ``disagreement_norms``.

    Example:
        >>> gossip = random_gossip(agents=4, iterations=20, delay=1, seed=0)
        >>> bool((distances(gossip) <= exact_bounds(gossip) * (1 + 1e-12)).all())
        True
    """
    updates = np.array([_spread(update) for update in _of_nodes(gossip)])
    start = _spread(replay(gossip)[0])
    bounds = [
        norms @ updates[: len(norms)] + norms[0] * start for norms in _norms_of_products(augmented(gossip))
    ]
    return np.array(bounds)


def printed_bounds(gossip: Gossip) -> Float[np.ndarray, " iteration"]:
    """Proposition 1 as printed (9): λ^{k+1} ‖Q X(0)‖ + α Σ_s λ^{k+1−s} ‖Q G(s)‖, with λ = sup_s ‖Q P̃(k)⋯P̃(s) Qᵀ‖.

    The text's λ is the second singular value of these products, read here as their norm on disagreements: their largest
    once that of 1 is removed. Its next display is for equal initial parameters and has ‖G(s)‖, which is no less.

    Not a bound: λ stands for products of any length but is raised to their length, as though norms of longer products
    were powers of those of shorter ones.

    Example:
        >>> gossip = one_late_contraction()
        >>> [float(each(gossip)[-1].round(3)) for each in (distances, exact_bounds, printed_bounds)]
        [0.7, 0.7, 0.168]
    """
    sizes = np.array([_spread(update) for update in _of_nodes(gossip)])
    start = _spread(replay(gossip)[0])
    bounds = []
    for norms in _norms_of_products(augmented(gossip)):
        k = len(norms)
        powers = norms.max() ** np.arange(k, 0, -1.0)
        bounds.append(powers @ sizes[:k] + powers[0] * start)
    return np.array(bounds)


def disagreement_norms(matrices: Float[np.ndarray, "*batch node start"]) -> Float[np.ndarray, "*batch"]:
    """‖Q Φ Qᵀ‖₂ = ‖Π Φ Π‖₂ with Π = I − 11ᵀ/ñ: the most that each row-stochastic Φ leaves of a disagreement.

    It may exceed 1.

    Example:
        >>> disagreement_norms(np.array([[1.0, 0.0], [0.5, 0.5]]))
        array(0.5)
        >>> float(disagreement_norms(asynchronous_step()).round(2))
        1.35
    """
    # Rows of Φ sum to one, so that Π Φ 1 = 0 and the second Π changes nothing.
    centred = matrices - matrices.mean(-2, keepdims=True)
    return np.asarray(np.linalg.norm(centred, 2, axis=(-2, -1)))


def contraction_norms(gossip: Gossip, length: int) -> Float[np.ndarray, " window"]:
    """‖Q P̃(k+L−1)⋯P̃(k) Qᵀ‖ of every window of L iterations: below 1 it contracts; λ per iteration is its L-th root.

    Args:
        gossip: the record.
        length: L; of proposition 2, τ + B.

    Raises:
        InputError: L below 1 or above the number of iterations.

    Example:
        >>> gossip = random_gossip(agents=4, iterations=60, delay=1, seed=0)
        >>> bool(contraction_norms(gossip, 1).max() > 1), bool(contraction_norms(gossip, 50).max() < 1)
        (True, True)
    """
    return disagreement_norms(_products_over(gossip, length))


def are_ergodic(gossip: Gossip, length: int) -> Bool[np.ndarray, " window"]:
    """Whether the product over each window of L iterations is ergodic: its powers bring all nodes to one value.

    That is, 1 is its only eigenvalue of modulus 1, and simple. Proposition 2's proof has it for L = τ + B, and
    concludes that λ < 1. But λ is a norm: that of an ergodic product may be above 1, see ``contraction_norms``.

    Raises:
        InputError: as ``contraction_norms``.

    Example:
        >>> bool(are_ergodic(random_gossip(agents=4, iterations=60, delay=1, seed=0), 50).all())
        True
    """
    products = _products_over(gossip, length)
    # A row-stochastic matrix less J has its eigenvalues, but for 0 in place of one 1 (Brauer).
    others = np.linalg.eigvals(products - 1 / gossip.nodes)
    return np.abs(others).max(-1) < 1 - _ROUNDOFF


def strong_connectivity(weights: Matrices) -> int | None:
    """The smallest B for which the union of the graphs of any B consecutive iterations is strongly connected.

    None where even the union of all is not.

    Example:
        >>> to_0, to_1 = np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.5, 0.5]])
        >>> strong_connectivity(np.array([to_0, to_1, to_0])), strong_connectivity(np.array([to_0]))
        (2, None)
    """

    def connects(length: int) -> bool:
        starts = range(len(weights) - length + 1)
        return all(is_strongly_connected(weights[k : k + length].sum(0)) for k in starts)

    return next((length for length in range(1, len(weights) + 1) if connects(length)), None)


def random_gossip(
    agents: int, iterations: int, delay: int, seed: int, parameters: int = 3, active: float = 0.5
) -> Gossip:
    """A seeded record of asynchronous gossip on a directed ring with weights ½, as GALA's: standard normal updates.

    Args:
        agents: at least 2.
        iterations: at least 1.
        delay: messages are up to so many iterations old, uniformly; 0 or more.
        seed: of everything.
        parameters: of each agent.
        active: probability that an agent adapts and combines in an iteration.

    Raises:
        InputError: a number is too small.

    Example:
        >>> random_gossip(agents=3, iterations=10, delay=2, seed=0).delay
        2
    """
    require_at_least("agents", agents, 2)
    require_at_least("iterations", iterations, 1)
    require_at_least("delay", delay, 0)
    require_at_least("seed", seed, 0)
    generator = np.random.default_rng(seed)
    shape = (iterations, agents)
    acts = generator.random(shape) < active
    weights = np.where(acts[..., None], _ring(agents), np.eye(agents))
    ages = generator.integers(delay + 1, size=(*shape, agents)) * (1 - np.eye(agents, dtype=int))
    updates = generator.normal(size=(*shape, parameters)) * acts[..., None]
    return Gossip(weights, ages, updates, generator.normal(size=(agents, parameters)))


def one_late_contraction(iterations: int = 5, norm: float = 0.7) -> Gossip:
    """Where the printed bound fails: P = I (no messages) except in the last iteration, whose norm is given.

    Every product up to the last has that norm, so λ is that norm, and the printed bound raises it to the product's
    length. Two agents are 1 apart from the first update on, and never change again.

    Example:
        >>> contraction_norms(one_late_contraction(), 5).round(3).tolist()
        [0.7]
    """
    require_at_least("iterations", iterations, 1)
    kept = (1 + norm) / 2
    weights = np.tile(np.eye(2), (iterations, 1, 1))
    weights[-1] = [[kept, 1 - kept], [1 - kept, kept]]
    updates = np.zeros((iterations, 2, 1))
    updates[0] = [[np.sqrt(0.5)], [-np.sqrt(0.5)]]
    return Gossip(weights, np.zeros((iterations, 2, 2), int), updates, np.zeros((2, 1)))


def asynchronous_step() -> Float[np.ndarray, "node node"]:
    """P̃ of one iteration on a directed ring of 4 with delay 1: three agents combine what was sent one iteration before.

    Its norm is 1.35, and √2 if one agent alone combines: what is overwritten counted once in the disagreement, and what
    replaces it is there twice.
    """
    weights = np.where([[True], [True], [True], [False]], _ring(4), np.eye(4))[None]
    ages = (1 - np.eye(4, dtype=int))[None]
    return augmented(Gossip(weights, ages, np.zeros((1, 4, 1)), np.zeros((4, 1))))[0]


def _ring(agents: int) -> Float[np.ndarray, "agent agent"]:
    return (np.eye(agents) + np.roll(np.eye(agents), 1, axis=0)) / 2


def _of_nodes(gossip: Gossip) -> Float[np.ndarray, "iteration node parameter"]:
    """αG(k) with zeros for virtual nodes."""
    virtual = gossip.nodes - gossip.agents
    return np.pad(gossip.updates, ((0, 0), (0, virtual), (0, 0)))


def _spread(nodes: Float[np.ndarray, "node parameter"]) -> float:
    """‖Q X‖."""
    return float(np.linalg.norm(nodes - nodes.mean(0)))


def _norms_of_products(
    matrices: Float[np.ndarray, "iteration node node"],
) -> Sequence[Float[np.ndarray, " first"]]:
    """For every k, ‖Q P̃(k)⋯P̃(s) Qᵀ‖ for s = 0..k."""
    products = np.empty((0, *matrices.shape[1:]))
    norms = []
    for matrix in matrices:
        products = np.concatenate([matrix @ products, matrix[None]])
        norms.append(disagreement_norms(products))
    return norms


def _products_over(gossip: Gossip, length: int) -> Float[np.ndarray, "window node node"]:
    """P̃(k+L−1)⋯P̃(k) for every k."""
    matrices = augmented(gossip)
    require_at_least("length", length, 1)
    windows = len(matrices) - length + 1
    if windows < 1:
        raise InputError(
            f"length is {length}; it must be at most the number of iterations, here {len(matrices)}"
        )
    products = matrices[:windows]
    for step in range(1, length):
        products = matrices[step : windows + step] @ products
    return products
