"""Who may talk to whom: named graphs over agents, static or time-varying, as sorted arrays of edges.

Nothing here says how much a neighbour is believed (``mixing``), nor when a link is up (``schedules``).
"""

import math
import os
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array, csgraph, csr_array

from gossamer.catalogue import TOPOLOGIES
from gossamer.errors import InputError, require_at_least
from gossamer.specs import parse_spec

if TYPE_CHECKING:
    import networkx  # imported where a graph of it is made: most topologies need none

Edges = Int[np.ndarray, "_ 2"]  # (receiver, sender), one row per edge


@dataclass(frozen=True, eq=False)
class Topology:
    """Who hears whom, phase by phase: round t uses ``phases[t % period]``.

    A phase is a sorted array of (receiver, sender) pairs without self loops: every agent always hears itself,
    and that is not an edge. ``name`` includes the parameters that the graph was made with.

    Raises:
        InputError: fewer than one agent, no phase, or a phase that is unsorted, repeats a pair, has a self
            loop or names an agent that does not exist.

    Example:
        >>> topology = ring(4)
        >>> topology.phases[0].tolist()
        [[0, 1], [0, 3], [1, 0], [1, 2], [2, 1], [2, 3], [3, 0], [3, 2]]
    """

    name: str
    agents: int
    phases: tuple[Edges, ...] = field(repr=False)
    separate: bool = field(default=False, repr=False)
    """Whether agents are meant never to hear each other; any other topology must be connected."""

    def __post_init__(self):
        _check_agents(self.agents)
        if not self.phases:
            raise InputError(
                f"{self.name} has no phase; a topology has one per round of its period, at least one"
            )
        for phase, edges in enumerate(self.phases):
            _check_edges(f"{self.name}, phase {phase}", self.agents, edges)
            edges.setflags(write=False)

    @property
    def period(self) -> int:
        """Rounds after which the phases repeat; 1 for a static topology."""
        return len(self.phases)

    def in_degrees(self, phase: int = 0) -> Int[np.ndarray, " agent"]:
        """How many others each agent hears in ``phase``."""
        return np.bincount(self.phases[phase][:, 0], minlength=self.agents)

    def out_degrees(self, phase: int = 0) -> Int[np.ndarray, " agent"]:
        """How many others hear each agent in ``phase``."""
        return np.bincount(self.phases[phase][:, 1], minlength=self.agents)

    @property
    def mean_neighbourhood(self) -> float:
        """Mean of |N_k| over agents and phases, where N_k holds agent k itself (Diff-DAC, 4).

        Example:
            >>> ring(25).mean_neighbourhood
            3.0
        """
        edges = sum(len(phase) for phase in self.phases)
        return 1 + edges / (self.agents * self.period)

    @property
    def is_symmetric(self) -> bool:
        """Whether in every phase an agent hears exactly those that hear it."""
        return all(_is_symmetric(self.agents, phase) for phase in self.phases)

    @property
    def is_directed(self) -> bool:
        """Whether some agent hears one that does not hear it in the same phase."""
        return not self.is_symmetric

    @property
    def is_strongly_connected(self) -> bool:
        """Whether news of every agent reaches every other, over the union of the phases.

        Example:
            >>> one_peer_exponential(6).is_strongly_connected, isolated(6).is_strongly_connected
            (True, False)
        """
        return _components(self)[0] == 1

    def adjacency(self, phase: int = 0) -> csr_array:
        """A[i, j] = 1 where agent i hears agent j; the diagonal is empty.

        Example:
            >>> line(3).adjacency().toarray().astype(int).tolist()
            [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
        """
        return _adjacency(self.agents, self.phases[phase])

    def graph(self, phase: int = 0) -> "networkx.Graph":
        """A networkx graph of ``phase``: undirected if symmetric, else with arrows from sender to receiver.

        Example:
            >>> sorted(directed_ring(3).graph().edges)
            [(0, 1), (1, 2), (2, 0)]
        """
        import networkx as nx

        edges = self.phases[phase]
        graph = nx.Graph() if _is_symmetric(self.agents, edges) else nx.DiGraph()
        graph.add_nodes_from(range(self.agents))
        graph.add_edges_from(edges[:, ::-1].tolist())
        return graph


