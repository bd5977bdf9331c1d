"""A topology in numbers and as a picture. It draws and measures; the graphs are made elsewhere."""

from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path

import networkx as nx
import numpy as np
from matplotlib.figure import Figure
from scipy.sparse import csr_array

from gossamer.analysis.pictures import check_format, save_picture
from gossamer.errors import InputError
from gossamer.mixing import (
    consensus_rate,
    is_column_stochastic,
    is_primitive,
    is_row_stochastic,
    is_strongly_connected,
    spectral_gap,
)
from gossamer.topologies import Topology

MOST_DRAWN = 500


def describe(topology: Topology, weights: Sequence[csr_array]) -> dict[str, str]:
    """What is worth knowing of a topology and its weights, by name.

    For a time-varying topology rates are those of one whole period, and what is primitive or not is its product.

    Example:
        >>> from gossamer.mixing import metropolis_hastings, weigh
        >>> from gossamer.topologies import ring
        >>> describe(ring(14), weigh(ring(14), metropolis_hastings))["consensus rate ‖W − J‖₂"]
        '0.934'
    """
    degrees = topology.in_degrees()

    def all_phases(check: Callable[[csr_array], bool]) -> str:
        return "yes" if all(check(phase) for phase in weights) else "no"

    return {
        "topology": topology.name,
        "agents": f"{topology.agents}",
        "links": f"{sum(len(phase) for phase in topology.phases)} directed, in {topology.period} phase(s)",
        "mean neighbourhood (self included)": f"{topology.mean_neighbourhood:.2f}",
        "in-degree, least to most": f"{degrees.min()} to {degrees.max()}",
        "directed": "yes" if topology.is_directed else "no",
        "strongly connected": "yes" if topology.is_strongly_connected else "no",
        "rows sum to one": all_phases(is_row_stochastic),
        "columns sum to one": all_phases(is_column_stochastic),
        "primitive": "yes" if _is_primitive(weights) else "no",
        "consensus rate ‖W − J‖₂": f"{consensus_rate(weights):.3f}",
        "spectral gap 1 − |λ₂|": f"{max(spectral_gap(weights), 0.0):.3f}",
    }


def _is_primitive(weights: Sequence[csr_array]) -> bool:
    """Whether so many periods mix everybody with everybody; the first phase is applied first.

    The product of phases may be dense. Where each keeps a share of one's own, it is enough that their union connects.
    """
    if all((phase.diagonal() > 0).all() for phase in weights):
        return is_strongly_connected(sum(weights))
    return is_primitive(reduce(lambda done, phase: phase @ done, weights))


def draw(topology: Topology, out: Path) -> Path:
    """Draw who may talk to whom; a time-varying topology with all its phases at once.

    Raises:
        InputError: more than 500 agents, or a path that cannot be written.
    """
    check_format(out)
    if topology.agents > MOST_DRAWN:
        raise InputError(
            f"{topology.agents} agents are too many for a picture; at most {MOST_DRAWN} are drawn"
        )
    phases = [topology.graph(phase) for phase in range(topology.period)]
    # A phase may happen to be symmetric among directed ones, and networkx composes one kind only.
    graph = nx.compose_all([nx.DiGraph(phase) for phase in phases] if topology.is_directed else phases)
    figure = Figure(figsize=(6, 6), dpi=150, layout="constrained")
    axis = figure.subplots()
    few = topology.agents <= 100
    nx.draw_networkx(
        graph,
        pos=_layout(topology, graph),
        ax=axis,
        node_size=260 if few else 30,
        node_color="#0072B2",
        font_color="white",
        font_size=8,
        edge_color="#999999",
        with_labels=few,
    )
    axis.set_title(f"{topology.name}, {topology.agents} agents")
    axis.set_axis_off()
    return save_picture(figure, out)


def _layout(topology: Topology, graph: nx.Graph) -> dict[int, np.ndarray]:
    """Regular graphs on a circle, the others by their own structure."""
    if len(set(topology.in_degrees())) == 1:
        return nx.circular_layout(graph)
    return nx.kamada_kawai_layout(graph)
