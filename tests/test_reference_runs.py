"""Short runs recorded at an earlier revision: the same seeds still give the same numbers, and its folders still work.

``data/make_reference_runs.py`` made them. Experiments are read from the recorded config.json, so nothing here depends
on how an experiment is written today.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from gossamer.analysis.curves import plot
from gossamer.evaluation.evaluate import evaluate
from gossamer.network.launcher import launch
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import read_config, read_metrics
from gossamer.runs.restore import restore_population, run_folders
from gossamer.train import resume, train

pytestmark = pytest.mark.usefixtures("optimised")
DATA = Path(__file__).parent / "data" / "bf475a9"
RUNS = sorted(path.parent.name for path in DATA.glob("*/metrics.json"))
FOLDERS = sorted(path.parent.name for path in DATA.glob("*/run"))


def slow_except(everyday, names):
    """Each name compiles programs of its own, for some seconds."""
    return [pytest.param(name, marks=[] if name in everyday else [pytest.mark.slow]) for name in names]


@pytest.mark.parametrize("name", slow_except({}, RUNS))
def test_the_same_seed_gives_the_recorded_numbers(name, tmp_path):
    experiment = load_experiment(DATA / name)
    start = launch if experiment.runtime == "network" else train
    run = start(experiment, tmp_path / "run")
    assert_as_recorded(run, name)


@pytest.mark.parametrize("name", slow_except({"siac"}, FOLDERS))
def test_an_old_folder_evaluates_and_resumes(name, tmp_path):
    run = shutil.copytree(DATA / name / "run", tmp_path / "run")
    assert np.isfinite(evaluate(run, episodes=1).all).all()
    resume(run, rounds=6)
    if read_config(run)["resume"] == "exact":
        assert_as_recorded(run, name)
    else:  # its simulators start new episodes
        assert [row["round"] for row in read_metrics(run / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_old_folders_are_plotted(tmp_path):
    runs = [shutil.copytree(DATA / name / "run", tmp_path / name) for name in FOLDERS]
    assert plot(runs, tmp_path / "curves.png").stat().st_size > 10_000


def assert_as_recorded(run, name):
    """Compare metrics and parameters up to rounding: XLA fuses and sums in another order once a program changes.

    Between AVX-512 and AVX2, and between a fused and a separate environment step, parameters differed by at most 6e-8
    and metrics by 1.1e-7 of their values; the tolerances leave a margin of ten or more for other processors.

    PoWER weights episodes by exponentials of their returns, which multiplies rounding by about five from each round to
    the next (3.7e-7 of a value in the first, 1.9e-3 in the sixth): of it the first two rounds are compared.
    """
    rows = [steady(read_metrics(each / "metrics.jsonl"), name) for each in run_folders(run)]
    metrics = [steady(each, name) for each in json.loads((DATA / name / "metrics.json").read_text())]
    assert jax.tree.structure(rows) == jax.tree.structure(metrics)
    if name == "dist-mtps-power":
        rows, metrics = [each[:2] for each in rows], [each[:2] for each in metrics]
    jax.tree.map(assert_close, rows, metrics)
    if name == "dist-mtps-power":
        return
    with np.load(DATA / name / "parameters.npz") as file:
        parameters = [file[leaf] for leaf in sorted(file)]
    for ours, theirs in zip(
        jax.tree.leaves(restore_population(run)[2].learner.params), parameters, strict=True
    ):
        assert_close(ours, theirs)


def steady(rows, name):
    """Without what a clock decides: in the recorded launch also which messages a distance was measured from."""
    clocked = {"time", "consensus_distance"} if name == "siac-launch" else {"time"}
    return [{key: value for key, value in row.items() if key not in clocked} for row in rows]


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