def require_connected(topology: Topology) -> None:
    """Refuse a topology that is not ``separate`` and in which some agent's news never reaches another.

    Raises:
        InputError: not strongly connected; the sentence names one such pair of agents.

    Example:
        >>> require_connected(from_adjacency(np.eye(3), name="three strangers"))
        Traceback (most recent call last):
        gossamer.errors.InputError: three strangers is not connected: nothing that agent 1 knows ever reaches
        agent 0; give a connected graph, or "isolated" for agents that never talk
    """
    if topology.separate:
        return
    unreached = _unreached_pair(topology)
    if unreached is not None:
        raise InputError(
            f"{topology.name} is not connected: nothing that agent {unreached[0]} knows ever reaches agent"
            f' {unreached[1]}; give a connected graph, or "isolated" for agents that never talk'
        )


def isolated(agents: int) -> Topology:
    """No edges: agents learn on their own.

    Example:
        >>> isolated(3).mean_neighbourhood
        1.0
    """
    return replace(_static("isolated", agents, np.empty((0, 2), int)), separate=True)


def ring(agents: int) -> Topology:
    """Agent i hears i - 1 and i + 1, modulo the number of agents; two agents share one edge.

    Example:
        >>> ring(5).in_degrees().tolist()
        [2, 2, 2, 2, 2]
    """
    return _static("ring", agents, _both_ways(_shifted(agents, 1)))


def directed_ring(agents: int, peers: int = 1) -> Topology:
    """Agent i hears i - 1, or i - 1 to i - ``peers``, modulo the number of agents (GALA's graph).

    Raises:
        InputError: fewer than one peer, or as many peers as agents or more.

    Example:
        >>> directed_ring(3).phases[0].tolist()
        [[0, 2], [1, 0], [2, 1]]
        >>> directed_ring(4, peers=2).in_degrees().tolist()
        [2, 2, 2, 2]
    """
    require_at_least("peers", peers, 1)
    if peers >= agents > 1:
        raise InputError(f"peers is {peers}; a ring of {agents} agents gives each at most {agents - 1} peers")
    name = "directed_ring" if peers == 1 else f"directed_ring:peers={peers}"
    return _static(name, agents, *(_shifted(agents, step) for step in range(1, peers + 1)))


def line(agents: int) -> Topology:
    """A ring cut open between the last agent and the first.

    Example:
        >>> line(4).in_degrees().tolist()
        [1, 2, 2, 1]
    """
    return _static("line", agents, _both_ways(_lattice(1, agents, wrap=False)))


def star(agents: int) -> Topology:
    """Agent 0 and every other hear each other; no others do.

    Example:
        >>> star(4).in_degrees().tolist()
        [3, 1, 1, 1]
    """
    others = np.arange(1, max(agents, 1))
    return _static("star", agents, _both_ways(np.stack([others, np.zeros_like(others)], axis=1)))


def complete(agents: int) -> Topology:
    """Everybody hears everybody.

    Example:
        >>> complete(4).mean_neighbourhood
        4.0
    """
    _check_agents(agents)
    receiver, sender = np.divmod(np.arange(agents * agents), agents)
    return _static("complete", agents, np.stack([receiver, sender], axis=1))


def grid(agents: int) -> Topology:
    """The most square rows × columns grid of ``agents``; a prime number of agents is a line.

    Example:
        >>> grid(6).in_degrees().reshape(2, 3).tolist()
        [[2, 3, 2], [2, 3, 2]]
    """
    return _static("grid", agents, _both_ways(_lattice(*_most_square(agents), wrap=False)))


def torus(agents: int) -> Topology:
    """The most square grid with its opposite sides joined; a prime number of agents is a ring.

    Example:
        >>> torus(9).in_degrees().tolist()
        [4, 4, 4, 4, 4, 4, 4, 4, 4]
    """
    return _static("torus", agents, _both_ways(_lattice(*_most_square(agents), wrap=True)))


def hypercube(agents: int) -> Topology:
    """Agents hear those whose number differs from theirs in one binary digit.

    Raises:
        InputError: ``agents`` is not a power of two.

    Example:
        >>> hypercube(6)
        Traceback (most recent call last):
        gossamer.errors.InputError: hypercube is not defined for 6 agents; the nearest numbers that work are
        4 and 8
    """
    _refuse_undefined("hypercube", agents, lambda n: n.bit_count() == 1)
    every = np.arange(agents)
    edges = [np.stack([every, every ^ (1 << k)], axis=1) for k in range(agents.bit_length() - 1)]
    return _static("hypercube", agents, *edges)


