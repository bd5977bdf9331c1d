"""Topologies: each graph against its definition, one contract for all, every refusal with its sentence."""

import math
import tracemalloc
from collections import Counter
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from gossamer import topologies
from gossamer.errors import InputError
from gossamer.topologies import (
    Topology,
    file_of,
    from_adjacency,
    from_graph,
    named,
    read_edge_list,
    require_connected,
    with_absolute_path,
)

# at which numbers of agents each is defined; a new topology joins the contract by a line here
DEFINED = {
    "isolated": lambda n: True,
    "ring": lambda n: True,
    "directed_ring": lambda n: True,
    "line": lambda n: True,
    "star": lambda n: True,
    "complete": lambda n: True,
    "grid": lambda n: True,
    "torus": lambda n: True,
    "hypercube": lambda n: n in (1, 2, 4, 8, 16, 32, 64),
    "exponential": lambda n: True,
    "one_peer_exponential": lambda n: True,
    "random_regular": lambda n: n >= 5,
    "random_regular:degree=2,seed=1": lambda n: n >= 3,
    "random_regular:degree=3": lambda n: n >= 4 and n % 2 == 0,
    "erdos_renyi": lambda n: n >= 4,
    "erdos_renyi:mean_neighbourhood=3,seed=7": lambda n: n >= 3,
    "small_world": lambda n: n >= 5,
    "small_world:degree=2,rewiring=0.05": lambda n: n >= 3,
}
DIRECTED = {"directed_ring", "exponential", "one_peer_exponential"}


def edges(topology: Topology, phase: int = 0) -> set[tuple[int, int]]:
    return {(int(receiver), int(sender)) for receiver, sender in topology.phases[phase]}


def undirected(*pairs: tuple[int, int]) -> set[tuple[int, int]]:
    return {*pairs, *((b, a) for a, b in pairs)}


# against the definitions


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        (topologies.ring(2), undirected((0, 1))),
        (topologies.ring(4), undirected((0, 1), (1, 2), (2, 3), (3, 0))),
        (topologies.directed_ring(3), {(0, 2), (1, 0), (2, 1)}),
        (topologies.line(4), undirected((0, 1), (1, 2), (2, 3))),
        (topologies.star(4), undirected((0, 1), (0, 2), (0, 3))),
        (topologies.complete(3), undirected((0, 1), (0, 2), (1, 2))),
        (topologies.grid(6), undirected((0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5))),
        (topologies.grid(5), undirected((0, 1), (1, 2), (2, 3), (3, 4))),
        (topologies.torus(6), undirected(*edges(topologies.grid(6)), (0, 2), (3, 5))),
        (topologies.hypercube(4), undirected((0, 1), (0, 2), (1, 3), (2, 3))),
        (topologies.exponential(5), {(i, (i - hop) % 5) for i in range(5) for hop in (1, 2, 4)}),
    ],
    ids=lambda value: value.name if isinstance(value, Topology) else "",
)
def test_edges_are_those_of_the_definition(topology: Topology, expected: set[tuple[int, int]]):
    assert edges(topology) == expected


@pytest.mark.parametrize("agents", [2, 6, 8, 25])
def test_one_peer_exponential_takes_its_hops_in_turn(agents: int):
    topology = topologies.one_peer_exponential(agents)
    assert topology.period == math.ceil(math.log2(agents))
    for phase in range(topology.period):
        assert edges(topology, phase) == {(i, (i - 2**phase) % agents) for i in range(agents)}


