import json

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.sparse import csr_array

from gossamer import plot, train
from gossamer.analysis import bootstrap_interval, read_curve
from gossamer.analysis.graphs import describe, draw
from gossamer.analysis.pictures import colours, shades, styles
from gossamer.errors import InputError
from gossamer.runtimes.build import weigh_by
from gossamer.topologies import NAMES, named
from small import small_experiment


def fake_run(folder, returns, agents=25, topology="ring", seeds=1):
    """A run folder as records leave it, with given returns and 10 steps a round."""
    experiment = {
        "agents": agents,
        "tasks": 25,
        "topology": topology,
        "seed": 9,
        "seeds": seeds,
        "algorithm": {"class": "gossamer.algorithms.siac:SiAC"},
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"experiment": experiment}))
    rows = [
        {
            "round": i + 1,
            "env_steps": 10 * (i + 1),
            "episodic_return": value,
            "consensus_distance": 1.0 / (i + 1),
        }
        for i, value in enumerate(returns)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(("lines", "window"), [(10, 1), (50, 2), (200, 10)])
def test_a_curve_is_the_mean_of_the_last_twentieth_of_its_lines(tmp_path, lines, window):
    returns = np.random.default_rng(0).normal(size=lines)
    curve = read_curve(fake_run(tmp_path / "run", returns.tolist()), "rounds")
    expected = [returns[max(0, i - window + 1) : i + 1].mean() for i in range(lines)]
    # sums of up to 200 numbers of size one are subtracted
    np.testing.assert_allclose(curve.episodic_return[0], expected, rtol=1e-9, atol=1e-12)
    assert curve.x.tolist() == list(range(1, lines + 1))
    np.testing.assert_allclose(curve.consensus_distance[0], 1 / curve.x)


def test_seeds_share_a_grid_that_none_exceeds(tmp_path):
    run = tmp_path / "run"
    fake_run(run, [0.0], seeds=2)
    fake_run(run / "seed-9", [1.0] * 30)
    fake_run(run / "seed-10", [3.0] * 20)
    curve = read_curve(run)
    assert curve.episodic_return.mean(1).tolist() == [1.0, 3.0]
    assert (curve.x[0], curve.x[-1]) == (10, 200)


@pytest.mark.parametrize(
    ("agents", "topology", "label"),
    [
        (25, "ring", "Diff-SiAC (25 agents, ring)"),
        (25, "erdos_renyi:mean_neighbourhood=4.2", "Diff-SiAC (25 agents, erdos renyi)"),
        (1, "isolated", "centralised SiAC (1 agent, 25 tasks)"),
        (25, "isolated", "isolated SiAC (25 agents)"),
    ],
)
def test_labels_come_from_the_configuration(tmp_path, agents, topology, label):
    assert read_curve(fake_run(tmp_path / "run", [1.0, 2.0], agents, topology)).label == label


def test_plot_writes_a_picture_that_is_not_blank(tmp_path):
    runs = [fake_run(tmp_path / "a", [1.0, 2.0, 3.0]), fake_run(tmp_path / "b", [2.0, 1.0], 1, "isolated")]
    picture = imread(plot(runs, tmp_path / "figures" / "curves.png", title="a title"))
    assert picture.shape[0] > 300
    assert picture.std() > 0.01


def test_plot_of_a_real_run(tmp_path):
    run = train(small_experiment(rounds=3, seeds=2), tmp_path / "run")
    assert plot([run], tmp_path / "curves.svg").stat().st_size > 1000


def test_plot_refuses(tmp_path):
    run = fake_run(tmp_path / "a", [1.0, 2.0])
    with pytest.raises(InputError, match="2 labels were given for 1 runs"):
        plot([run], tmp_path / "x.png", labels=["a", "b"])
    with pytest.raises(InputError, match="no run was given"):
        plot([], tmp_path / "x.png")
    with pytest.raises(
        InputError, match=r"x\.nonsense is no path of a picture; its ending must be one of \.png"
    ):
        plot([run], tmp_path / "x.nonsense")
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="has not finished a round yet"):
        plot([run], tmp_path / "x.png")


