"""Verdicts by hand-made numbers, and a small reproduction from trainings to files."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from gossamer.analysis.consensus import relative_deviation
from gossamer.analysis.statistics import (
    difference_interval,
    relative_difference_interval,
    standard_error,
)
from gossamer.errors import InputError
from gossamer.experiment import build
from gossamer.recipes.diffdac import FAILURES
from gossamer.records import create_run
from gossamer.reproductions import REPRODUCTIONS, Findings, Reproduction, reproduce, verdict_table
from gossamer.reproductions.measures import early, final, final_by_task, learning_curves, never_learned
from gossamer.reproductions.protocol import alike, higher
from gossamer.serialization import dumps, loads, to_data
from small import small_experiment

HIGH, LOW = np.array([5.0, 5.2, 4.9, 5.1]), np.array([1.0, 1.2, 0.9, 1.1])


def test_higher_needs_the_whole_interval_above_zero():
    assert higher("high beats low", HIGH, LOW).verdict == "holds"
    turned = higher("low beats high", LOW, HIGH)
    assert turned.verdict == "does not hold"
    assert turned.evidence.endswith("it is the other way round")
    noisy = higher("noise beats noise", np.array([0.0, 5.0, -5.0]), np.array([1.0, -4.0, 3.0]))
    assert noisy.verdict == "does not hold"
    assert noisy.evidence.endswith("these seeds show no difference")


def test_alike_needs_the_whole_interval_within_the_margin():
    assert alike("same", HIGH, HIGH + 0.1, margin=1.0).verdict == "holds"
    assert alike("same", HIGH, HIGH + 0.1, margin=0.1).verdict == "does not hold"
    # a mean inside the margin is not enough where seeds scatter
    assert alike("same", np.array([0.0, 10.0]), np.array([10.0, 0.0]), margin=1.0).verdict == "does not hold"


def test_difference_interval_against_the_normal_one():
    generator = np.random.default_rng(1)
    first, second = generator.normal(3.0, 1.0, 300), generator.normal(1.0, 2.0, 200)
    estimate, low, high = difference_interval(first, second)
    error = np.sqrt(first.var() / 300 + second.var() / 200)
    assert estimate == pytest.approx(first.mean() - second.mean())
    # 10,000 resamples know the ends of a normal interval to about 2 % of its width
    np.testing.assert_allclose(
        [low, high], [estimate - 1.96 * error, estimate + 1.96 * error], atol=0.08 * error
    )


def test_one_seed_has_no_interval_and_no_verdict():
    for claim in (
        higher("a beats b", np.array([9.0]), LOW),
        alike("a is b", HIGH, np.array([5.0]), margin=1.0),
    ):
        assert claim.verdict == "not run"
        assert "an interval needs two seeds of each" in claim.evidence


def test_a_ratio_is_as_uncertain_as_both_its_parts():
    generator = np.random.default_rng(0)
    steady, scattered = np.full(40, -50.0), generator.normal(-100, 40, 40)
    estimate, low, high = relative_difference_interval(steady, scattered)
    assert estimate == pytest.approx(100 * (-50 - scattered.mean()) / -scattered.mean())
    # the delta method: the ratio of means has the relative error of its denominator
    error = 100 * 50 / scattered.mean() ** 2 * scattered.std() / np.sqrt(40)
    np.testing.assert_allclose(
        [low, high], [estimate - 1.96 * error, estimate + 1.96 * error], atol=0.4 * error
    )


def test_early_and_late_are_read_off_the_lines_as_recorded(tmp_path):
    """Ten lines: two are the first fifth, one the last tenth; nothing of the others leaks in."""
    run = tmp_path / "run"
    create_run(run, {"experiment": to_data(small_experiment())})
    returns = [1.0, None, *[100.0] * 7, 9.0]
    lines = (json.dumps({"episodic_return": each}) + "\n" for each in returns)
    (run / "metrics.jsonl").write_text("".join(lines))
    assert early(run).tolist() == [1.0]
    assert final(run).tolist() == [9.0]


def test_standard_error_equals_the_book():
    values = np.random.default_rng(0).normal(size=(6, 3))
    np.testing.assert_allclose(standard_error(values), values.std(0, ddof=1) / np.sqrt(6))
    assert standard_error(values[:1]).tolist() == [0.0, 0.0, 0.0]


def test_relative_deviation_equals_a_naive_loop():
    arrays = [
        np.random.default_rng(0).normal(2.0, 1.0, size=(5, 3, 2)),
        np.random.default_rng(1).normal(size=(5, 4)),
    ]
    quotients = []
    for array in arrays:
        for column in array.reshape(5, -1).T:
            quotients.append(column.std() / abs(column.mean()))
    found = relative_deviation(arrays)
    assert found.mean == pytest.approx(np.mean(quotients))
    assert found.median == pytest.approx(np.median(quotients))


def test_parameters_that_are_zero_everywhere_are_left_out():
    assert relative_deviation([np.array([[0.0, 1.0], [0.0, 3.0]])]).mean == 0.5


@pytest.mark.parametrize("name", REPRODUCTIONS)
@pytest.mark.parametrize("scale", ["quick", "paper"])
def test_every_reproduction_names_trainings_that_round_trip(name, scale):
    trainings = REPRODUCTIONS[name].trainings(scale, 3)
    assert trainings
    for experiment in trainings.values():
        assert experiment.seeds in ((2, 3) if scale == "quick" else (3,))
        assert loads(dumps(experiment)) == experiment


def test_the_papers_settings():
    """Appendix A.3's, and figure 7's."""
    known = REPRODUCTIONS["diffdac-fig4"].trainings("paper", 8)
    diff, central, special = (
        known[f"acrobot-{name}"] for name in ("diffusion", "centralised", "specialised")
    )
    assert (diff.agents, diff.tasks, diff.topology, diff.experience.steps) == (25, 25, "ring", 60)
    assert (diff.algorithm.learning_rate, diff.algorithm.entropy_coefficient) == (7e-4, 0.01)
    assert (diff.algorithm.optimiser, diff.algorithm.decay, diff.algorithm.epsilon) == ("rmsprop", 0.99, 1e-5)
    assert (diff.algorithm.hidden, diff.algorithm.activation, diff.algorithm.network) == (
        (64, 64),
        "tanh",
        "separate",
    )
    assert (diff.schedule.rule, diff.schedule.staleness) == ("most_recent", 5)
    assert np.allclose(build(diff).weights[0].toarray()[0, [0, 1, 24]], 1 / 3)
    assert (central.agents, central.experience.steps, central.algorithm.learning_rate) == (1, 5, 2e-3)
    assert (special.agents, special.copies, special.topology, special.experience.steps) == (
        25,
        25,
        "isolated",
        5,
    )
    # the same steps in every environment
    assert diff.rounds * 60 == central.rounds * 5 == special.rounds * 5
    noisy = REPRODUCTIONS["diffdac-fig7"].trainings("paper", 8)
    assert {each.schedule.link_failure for each in noisy.values()} == set(FAILURES)
    assert {(each.agents, each.tasks, each.schedule.staleness) for each in noisy.values()} == {(14, 1, None)}


def tiny(name="tiny", rounds=6):
    """Two trainings of seconds and one claim."""

    def trainings(scale, seeds):
        ring = small_experiment(rounds=rounds, seeds=seeds)
        return {"ring": ring, "isolated": replace(ring, topology="isolated")}

    def conclude(runs):
        claim = higher("the ring ends above isolated agents", final(runs["ring"]), final(runs["isolated"]))
        panel = [("ring", "diffusion", runs["ring"]), ("isolated", "isolated", runs["isolated"])]
        return Findings(
            {"early": early(runs["ring"]).tolist()}, (claim,), learning_curves({"balance": panel}, "Tiny")
        )

    return Reproduction(name, "A tiny figure", trainings, conclude)


def make(tmp_path, processes=1, **changes):
    return reproduce(
        tiny(**changes), seeds=2, out=tmp_path / "results", runs=tmp_path / "runs", processes=processes
    )


def test_a_reproduction_writes_data_picture_and_verdicts_and_trains_once(tmp_path, capsys):
    folder, claims = make(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    assert [claim["text"] for claim in summary["claims"]] == ["the ring ends above isolated agents"]
    assert (summary["scale"], summary["seeds"]) == ("quick", 2)
    assert summary["trainings"]["isolated"]["topology"] == "isolated"
    assert summary["provenance"]["python"]
    assert (folder / "picture.png").stat().st_size > 10_000
    written = (folder / "verdicts.md").read_text().splitlines()
    assert any(
        line.startswith(f"| **{claims[0].verdict}** | the ring ends above isolated") for line in written
    )
    assert any(
        re.fullmatch(r"\| ring \| 5 \| 5 \| \d+ episodes in each environment \| 2 \|", line)
        for line in written
    )
    curve = (folder / "ring.csv").read_text().splitlines()
    rows = (tmp_path / "runs" / "quick" / "ring" / "seed-1" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(rows[-1])
    assert curve[0] == "seed,round,env_steps,episodic_return,consensus_distance"
    assert len(curve) == 1 + 2 * len(rows)
    assert curve[-1].startswith(f"1,{last['round']},{last['env_steps']},{last['episodic_return']:.6g},")
    assert verdict_table(claims).splitlines()[0].endswith("the ring ends above isolated agents")
    capsys.readouterr()
    before = (tmp_path / "runs" / "quick" / "ring" / "seed-0" / "metrics.jsonl").read_bytes()
    make(tmp_path)
    assert "round" not in capsys.readouterr().out
    assert (tmp_path / "runs" / "quick" / "ring" / "seed-0" / "metrics.jsonl").read_bytes() == before


def test_a_longer_scale_goes_on_from_where_a_training_stands(tmp_path):
    make(tmp_path, rounds=4)
    make(tmp_path, rounds=6)
    rows = (tmp_path / "runs" / "quick" / "ring" / "seed-1" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["round"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_another_training_in_the_folder_is_refused(tmp_path):
    make(tmp_path)
    with pytest.raises(InputError, match=r"ring holds another training than is wanted now; move it away"):
        reproduce(tiny(), seeds=1, out=tmp_path / "results", runs=tmp_path / "runs", processes=1)


def test_refuses(tmp_path):
    with pytest.raises(InputError, match="seeds is 0; it must be at least 1"):
        reproduce(tiny(), seeds=0, out=tmp_path, runs=tmp_path)
    with pytest.raises(InputError, match="processes is 0; it must be at least 1"):
        reproduce(tiny(), out=tmp_path, runs=tmp_path, processes=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    """The children import this module afresh, so the trainings are a recipe's."""
    one, _ = make(tmp_path / "one", processes=1)
    two, _ = make(tmp_path / "two", processes=2)
    assert (one / "ring.csv").read_text() == (two / "ring.csv").read_text()


def test_final_returns_by_task_and_tasks_never_learned(tmp_path):
    """Two tasks, 20 rounds; the last tenth counts. Nobody finished an episode of the second task in round 19."""
    run = tmp_path / "run"
    create_run(run, {"experiment": to_data(small_experiment())})
    each = [[-1.0, -20.0]] * 18 + [[-3.0, None], [-5.0, -20.0]]
    rows = [{"task_return": {"each": row}} for row in each]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert final_by_task(run).tolist() == [[-4.0, -20.0]]
    assert never_learned(run) == [1]  # small_experiment's time limit is 20 steps
    rows[-1]["task_return"]["each"] = [None, None]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.testing.assert_array_equal(final_by_task(run), [[-3.0, np.nan]])