@pytest.mark.parametrize("agents", [*range(2, 33), 64, 99])
def test_grid_and_torus_agree_with_networkx(agents: int):
    rows = max(rows for rows in range(1, agents + 1) if agents % rows == 0 and rows**2 <= agents)
    for topology, periodic in ((topologies.grid(agents), False), (topologies.torus(agents), True)):
        book = nx.grid_2d_graph(rows, agents // rows, periodic=periodic)
        book.remove_edges_from(list(nx.selfloop_edges(book)))
        number = {node: node[0] * (agents // rows) + node[1] for node in book}
        assert edges(topology) == undirected(*((number[a], number[b]) for a, b in book.edges))


@pytest.mark.parametrize("degree", [2, 3, 4, 5])
def test_random_regular_degrees_are_all_equal(degree: int):
    topology = topologies.random_regular(24, degree=degree, seed=2)
    assert set(topology.in_degrees().tolist()) == {degree}


def test_small_world_without_rewiring_is_the_ring_lattice():
    expected = {(i, (i + hop) % 11) for i in range(11) for hop in (-2, -1, 1, 2)}
    assert edges(topologies.small_world(11, degree=4, rewiring=0)) == expected
    assert edges(topologies.small_world(11, degree=4, rewiring=0.5)) != expected


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(3, 99), st.floats(0, 1), st.integers(0, 1000))
def test_erdos_renyi_has_the_nearest_whole_number_of_edges(agents: int, fraction: float, seed: int):
    least, most = 3 - 2 / agents, agents
    wanted = least + fraction * (most - least)
    topology = topologies.erdos_renyi(agents, mean_neighbourhood=wanted, seed=seed)
    # an edge adds 2 / agents to the mean, so the nearest number of edges misses by at most half of that
    assert abs(topology.mean_neighbourhood - wanted) <= 1 / agents + 1e-9
    assert nx.is_connected(topology.graph())


def test_erdos_renyi_draws_graphs_in_proportion_to_their_spanning_trees():
    # 4 agents, 4 edges: 3 labelled cycles of 4 spanning trees each, 12 triangles with a tail of 3 trees each
    draws = [topologies.erdos_renyi(4, mean_neighbourhood=3, seed=seed) for seed in range(1000)]
    counts = Counter(frozenset(edges(draw)) for draw in draws)
    cycles = sum(
        count for graph, count in counts.items() if Counter(i for i, _ in graph).most_common()[0][1] == 2
    )
    assert len(counts) == 15
    assert abs(cycles / 1000 - 12 / 48) < 4 * math.sqrt(0.25 * 0.75 / 1000)  # four standard deviations


# one contract for all


@pytest.mark.parametrize("spec", DEFINED)
@pytest.mark.parametrize("agents", [1, 2, 3, 4, 5, 7, 8, 16, 25, 64, 98, 99])
def test_contract(spec: str, agents: int):
    if not DEFINED[spec](agents):
        with pytest.raises(InputError, match=r"the nearest numbers? that works? (is|are)|allows"):
            named(spec, agents)
        return
    topology = named(spec, agents)
    assert topology.agents == agents
    for phase in range(topology.period):
        check_phase(topology, phase)
    require_connected(topology)
    assert topology.is_strongly_connected == (spec != "isolated" or agents == 1)
    assert topology.is_directed == (spec in DIRECTED and agents > 2 and (spec, agents) != ("exponential", 3))
    repeated = named(spec, agents)
    assert all(map(np.array_equal, topology.phases, repeated.phases))
    assert spec.partition(":")[0] == topology.name.partition("(")[0]


def check_phase(topology: Topology, phase: int):
    pairs = [tuple(pair) for pair in topology.phases[phase].tolist()]
    assert pairs == sorted(set(pairs))
    assert all(receiver != sender for receiver, sender in pairs)
    assert topology.agents > 1 or not pairs
    degrees = Counter(receiver for receiver, _ in pairs), Counter(sender for _, sender in pairs)
    assert topology.in_degrees(phase).tolist() == [degrees[0][i] for i in range(topology.agents)]
    assert topology.out_degrees(phase).tolist() == [degrees[1][i] for i in range(topology.agents)]
    dense = np.zeros((topology.agents, topology.agents))
    for receiver, sender in pairs:
        dense[receiver, sender] = 1
    np.testing.assert_array_equal(topology.adjacency(phase).toarray(), dense)
    graph = topology.graph(phase)
    assert list(graph.nodes) == list(range(topology.agents))
    np.testing.assert_array_equal(nx.to_numpy_array(graph, nodelist=range(topology.agents)).T, dense)


def test_every_topology_is_under_contract():
    assert {spec.partition(":")[0] for spec in DEFINED} | {"edge_list"} == set(topologies.NAMES)


@pytest.mark.parametrize("name", ["random_regular", "erdos_renyi", "small_world"])
def test_seed_decides_the_graph(name: str):
    graphs = {frozenset(edges(named(f"{name}:seed={seed}", 30))) for seed in (0, 0, 1, 2)}
    assert len(graphs) == 3


def test_mean_neighbourhood_counts_the_agent_itself_and_all_phases():
    assert topologies.isolated(7).mean_neighbourhood == 1
    assert topologies.star(4).mean_neighbourhood == (4 + 2 + 2 + 2) / 4
    assert topologies.one_peer_exponential(8).mean_neighbourhood == 2


@pytest.mark.parametrize("spec", ["ring", "star", "erdos_renyi", "one_peer_exponential"])
def test_ten_thousand_agents_need_no_square_memory(spec: str):
    tracemalloc.start()
    topology = named(spec, 10_000)
    require_connected(topology)
    assert topology.is_directed == (spec in DIRECTED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25e6  # a quarter of 10,000² single bytes


# graphs from elsewhere


def test_from_graph_reads_arrows_from_sender_to_receiver():
    assert edges(from_graph(nx.DiGraph([(0, 1), (1, 2)]))) == {(1, 0), (2, 1)}


def test_from_graph_keeps_numbers_and_numbers_names():
    shuffled = nx.Graph([(1, 2), (2, 0)])
    assert edges(from_graph(shuffled)) == undirected((1, 2), (2, 0))
    assert edges(from_graph(nx.Graph([("hall", "gate"), ("gate", "yard")]))) == undirected((0, 1), (1, 2))
    assert edges(from_graph(nx.MultiGraph([(0, 1), (0, 1), (1, 1)]))) == undirected((0, 1))


@pytest.mark.parametrize("spec", DEFINED)
def test_graph_and_adjacency_lead_back(spec: str):
    topology = named(spec, 16)
    for phase, pairs in enumerate(topology.phases):
        np.testing.assert_array_equal(from_graph(topology.graph(phase)).phases[0], pairs)
        np.testing.assert_array_equal(from_adjacency(topology.adjacency(phase)).phases[0], pairs)


def test_from_adjacency_ignores_the_diagonal_and_stored_zeros():
    sparse = csr_array(([1.0, 0.0, 2.0], ([0, 0, 1], [0, 1, 0])), shape=(2, 2))
    assert edges(from_adjacency(sparse)) == {(1, 0)}
    assert edges(from_adjacency(np.array([[True, True], [False, False]]))) == {(0, 1)}


EDGE_LIST = "# three sites\n\n0 1  # gate to hall\n 1\t2 \n1 2\n"


def test_read_edge_list(tmp_path):
    path = tmp_path / "sites.txt"
    path.write_text(EDGE_LIST)
    assert edges(read_edge_list(path)) == undirected((0, 1), (1, 2))
    assert edges(read_edge_list(path, directed=True)) == {(0, 1), (1, 2)}
    assert read_edge_list(path, agents=5).agents == 5


def test_an_edge_list_may_have_phases(tmp_path):
    path = tmp_path / "matchings.txt"
    path.write_text("0 1\n2 3\n---  # then\n1 2  # and the ends rest\n---\n")
    topology = read_edge_list(path)
    assert (topology.agents, topology.period) == (4, 3)
    phases = [{tuple(edge) for edge in phase.tolist()} for phase in topology.phases]
    assert phases == [{(0, 1), (1, 0), (2, 3), (3, 2)}, {(1, 2), (2, 1)}, set()]
    assert topology.is_strongly_connected
    directed = named(f"edge_list:path={path},directed=True", 4)
    assert directed.phases[1].tolist() == [[1, 2]]


def test_files_of_topologies_are_found_from_any_directory(tmp_path, monkeypatch):
    (tmp_path / "sites.txt").write_text(EDGE_LIST)
    monkeypatch.chdir(tmp_path)
    for spec in (
        "sites.txt",
        "./sites.txt",
        "edge_list:path=sites.txt,directed=True",
        "edge_list:directed=True,path=sites.txt",
    ):
        assert file_of(spec) == Path("sites.txt")
        absolute = with_absolute_path(spec)
        assert str(tmp_path / "sites.txt") in absolute
        assert ("directed=True" in absolute) == ("directed=True" in spec)
        assert edges(named(absolute, None)) == edges(named(spec, 3))
    assert with_absolute_path("missing.txt") == "missing.txt"
    assert with_absolute_path("edge_list") == "edge_list"
    assert with_absolute_path("small_world:rewiring=0.3") == "small_world:rewiring=0.3"


def test_named_accepts_the_path_of_an_edge_list(tmp_path):
    path = tmp_path / "sites.txt"
    path.write_text(EDGE_LIST)
    for spec in (str(path), f"edge_list:path={path}"):
        assert edges(named(spec, 3)) == undirected((0, 1), (1, 2))
    directed = named(f"edge_list:path={path},directed=true", 3)
    assert edges(directed) == {(0, 1), (1, 2)}


def test_named_passes_parameters_on():
    topology = named("small_world:degree=6,rewiring=0.25,seed=3", 20)
    assert topology.name == "small_world(degree=6, rewiring=0.25, seed=3)"
    np.testing.assert_array_equal(topology.phases[0], topologies.small_world(20, 6, 0.25, 3).phases[0])


# refusals


@pytest.mark.parametrize(
    ("spec", "agents", "sentence"),
    [
        ("ring", 0, "agents is 0"),
        ("rong", 5, r"'rong' is not a topology, .*; did you mean ring\? known are isolated, .*, edge_list"),
        ("erdos-renyi", 5, r"did you mean erdos_renyi\?"),
        ("no/such/file.txt", 5, r"'no/such/file.txt' is not a topology, nor the path of an edge-list file"),
        ("ring:degree=3", 5, "'degree=3' does not fit ring"),
        ("erdos_renyi:sed=3", 5, r"'sed=3' does not fit .* takes mean_neighbourhood \(float\), seed \(int\)"),
        ("erdos_renyi:seed=x", 5, "'seed=x' does not fit erdos_renyi"),
        ("erdos_renyi:seed", 5, "'seed' does not fit erdos_renyi"),
        ("edge_list", 5, "'edge_list' lacks path"),
        ("edge_list:path=a,directed=maybe", 5, "'directed=maybe' does not fit"),
        ("edge_list:path=no/such/file.txt", 5, "no/such/file.txt cannot be read as a text file"),
        ("hypercube", 6, "hypercube is not defined for 6 agents; the nearest numbers that work are 4 and 8"),
        ("random_regular", 4, "is not defined for 4 agents; the nearest number that works is 5"),
        (
            "random_regular:degree=3",
            7,
            "is not defined for 7 agents; the nearest numbers that work are 6 and 8",
        ),
        ("random_regular:degree=1", 7, "degree is 1"),
        ("small_world", 2, "is not defined for 2 agents; the nearest number that works is 5"),
        ("small_world:degree=3", 7, "degree is 3"),
        ("small_world:rewiring=1.5", 7, "rewiring is 1.5"),
        ("small_world:rewiring=nan", 7, "rewiring is nan"),
        (
            "erdos_renyi:mean_neighbourhood=2",
            25,
            "mean_neighbourhood is 2, .* of 25 agents allows 2.92 to 25",
        ),
        ("erdos_renyi:mean_neighbourhood=26", 25, "mean_neighbourhood is 26, .* allows 2.92 to 25"),
        ("erdos_renyi:mean_neighbourhood=nan", 25, r"mean_neighbourhood is nan"),
        ("erdos_renyi:mean_neighbourhood=inf", 25, r"mean_neighbourhood is inf"),
        ("erdos_renyi:seed=-1", 25, "seed is -1"),
        ("random_regular:seed=-1", 25, "seed is -1"),
        ("small_world:seed=-1", 25, "seed is -1"),
    ],
)
def test_named_refuses(spec: str, agents: int, sentence: str):
    with pytest.raises(InputError, match=sentence):
        named(spec, agents)


def test_small_world_refuses_when_no_draw_is_connected(monkeypatch: pytest.MonkeyPatch):
    draw = nx.connected_watts_strogatz_graph
    monkeypatch.setattr(
        nx, "connected_watts_strogatz_graph", lambda *given, tries, seed: draw(*given, tries=1, seed=seed)
    )
    with pytest.raises(
        InputError, match=r"seed=0\): none of 100 draws for 500 agents was connected; give a larger"
    ):
        topologies.small_world(500, degree=2, rewiring=1)


@pytest.mark.parametrize("name", sorted(set(topologies.NAMES) - {"edge_list"}))
@pytest.mark.parametrize("agents", [0, -3])
def test_fewer_than_one_agent_is_refused(name: str, agents: int):
    with pytest.raises(InputError, match=f"^agents is {agents}; it must be at least 1$"):
        named(name, agents)


@pytest.mark.parametrize(
    ("text", "agents", "sentence"),
    [
        ("0 1\n\n1 x\n", None, "bad.txt, line 3: '1 x' is not an edge"),
        ("0 1 2", None, r"bad.txt, line 1: '0 1 2' is not an edge"),
        ("0 -1", None, r"bad.txt, line 1: '0 -1' is not an edge"),
        ("0 1\n1 3", 3, "bad.txt, line 2: '1 3' names an agent outside 0 to 2"),
        ("# nothing", None, "bad.txt holds no edge"),
    ],
)
def test_bad_edge_lists_are_refused_by_line(tmp_path, text: str, agents: int | None, sentence: str):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_edge_list(path, agents)


def test_a_binary_file_is_no_edge_list(tmp_path):
    path = tmp_path / "bad.bin"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bad.bin cannot be read as a text file"):
        read_edge_list(path)


@pytest.mark.parametrize(
    ("adjacency", "sentence"),
    [
        ([[0, 0, 0], [0, 0, 1], [0, 1, 0]], r"nothing that agent 1 knows ever reaches agent 0"),
        ([[0, 1, 0], [0, 0, 0], [1, 0, 0]], r"nothing that agent 2 knows ever reaches agent 0"),
        ([[0, 1, 1], [0, 0, 1], [0, 1, 0]], r"nothing that agent 0 knows ever reaches agent 1"),
    ],
)
def test_a_disconnected_graph_is_refused_by_an_agent(adjacency: list[list[int]], sentence: str):
    with pytest.raises(InputError, match=rf'^adjacency is not connected: {sentence}; .*"isolated"'):
        require_connected(from_adjacency(adjacency))


def test_topologies_made_by_hand_are_checked():
    good = np.array([[0, 1], [1, 0]])
    assert Topology("mine", 2, (good, good)).period == 2
    with pytest.raises(InputError, match="mine has no phase"):
        Topology("mine", 2, ())
    with pytest.raises(InputError, match="mine, phase 0 names an agent outside 0 to 0"):
        Topology("mine", 1, (good,))
    for bad in (good[::-1], np.array([[0, 0]]), good[[0, 0]]):
        with pytest.raises(InputError, match="mine, phase 1 must list"):
            Topology("mine", 2, (good, bad))
    with pytest.raises(InputError, match=r"adjacency has shape \(2, 3\)"):
        from_adjacency(np.ones((2, 3)))
    with pytest.raises(InputError, match="agents is 0"):
        from_graph(nx.Graph())


def test_phases_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        topologies.ring(3).phases[0][0, 0] = 1