def exponential(agents: int) -> Topology:
    """Agent i hears i - 2ᵏ modulo the number of agents, for every k < ⌈log₂ agents⌉.

    Example:
        >>> exponential(8).phases[0][:3].tolist()
        [[0, 4], [0, 6], [0, 7]]
    """
    edges = [_shifted(agents, 1 << k) for k in range(_doublings(agents))]
    return _static("exponential", agents, *edges)


def one_peer_exponential(agents: int) -> Topology:
    """In round t agent i hears only i - 2ᵏ modulo the number of agents, k = t mod ⌈log₂ agents⌉.

    Where ``agents`` is a power of two, one period with weights ½, ½ gives everybody the exact mean.

    Example:
        >>> one_peer_exponential(8).period
        3
    """
    shifts = [1 << k for k in range(_doublings(agents))] or [1]
    phases = tuple(_canonical(agents, _shifted(agents, shift)) for shift in shifts)
    return Topology("one_peer_exponential", agents, phases)


def random_regular(agents: int, degree: int = 4, seed: int = 0) -> Topology:
    """A random connected graph in which every agent hears exactly ``degree`` others.

    Drawn again until connected, which from degree 3 on hardly ever takes a second draw.

    Raises:
        InputError: ``degree`` below 2, or no such graph: agents ≤ degree, or agents × degree odd.

    Example:
        >>> set(random_regular(10, degree=3, seed=1).in_degrees().tolist())
        {3}
    """
    if degree < 2:
        raise InputError(f"random_regular: degree is {degree}; it must be at least 2 to connect the agents")
    name = f"random_regular(degree={degree}, seed={seed})"
    _refuse_undefined(name, agents, lambda n: n > degree and n * degree % 2 == 0, first=degree + 1)
    _check_seed(seed)
    return _static(name, agents, _both_ways(_connected_regular_edges(agents, degree, seed)))


def erdos_renyi(agents: int, mean_neighbourhood: float = 4.2, seed: int = 0) -> Topology:
    """A random connected graph of a given mean |N_k|, the agent itself counted (Diff-DAC, 4).

    It has the number of edges nearest to agents × (mean_neighbourhood - 1) / 2: a uniformly random spanning
    tree, and the rest drawn uniformly from all other pairs. Drawing again until connected is no choice: at
    4.2 a draw of 100 agents succeeds about once in 60, one of 10,000 never. The price: among connected graphs
    of that many edges one is drawn in proportion to its number of spanning trees, not uniformly.

    Raises:
        InputError: no connected graph has that mean; the sentence gives the range for so many agents.

    Example:
        >>> erdos_renyi(25).mean_neighbourhood
        4.2
        >>> erdos_renyi(25, mean_neighbourhood=2)
        Traceback (most recent call last):
        gossamer.errors.InputError: erdos_renyi: mean_neighbourhood is 2, the agent itself counted; a
        connected graph of 25 agents allows 2.92 to 25
    """
    _check_agents(agents)
    _check_seed(seed)
    pairs = agents * (agents - 1) // 2
    wanted = agents * (mean_neighbourhood - 1) / 2
    if not (math.isfinite(wanted) and agents - 1 <= round(wanted) <= pairs):
        raise InputError(
            f"erdos_renyi: mean_neighbourhood is {mean_neighbourhood:g}, the agent itself counted; a"
            f" connected graph of {agents} agents allows {3 - 2 / agents:.4g} to {agents}"
        )
    edges = _connected_random_edges(agents, round(wanted), np.random.default_rng(seed))
    return _static(
        f"erdos_renyi(mean_neighbourhood={mean_neighbourhood:g}, seed={seed})", agents, _both_ways(edges)
    )


def small_world(agents: int, degree: int = 4, rewiring: float = 0.1, seed: int = 0) -> Topology:
    """Watts and Strogatz' graph: a ring lattice of even ``degree``, some of its edges rewired at random.

    ``rewiring`` is each edge's probability. Drawn again until connected, at most 100 times.

    Raises:
        InputError: ``degree`` odd or below 2, ``rewiring`` outside [0, 1], agents ≤ degree, or no connected
            draw.

    Example:
        >>> small_world(20).mean_neighbourhood
        5.0
    """
    import networkx as nx

    if degree < 2 or degree % 2:
        raise InputError(f"small_world: degree is {degree}; it must be even and at least 2")
    if not 0 <= rewiring <= 1:
        raise InputError(f"small_world: rewiring is {rewiring:g}; it must be a probability, in [0, 1]")
    name = f"small_world(degree={degree}, rewiring={rewiring:g}, seed={seed})"
    _refuse_undefined(name, agents, lambda n: n > degree, first=degree + 1)
    _check_seed(seed)
    try:
        graph = nx.connected_watts_strogatz_graph(
            agents, degree, rewiring, tries=100, seed=random.Random(seed)
        )
    except nx.NetworkXError as error:
        raise InputError(
            f"{name}: none of 100 draws for {agents} agents was connected;"
            " give a larger degree or less rewiring"
        ) from error
    return _static(name, agents, _both_ways(np.array(graph.edges)))