def test_bootstrap_covers_a_known_mean():
    """Of 200 samples of ten normal values, the 95 % interval of the mean holds zero about as often as it says."""
    values = np.random.default_rng(1).normal(size=(10, 200))
    low, high = bootstrap_interval(values)
    # the percentile bootstrap is somewhat narrow at ten values: about 0.90; three standard errors of 200 draws
    assert 0.83 <= np.mean((low <= 0) & (high >= 0)) <= 0.97


def test_bootstrap_of_five_seeds_is_too_narrow():
    """Why verdicts are not judged by it: normal values, 4,000 samples, a share known to 0.006."""
    low, high = bootstrap_interval(np.random.default_rng(1).normal(size=(5, 4000)))
    assert np.mean((low <= 0) & (high >= 0)) < 0.9


def test_bootstrap_of_one_seed_is_its_value():
    low, high = bootstrap_interval(np.array([[1.0, 2.0]]))
    assert low.tolist() == high.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "edge_list"])
def test_every_topology_is_described_and_drawn(name, tmp_path):
    topology = named(name, 16)
    weights = weigh_by("metropolis_hastings", topology)
    facts = describe(topology, weights)
    assert facts["rows sum to one"] == facts["columns sum to one"] == "yes"
    assert facts["strongly connected"] == ("no" if name == "isolated" else "yes")
    assert draw(topology, tmp_path / "topology.png").stat().st_size > 1000


def test_of_a_changing_graph_the_whole_period_is_primitive_or_not():
    """No phase connects six agents, a period does; two matchings that never meet do not."""
    topology = named("one_peer_exponential", 6)
    assert describe(topology, weigh_by("uniform", topology))["primitive"] == "yes"
    pairs = csr_array(np.kron(np.eye(3), np.full((2, 2), 0.5)))
    assert describe(topology, [pairs, pairs])["primitive"] == "no"
    swing = csr_array(np.roll(np.eye(6), 1, axis=1))  # everybody takes the neighbour's
    assert describe(topology, [swing])["primitive"] == "no"


def test_equal_labels_are_told_apart(tmp_path):
    runs = [fake_run(tmp_path / name, [1.0, 2.0]) for name in ("first", "second")]
    picture = plot(runs, tmp_path / "curves.svg").read_text()
    assert "<!-- Diff-SiAC (25 agents, ring), first -->" in picture
    assert "<!-- Diff-SiAC (25 agents, ring), second -->" in picture
    assert "#0072b2" in picture
    assert "stroke-dasharray" in picture


def test_a_picture_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"x\.png cannot be written"):
        plot([fake_run(tmp_path / "a", [1.0, 2.0])], tmp_path / "file" / "x.png")


@pytest.mark.parametrize("config", [{}, {"experiment": 3}, {"experiment": {"agents": 1}}])
def test_a_configuration_without_an_experiment_is_refused(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json describes no experiment"):
        read_curve(tmp_path)


def test_too_many_agents_for_a_picture(tmp_path):
    with pytest.raises(InputError, match="501 agents are too many for a picture"):
        draw(named("ring", 501), tmp_path / "x.png")


def test_the_bootstrap_interval_has_the_level_asked_for():
    values = np.random.default_rng(0).normal(size=(400, 1))
    error = values.std() / 20
    for level, deviations in ((0.95, 1.96), (0.5, 0.674)):
        low, high = bootstrap_interval(values, level)
        # 2,000 resamples know a quantile of a normal to about 5 % of its deviation
        np.testing.assert_allclose((high - low)[0] / 2 / error, deviations, rtol=0.08)


def test_a_kind_of_training_has_one_colour_in_every_picture():
    both = colours(["diffusion", "centralised"])
    assert len(set(both)) == 2
    assert colours(["centralised"]) == both[1:]
    assert len(set(colours(["diffusion", "isolated", "one", "another"]))) == 4


def test_variants_of_a_kind_share_its_colour_and_differ_in_their_lines():
    first, second, other = styles(["diffusion", "diffusion", "centralised"])
    assert first.colour == second.colour != other.colour
    assert first.line == other.line != second.line
    many = styles(["diffusion"] * 8)
    assert len(set(many)) == 8  # more than there are lines: the next ones are lighter
    assert len(set(shades("diffusion", 5))) == 5
    assert shades("diffusion", 5)[-1] == first.colour
