"""A bound of how far gossiping agents can be from their mean, from the events that happened: no parameters.

GALA's proposition 1 as a number that grows with a run, beside the form in which the paper prints it. It sees who
changed by how much and who combined which messages; what it certifies is measured elsewhere.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from gossamer.errors import InputError, require_at_least, require_non_negative, require_within

Heard: TypeAlias = tuple[int, int, float]  # sender, version of its message, weight

_ROUNDOFF = 2.0**-24  # of float32, relative
_MEASURED = 1e-5  # relative error of a distance in float32: millions of squares, added up in blocks
_SUM_TOLERANCE = 1e-6  # weights are computed in float32
_VACUOUS = 0.01
_CONTRACTED = 0.5


class Verdict(NamedTuple):
    """A measured distance and what was certified of it, all in the unit of the consensus distance."""

    distance: float
    bound: float
    printed: float
    slack: float

    @property
    def ratio(self) -> float:
        """Distance over bound: 1 is tight, ``nan`` before any agent has moved, when both are 0."""
        return self.distance / self.bound if self.bound else math.nan

    @property
    def holds(self) -> bool:
        """Whether the distance is within the bound, but for rounding."""
        return holds(self.distance, self.bound, self.slack)


def holds(distance: float, bound: float, slack: float = 0.0) -> bool:
    """Whether a distance, measured from float32 parameters, is within its bound. One that is NaN is not.

    Args:
        distance: measured.
        bound: certified.
        slack: what rounding of parameters may add to the distance, see ``ConsensusBound.rounding``.

    Example:
        >>> holds(1.0, 1.0), holds(1.001, 1.0), holds(1.001, 1.0, slack=0.01), holds(float("nan"), 1.0)
        (True, False, True, False)
    """
    return bool(distance <= bound * (1 + _MEASURED) + slack)


def is_vacuous(ratios: Iterable[float]) -> bool:
    """Whether a bound says little: the median of distance over bound is below 0.01, or none is known.

    Example:
        >>> is_vacuous([0.3, 0.002, float("nan"), 0.4]), is_vacuous([0.3, 0.002, 0.004])
        (False, True)
    """
    known = [ratio for ratio in ratios if not math.isnan(ratio)]
    return not known or float(np.median(known)) < _VACUOUS


class ConsensusBound:
    """An upper bound of the distance of N agents to their mean, kept up to date event by event.

    GALA, appendix B, on the delay-augmented graph: nodes are the agents and the messages that may still be used. With
    P̃(k) the row-stochastic matrix of event k, e_i a unit vector, S the selection of agents and Π = I − J over them,

        Π S X(k+1) = Σ_s Π S P̃(k)⋯P̃(s) e_i(s) αg(s)ᵀ + Π S P̃(k)⋯P̃(0) X(0),    and therefore
        ‖Π S X(k+1)‖ ≤ Σ_s ‖Π S P̃(k)⋯P̃(s) e_i(s)‖·‖αg(s)‖ + ‖Π S P̃(k)⋯P̃(0) Π‖·‖Π X(0)‖,

    as only one agent i(s) adapts at a time: G has one row that is not zero. That is never more than the sum of
    ‖Q P̃(k)⋯P̃(s) Qᵀ‖·‖Q αG(s)‖, in which a norm of the whole product stands for its one column, and a single update
    meets it with equality, however it spreads. All distances are root mean squares over agents, ‖·‖ / √N: the unit
    of the consensus distance.

    Up to ``terms`` of the sum are kept, as the share of an update in every node. When there are as many, each other
    one of the older half joins a neighbour of the same agent, whose share u stands for its share v from then on. What
    that leaves out is max_ij |r_i − r_j| of r = v − u. Half of it bounds a root mean square, and the product Φ of all
    later events lets at most τ(Φ) = ½ max_ij Σ_l |Φ_il − Φ_jl| ≤ 1 of it pass (Dobrushin's coefficient; the spectral
    norm of one asynchronous step may exceed 1, and products of such norms would grow without messages).

    Events are told in the order of one clock; nothing here locks. A distance belongs to the bound of the same moment.
    A message may be used while it is among its sender's ``kept`` newest, or the last one that some agent was said to
    have ``received`` from that sender: an inbox in which the newest wins may hold it for as long as a link is down.

    Args:
        agents: N.
        initial_distance: root mean square distance of the initial parameters to their mean; 0 if they are shared.
        kept: messages of each agent.
        terms: of the sum that are kept, at least 4N + 4; memory is ``terms`` numbers for each agent and message.

    Raises:
        InputError: a number is too small, or the distance is negative.

    Example:
        >>> bound = ConsensusBound(agents=2)
        >>> bound.adapted(0, version=1, change=1.0)
        >>> bound.bound()
        0.5
        >>> bound.combined(1, own=0.5, heard=[(0, 1, 0.5)])
        >>> bound.bound()
        0.25
        >>> bound.verdict(distance=0.25).ratio
        1.0
    """

    def __init__(self, agents: int, initial_distance: float = 0.0, kept: int = 4, terms: int = 4096):
        require_at_least("agents", agents, 1)
        require_non_negative("initial_distance", initial_distance)
        require_at_least("kept", kept, 1)
        require_at_least("terms", terms, 4 * agents + 4)
        self.agents = agents
        self._messages = _Messages(agents, kept)
        self._products = _Products(agents, agents * (1 + kept), terms)
        self._initial_distance = initial_distance
        # Of each term: the size of its changes, and how many they are, which counts the roundings that remain.
        self._sizes = np.zeros((2, terms))
        self._agent_of = np.zeros(terms, int)
        # What merging left out, before and after the product Φ began.
        self._left_out_before = np.zeros(2)
        self._left_out_since = np.zeros(2)
        self._updates = 0
        self._window_start = 0
        self._contraction_rate = math.nan
        self._contraction_time = 0
        self._printed = initial_distance * math.sqrt(agents)
        self._most_heard = 0
        self._longest_delay = 0

    def adapted(self, agent: int, version: int, change: float) -> None:
        """An agent's parameters changed by an update; it then broadcasts them.

        Args:
            agent: who.
            version: number of the message: larger than those it sent before.
            change: Euclidean norm of what was added to its parameters (‖αg‖: after the optimiser).

        Raises:
            InputError: no such agent, a version that is not new, or a change that is negative or not finite.
        """
        self._require_agent(agent)
        require_non_negative("change", change)
        self._messages.require_new(agent, version)
        if self._updates % self.agents == 0:
            self._close_window_if_contracted()
        if self._products.is_full:
            self._merge_terms()
        term = self._products.add_update(agent)
        self._sizes[:, term] = change, 1
        self._agent_of[term] = agent
        self._updates += 1
        self._printed = self._printed_rate * (self._printed + change)
        self._products.copy(agent, to=self._messages.post(agent, version, self._updates))

    def combined(self, agent: int, own: float, heard: Sequence[Heard]) -> None:
        """An agent's parameters became ``own`` times themselves and messages times their weights, added up.

        Args:
            agent: who.
            own: W[i, i].
            heard: sender, version and weight of each message.

        Raises:
            InputError: weights are negative or do not sum to one, or a message is not held (any more); nothing has
                happened then.
        """
        self._require_agent(agent)
        nodes = [agent, *(self._messages.node_of(sender, version) for sender, version, _ in heard)]
        weights = np.array([own, *(weight for _, _, weight in heard)], dtype=float)
        total = weights.sum()
        if not (weights.min() >= 0 and abs(total - 1) <= _SUM_TOLERANCE):
            raise InputError(
                f"agent {agent} combines with weights {weights.tolist()}; they must be at least 0 and sum to 1"
            )
        # What float32 left to one is rounding and no drift.
        self._products.combine(agent, nodes, weights / total)
        self._most_heard = max(self._most_heard, len(heard))
        sent = [self._messages.sent_at(node) for node in nodes[1:]]
        self._longest_delay = max([self._longest_delay, *(self._updates - at for at in sent)])

    def joined(self, agent: int, sender: int, version: int) -> None:
        """An agent took over a message as its own parameters.

        Raises:
            InputError: as ``combined``.
        """
        self.combined(agent, own=0.0, heard=[(sender, version, 1.0)])

    def received(self, receiver: int, sender: int, version: int) -> None:
        """A message came to an inbox, where it may be used until another one comes from the same sender.

        Needed only where a message may be used after its sender has sent ``kept`` newer ones.

        Raises:
            InputError: no such agent, or the message is not held any more.
        """
        self._require_agent(receiver)
        self._messages.hold(receiver, sender, version)

    def bound(self) -> float:
        """What √(1/N Σ_i ‖x_i − x̄‖²), the root mean square distance of the agents to their mean, cannot exceed."""
        remaining = self._products.remaining_of_start() if self._initial_distance else 0.0
        return float(self._sum()[0]) + remaining * self._initial_distance

    def printed(self) -> float:
        """Proposition 1 as printed, α Σ_s λ^(k+1−s) ‖G(s)‖ / √N: not a bound.

        The text defines λ as a supremum of norms of products of any length, single steps included, and uses it as a
        factor for each step, below one. But a step that leaves two nodes alone has norm 1 at least, and where all
        norms are below one, those of longer products need not be powers of those of shorter ones. What stands for λ
        here is ``contraction_rate`` so far, at most 1, and 1 until it is known.
        """
        return self._printed / math.sqrt(self.agents)

    def contraction_rate(self) -> float:
        """What an update leaves of a disagreement, at most: the largest ‖Π S P̃(k+L−1)⋯P̃(k) Qᵀ‖^(1/L) seen.

        Proposition 2 has products over L = τ + B updates contract. That many make them ergodic, whose norm may still
        be 1 or more: news takes many times B updates around a ring. Here windows follow upon each other, each
        as long as it takes: it ends with the first N updates after which agents keep at most half of any
        disagreement among agents and messages. Where a link is down for long, that window is long. ``nan`` until
        one is over, and for ever where agents do not contract.
        """
        return self._contraction_rate

    @property
    def contraction_time(self) -> int:
        """Updates, of any agent, of the longest of these windows; of the one that is not over if that is longer."""
        return max(self._contraction_time, self._updates - self._window_start)

    @property
    def longest_delay(self) -> int:
        """Most updates, of any agent, between sending a message and combining it: τ of proposition 2."""
        return self._longest_delay

    def rounding(self, norm: float) -> float:
        """What rounding to float32 may add to a measured distance.

        An update that hears d messages rounds at most d + 3 times, by a unit roundoff of the parameters each: when it
        adds its change, in d + 1 products together, in d sums, and in its weights. That spreads and contracts
        as changes do. The mean of N agents rounds N times more, its differences twice.

        Args:
            norm: largest Euclidean norm of an agent's parameters.
        """
        remaining = (self._most_heard + 3) * (float(self._sum()[1]) + 1)
        return _ROUNDOFF * norm * (remaining + self.agents + 2)

    def verdict(self, distance: float, norm: float = 0.0) -> Verdict:
        """What is certified of a distance that was measured now.

        Args:
            distance: root mean square, as ``bound``.
            norm: largest Euclidean norm of an agent's parameters, for the slack; 0 for exact arithmetic.
        """
        return Verdict(distance, self.bound(), self.printed(), self.rounding(norm))

    @property
    def _printed_rate(self) -> float:
        return float(np.fmin(self._contraction_rate, 1.0))

    def _sum(self) -> Float[np.ndarray, " two"]:
        """Σ_s of share times size, for both kinds of sizes."""
        shares = self._products.shares_of_agents()
        total = self._sizes[:, : len(shares)] @ shares + 0.5 * self._left_out_since
        if not self._left_out_before.any():
            return total
        return total + 0.5 * self._products.dobrushin(range(self.agents)) * self._left_out_before

    def _merge_terms(self) -> None:
        """Half as many terms of the older half."""
        kept, dropped = self._pairs()
        nodes = self._messages.nodes()
        self._left_out_since += self._sizes[:, dropped] @ self._products.ranges_between(nodes, kept, dropped)
        self._sizes[:, kept] += self._sizes[:, dropped]
        remaining = np.delete(np.arange(len(self._agent_of)), dropped)
        self._sizes[:, : len(remaining)] = self._sizes[:, remaining]
        self._agent_of[: len(remaining)] = self._agent_of[remaining]
        self._products.select_updates(remaining)
        self._restart_product_if_contracted(nodes)

    def _pairs(self) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
        """Neighbours in time of the same agent, in the older half, the larger one first.

        There is one at least: of the 2N + 2 terms or more, put in order of agents and taken two by two, N − 1 pairs
        at most have two agents.
        """
        half = len(self._agent_of) // 4 * 2
        order = np.argsort(self._agent_of[:half], kind="stable").reshape(-1, 2)
        pairs = order[np.diff(self._agent_of[order]).ravel() == 0]
        larger = np.argmax(self._sizes[0, pairs], axis=1)
        rows = np.arange(len(pairs))
        return pairs[rows, larger], pairs[rows, 1 - larger]

    def _restart_product_if_contracted(self, nodes: list[int]) -> None:
        remaining = self._products.dobrushin(nodes)
        if remaining <= _CONTRACTED:
            self._left_out_before = remaining * self._left_out_before + self._left_out_since
            self._left_out_since = np.zeros(2)
            self._products.restart(nodes)

    def _close_window_if_contracted(self) -> None:
        length = self._updates - self._window_start
        norm = self._products.remaining_of_window()
        if norm > _CONTRACTED or not length:
            return
        self._contraction_rate = float(np.fmax(self._contraction_rate, norm ** (1 / length)))
        self._contraction_time = max(self._contraction_time, length)
        self._window_start = self._updates
        self._products.restart_window(self._messages.nodes())

    def _require_agent(self, agent: int) -> None:
        require_within("agent", agent, 0, self.agents - 1)


class _Messages:
    """Which node holds which message; nodes 0..N−1 are the agents, the others are used again and again."""

    def __init__(self, agents: int, kept: int):
        self._agents = agents
        self._kept = kept
        self._versions: list[deque[int]] = [deque() for _ in range(agents)]
        self._node: dict[tuple[int, int], int] = {}
        self._sent_at: dict[int, int] = {}
        self._inbox: dict[tuple[int, int], int] = {}
        self._holders: Counter[tuple[int, int]] = Counter()
        self._free: list[int] = []

    def nodes(self) -> list[int]:
        return [*range(self._agents), *self._node.values()]

    def require_new(self, sender: int, version: int) -> None:
        versions = self._versions[sender]
        if versions and version <= versions[-1]:
            raise InputError(
                f"agent {sender} sent version {version} after {versions[-1]}; it must be larger than those before"
            )

    def post(self, sender: int, version: int, time: int) -> int:
        versions = self._versions[sender]
        versions.append(version)
        if len(versions) > self._kept:
            self._drop_unless_needed(sender, versions.popleft())
        node = self._free.pop() if self._free else self._agents + len(self._node)
        self._node[sender, version] = node
        self._sent_at[node] = time
        return node

    def node_of(self, sender: int, version: int) -> int:
        node = self._node.get((sender, version))
        if node is None:
            raise InputError(
                f"message {version} of agent {sender} is not held; it must have been sent, and be among the "
                f"{self._kept} newest of its sender or the last that somebody received from it"
            )
        return node

    def sent_at(self, node: int) -> int:
        return self._sent_at[node]

    def hold(self, receiver: int, sender: int, version: int) -> None:
        self.node_of(sender, version)
        before = self._inbox.get((receiver, sender))
        self._inbox[receiver, sender] = version
        self._holders[sender, version] += 1
        if before is not None:
            self._holders[sender, before] -= 1
            self._drop_unless_needed(sender, before)

    def _drop_unless_needed(self, sender: int, version: int) -> None:
        if self._holders[sender, version] > 0:
            return
        del self._holders[sender, version]
        if version not in self._versions[sender]:
            self._free.append(self._node.pop((sender, version)))


class _Products:
    """Products of the matrices of all events since four kinds of moments; a row for each node.

    An event changes one row of P̃(k)⋯P̃(s), for all s alike: that of the node that changes. Columns are the updates, or
    the nodes that there were when the product began.
    """

    def __init__(self, agents: int, nodes: int, terms: int):
        self._agents = agents
        self._count = 0
        self._of_update = np.zeros((nodes, terms))
        self._since_start = np.eye(nodes, agents)
        self._since_merge = np.eye(nodes, agents)
        self._since_window = np.eye(nodes, agents)

    @property
    def is_full(self) -> bool:
        return self._count == self._of_update.shape[1]

    def add_update(self, agent: int) -> int:
        """A column that says: this update is wholly in one agent."""
        column = self._count
        self._of_update[:, column] = 0.0
        self._of_update[agent, column] = 1.0
        self._count += 1
        return column

    def copy(self, node: int, to: int) -> None:
        if to >= len(self._of_update):
            self._grow()
        for table in self._tables():
            table[to] = table[node]

    def combine(self, agent: int, nodes: list[int], weights: Float[np.ndarray, " node"]) -> None:
        for table in self._tables():
            table[agent] = weights @ table[nodes]

    def shares_of_agents(self) -> Float[np.ndarray, " update"]:
        """‖Π S P̃(k)⋯P̃(s) e_i(s)‖ / √N for each update s."""
        return self._of_update[: self._agents, : self._count].std(axis=0)

    def ranges_between(
        self, nodes: list[int], some: Int[np.ndarray, " pair"], others: Int[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " pair"]:
        """How much more the shares of two updates differ in some node than in another."""
        shares = self._of_update[nodes]
        return np.ptp(shares[:, some] - shares[:, others], axis=0)

    def select_updates(self, columns: Int[np.ndarray, " update"]) -> None:
        self._of_update[:, : len(columns)] = self._of_update[:, columns]
        self._count = len(columns)

    def remaining_of_start(self) -> float:
        return _disagreement_norm(self._since_start[: self._agents])

    def dobrushin(self, nodes: Sequence[int]) -> float:
        return _dobrushin(self._since_merge[nodes])

    def restart(self, nodes: list[int]) -> None:
        self._since_merge = self._identity(nodes)

    def remaining_of_window(self) -> float:
        return _disagreement_norm(self._since_window[: self._agents])

    def restart_window(self, nodes: list[int]) -> None:
        self._since_window = self._identity(nodes)

    def _tables(self) -> list[Float[np.ndarray, "node _"]]:
        return [self._of_update[:, : self._count], self._since_start, self._since_merge, self._since_window]

    def _identity(self, nodes: list[int]) -> Float[np.ndarray, "node _"]:
        matrix = np.zeros((len(self._of_update), len(nodes)))
        matrix[nodes, range(len(nodes))] = 1.0
        return matrix

    def _grow(self) -> None:
        def doubled(table: np.ndarray) -> np.ndarray:
            return np.concatenate([table, np.zeros_like(table)])

        self._of_update = doubled(self._of_update)
        self._since_start = doubled(self._since_start)
        self._since_merge = doubled(self._since_merge)
        self._since_window = doubled(self._since_window)


def _disagreement_norm(product: Float[np.ndarray, "node start"]) -> float:
    """‖Q Φ Qᵀ‖₂ = ‖Π Φ Π‖₂, the most that a product leaves of a disagreement."""
    centred = product - product.mean(axis=0)
    return float(np.linalg.norm(centred - centred.mean(axis=1, keepdims=True), 2))


def _dobrushin(product: Float[np.ndarray, "node start"]) -> float:
    """½ max_ij Σ_l |Φ_il − Φ_jl|, row by row: all pairs at once would need the cube of the nodes."""
    return 0.5 * max(float(np.abs(product - row).sum(axis=1).max()) for row in product)