def from_graph(graph: "networkx.Graph", name: str = "graph") -> Topology:
    """A networkx graph: an edge joins both its ends, an arrow points from sender to receiver.

    Nodes numbered 0, 1, … keep their numbers, others are numbered in the graph's order. Weights are ignored.

    Raises:
        InputError: the graph has no node.

    Example:
        >>> import networkx as nx
        >>> from_graph(nx.path_graph(3)).phases[0].tolist()
        [[0, 1], [1, 0], [1, 2], [2, 1]]
    """
    numbered = set(graph.nodes) == set(range(len(graph)))
    number = {node: node if numbered else place for place, node in enumerate(graph.nodes)}
    edges = np.array([(number[receiver], number[sender]) for sender, receiver in graph.edges()], int).reshape(
        -1, 2
    )
    return _static(name, len(graph), edges if graph.is_directed() else _both_ways(edges))


def from_adjacency(adjacency: Any, name: str = "adjacency") -> Topology:
    """A square array, dense or scipy sparse: agent i hears agent j where ``adjacency[i, j]`` is not zero.

    The diagonal is ignored. This is the order of weights, ``W[i, j]``; networkx' directed ``A[u, v]`` is the
    other one.

    Raises:
        InputError: not a square matrix.

    Example:
        >>> from_adjacency([[0, 1], [0, 0]]).phases[0].tolist()
        [[0, 1]]
    """
    shape = np.shape(adjacency)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise InputError(f"{name} has shape {shape}; an adjacency matrix is square, [agent, agent]")
    entries = coo_array(adjacency)
    present = entries.data != 0
    return _static(name, shape[0], np.stack([entries.row[present], entries.col[present]], axis=1))


def read_edge_list(
    path: str | os.PathLike[str], agents: int | None = None, directed: bool = False
) -> Topology:
    """A text file with one edge a line: two agent numbers, counted from 0; ``#`` starts a comment.

    ``a b`` lets both hear each other, or, if ``directed``, lets a hear b: receiver first, as in ``phases``.
    A line ``---`` begins the next phase of a graph that changes with time; rounds have the phases in turn, and in one
    without lines there are no messages.
    Without ``agents`` there are as many as the largest number says.

    Raises:
        InputError: no such text file, a line that is not an edge (with its number and text), or no edge and
            no ``agents``.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "site.txt")
        ...     _ = path.write_text("0 1  # gate to hall")
        ...     read_edge_list(path).phases[0].tolist()
        [[0, 1], [1, 0]]
    """
    listed: list[list[tuple[int, int]]] = [[]]
    for number, text in enumerate(_lines(path), 1):
        if text.partition("#")[0].strip() == _NEXT_PHASE:
            listed.append([])
        elif (edge := _parse_edge(path, number, text, agents)) is not None:
            listed[-1].append(edge)
    if agents is None:
        if not any(listed):
            raise InputError(f"{path} holds no edge; give the number of agents, or lines such as '0 1'")
        agents = max(max(edge) for edges in listed for edge in edges) + 1
    _check_agents(agents)
    phases = [np.array(edges, int).reshape(-1, 2) for edges in listed]
    suffix = ", directed=True" if directed else ""
    return Topology(
        f"edge_list(path={path}{suffix})",
        agents,
        tuple(_canonical(agents, edges if directed else _both_ways(edges)) for edges in phases),
    )


NAMES: Mapping[str, Callable[..., Topology]] = MappingProxyType(
    {name: read_edge_list if name == "edge_list" else globals()[name] for name in TOPOLOGIES}
)


_NEXT_PHASE = "---"


def with_absolute_path(spec: str) -> str:
    """The same topology, found from any directory, if it is read from a file.

    Example:
        >>> with_absolute_path("ring")
        'ring'
    """
    file = file_of(spec)
    if file is None:
        return spec
    name, colon, rest = spec.partition(":")
    if name not in NAMES:
        return str(file.absolute())
    return name + colon + _PATH.sub(lambda found: f"{found[1]}{file.absolute()}", rest, count=1)


def file_of(spec: str) -> Path | None:
    """The file that a topology is read from, if it is one.

    Example:
        >>> file_of("edge_list:path=site.txt,directed=True")
        PosixPath('site.txt')
        >>> file_of("ring") is None
        True
    """
    name, _, rest = spec.partition(":")
    if name not in NAMES:
        return Path(spec) if os.path.isfile(spec) else None
    path = _PATH.search(rest)
    return Path(path[2]) if path and name == "edge_list" else None


_PATH = re.compile(r"((?:^|,)\s*path=)([^,]*)")


def named(spec: str, agents: int | None) -> Topology:
    """The topology that a name, a name with parameters, or the path of an edge-list file stands for.

    Args:
        spec: it.
        agents: how many; None for as many as a file says.

    Raises:
        InputError: unknown name (with the nearest ones), unknown or ill-typed parameter (with the accepted
            ones), or whatever the topology itself refuses.

    Example:
        >>> named("erdos_renyi:mean_neighbourhood=6,seed=3", agents=25)
        Topology(name='erdos_renyi(mean_neighbourhood=6, seed=3)', agents=25)
        >>> named("rong", agents=25)
        Traceback (most recent call last):
        gossamer.errors.InputError: 'rong' is not a topology, nor ...; did you mean ring? known are ...
    """
    file = file_of(spec)
    if file is not None and spec.partition(":")[0] not in NAMES:
        return read_edge_list(spec, agents)
    if file is None and agents is None:
        raise InputError(f"{spec!r} is no file that says how many agents there are; give a number")
    function, arguments = parse_spec(spec, NAMES, "topology, nor the path of an edge-list file")
    return function(agents=agents, **arguments)


def _check_agents(agents: int) -> None:
    if agents < 1:
        raise InputError(f"agents is {agents}; it must be at least 1")


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be at least 0")


def _check_edges(where: str, agents: int, edges: Edges) -> None:
    if edges.size and (edges.min() < 0 or edges.max() >= agents):
        raise InputError(f"{where} names an agent outside 0 to {agents - 1}")
    if not np.array_equal(edges, _canonical(agents, edges)):
        raise InputError(
            f"{where} must list (receiver, sender) pairs sorted, each once and without self loops"
        )


def _refuse_undefined(name: str, agents: int, works: Callable[[int], bool], first: int = 1) -> None:
    _check_agents(agents)
    if works(agents):
        return
    defined = [n for n in range(1, 2 * max(agents, first) + 1) if works(n)]
    nearest = [*[n for n in defined if n < agents][-1:], *[n for n in defined if n > agents][:1]]
    what = "number that works is" if len(nearest) == 1 else "numbers that work are"
    raise InputError(
        f"{name} is not defined for {agents} agents; the nearest {what} {' and '.join(map(str, nearest))}"
    )


def _static(name: str, agents: int, *edges: Edges) -> Topology:
    _check_agents(agents)
    together = np.concatenate(edges) if edges else np.empty((0, 2), int)
    return Topology(name, agents, (_canonical(agents, together),))


def _canonical(agents: int, edges: Edges) -> Edges:
    """Sorted by receiver, then sender; without self loops and duplicates."""
    proper = edges[edges[:, 0] != edges[:, 1]].astype(np.int64)
    return np.stack(np.divmod(np.unique(proper[:, 0] * agents + proper[:, 1]), agents), axis=1)


def _both_ways(edges: Edges) -> Edges:
    return np.concatenate([edges, edges[:, ::-1]])


def _shifted(agents: int, shift: int) -> Edges:
    _check_agents(agents)
    every = np.arange(agents)
    return np.stack([every, (every - shift) % agents], axis=1)


def _doublings(agents: int) -> int:
    """⌈log₂ agents⌉, in whole numbers."""
    _check_agents(agents)
    return (agents - 1).bit_length()


def _most_square(agents: int) -> tuple[int, int]:
    _check_agents(agents)
    rows = next(rows for rows in range(math.isqrt(agents), 0, -1) if agents % rows == 0)
    return rows, agents // rows


def _lattice(rows: int, columns: int, *, wrap: bool) -> Edges:
    cells = np.arange(max(rows * columns, 0)).reshape(rows, columns)
    below = np.stack([np.roll(cells, -1, axis=0), cells], axis=-1)
    right = np.stack([np.roll(cells, -1, axis=1), cells], axis=-1)
    if not wrap:
        below, right = below[:-1], right[:, :-1]
    return np.concatenate([below.reshape(-1, 2), right.reshape(-1, 2)])


def _connected_regular_edges(agents: int, degree: int, seed: int) -> Edges:
    if (
        degree == 2
    ):  # a connected 2-regular graph is one cycle, and a random matching is almost never connected
        cycle = np.random.default_rng(seed).permutation(agents)
        return np.stack([cycle, np.roll(cycle, 1)], axis=1)
    import networkx as nx

    generator = random.Random(seed)
    while True:
        graph = nx.random_regular_graph(degree, agents, seed=generator)
        if nx.is_connected(graph):
            return np.array(graph.edges)


def _connected_random_edges(agents: int, count: int, generator: np.random.Generator) -> Edges:
    """A random spanning tree and ``count - agents + 1`` other pairs, all numbered above the diagonal."""
    every = np.arange(agents)
    row_starts = every * (agents - 1) - every * (every - 1) // 2
    low, high = np.sort(_random_tree(agents, generator), axis=1).T
    tree = np.sort(row_starts[low] + high - low - 1)
    others = agents * (agents - 1) // 2 - len(tree)
    rank = generator.choice(others, size=count - len(tree), replace=False)
    # the r-th pair outside the tree is pair r + (how many tree pairs stand before it)
    extra = rank + np.searchsorted(tree - np.arange(len(tree)), rank, side="right")
    pair = np.concatenate([tree, extra]).astype(np.int64)
    low = np.searchsorted(row_starts, pair, side="right") - 1
    low = np.minimum(low, max(agents - 2, 0))  # the last row is empty and starts where the one before it ends
    return np.stack([low, pair - row_starts[low] + low + 1], axis=1)


def _random_tree(agents: int, generator: np.random.Generator) -> Edges:
    """Uniform over labelled trees (Aldous 1990): i joins a uniform one, or i - 1 if that is not yet there."""
    joined = np.minimum(generator.integers(agents, size=agents), np.arange(agents) - 1)[1:]
    labels = generator.permutation(agents)
    return np.stack([labels[1:], labels[joined]], axis=1)


def _adjacency(agents: int, edges: Edges) -> csr_array:
    return csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(agents, agents))


def _is_symmetric(agents: int, edges: Edges) -> bool:
    return np.array_equal(edges, _canonical(agents, edges[:, ::-1]))


def _union(topology: Topology) -> csr_array:
    return _adjacency(topology.agents, _canonical(topology.agents, np.concatenate(topology.phases)))


def _components(topology: Topology) -> tuple[int, Int[np.ndarray, " agent"]]:
    return csgraph.connected_components(_union(topology), directed=True, connection="strong")


def _unreached_pair(topology: Topology) -> tuple[int, int] | None:
    """An agent, and another that its news never reaches; one end of the pair is agent 0."""
    if _components(topology)[0] == 1:
        return None
    heard_by_0 = _reached(_union(topology))
    if len(heard_by_0) < topology.agents:
        return _first_absent(heard_by_0), 0
    return 0, _first_absent(_reached(_union(topology).T.tocsr()))


def _reached(graph: csr_array) -> Int[np.ndarray, " agent"]:
    return csgraph.breadth_first_order(graph, 0, directed=True, return_predecessors=False)


def _first_absent(present: Int[np.ndarray, " agent"]) -> int:
    present = np.sort(present)
    gap = np.flatnonzero(present != np.arange(len(present)))
    return int(gap[0]) if len(gap) else len(present)


def _lines(path: str | os.PathLike[str]) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a text file ({error}); give a readable one") from error


def _parse_edge(
    path: str | os.PathLike[str], number: int, text: str, agents: int | None
) -> tuple[int, int] | None:
    content = text.partition("#")[0].strip()
    if not content:
        return None
    match = re.fullmatch(r"(\d{1,9})\s+(\d{1,9})", content, re.ASCII)
    if match is None:
        raise InputError(
            f"{path}, line {number}: {text!r} is not an edge; a line is two agent numbers, such as '0 1'"
        )
    receiver, sender = int(match[1]), int(match[2])
    if agents is not None and max(receiver, sender) >= agents:
        raise InputError(f"{path}, line {number}: {text!r} names an agent outside 0 to {agents - 1}")
    return receiver, sender
