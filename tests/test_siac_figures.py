"""Figures 2, 3 and 8 from hand-made tests in training, and what their trainings ask for."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from gossamer.recipes.diffdac import (
    FAILED_AGENT,
    FAILS_AFTER,
    balance_comparison,
    stability,
    stability_of_one_task,
)
from gossamer.runs.folder import create_run
from gossamer.runs.serialization import to_data
from gossamer.runtimes.build import build
from gossamer_papers.registry import REPRODUCTIONS
from gossamer_papers.run import write_findings
from gossamer_papers.siac import figure_2, figure_3, returns_in_tests


def recorded(folder, experiment, curves, tasks=25, stops=None):
    """A run whose seeds' tests, at every tenth of training, have these returns everywhere; no step after ``stops``."""
    create_run(folder, {"experiment": to_data(replace(experiment, seeds=len(curves)))})
    points = np.linspace(experiment.rounds / 10, experiment.rounds, 10)
    for index, curve in enumerate(curves):
        seed = folder if len(curves) == 1 else folder / f"seed-{index}"
        if seed != folder:
            create_run(seed, {"experiment": to_data(replace(experiment, seeds=1, seed=index))})
        rows = [
            {
                "round": int(number),
                "env_steps": int(min(number, stops or number)),
                "episodic_return": None,
                "consensus_distance": 0.0,
                "time": {"seconds": number},
                "agent_return": {"each": active(value, stops, number, experiment)},
                "test": {"episodic_return": value, "task_return": with_outlier(value, tasks, stops)},
            }
            for number, value in zip(points, curve, strict=True)
        ]
        rows.insert(1, {name: value for name, value in rows[0].items() if name != "test"})
        (seed / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def with_outlier(value, tasks, stops):
    """Where an agent fails, the return in its own task is another one, which must not count."""
    return [1000.0 if stops and task == FAILED_AGENT else value for task in range(tasks)]


def active(value, stops, number, experiment):
    """Returns of 25 agents; of 24 once one has failed, and of none once all have stopped."""
    failed = bool(experiment.schedule.absences) and number > FAILS_AFTER * experiment.rounds
    stopped = failed and stops
    return [None if stopped or (failed and agent == FAILED_AGENT) else value for agent in range(25)]


def seeds(start, end, wobble=0.0, late=False):
    """Three seeds' curves of ten points, straight, or late: still at the start in the first half."""
    shape = np.clip(np.linspace(-1, 1, 10), 0, 1) if late else np.linspace(0, 1, 10)
    return [
        start + (end - start) * shape + shift + wobble * (-1) ** np.arange(10) for shift in (-0.2, 0.0, 0.2)
    ]


def of(claims, text):
    (claim,) = [claim for claim in claims if text in claim.text]
    return claim


def written(name, findings, runs, folder):
    write_findings(REPRODUCTIONS[name], findings, "quick", 3, runs, folder)
    assert (folder / "picture.png").stat().st_size > 10_000
    for training, run in runs.items():  # what the picture draws can be drawn again from the tables
        with (folder / f"{training}-tests.csv").open() as file:
            kept = [[float(each) for each in list(row.values())[2:]] for row in csv.DictReader(file)]
        recorded_here = np.concatenate([each.returns for each in returns_in_tests(run)])
        # six digits are written
        np.testing.assert_allclose(np.mean(kept, axis=1), recorded_here, rtol=1e-5)


def figure_3_runs(tmp_path, curves, stopping):
    trainings = balance_comparison("quick", 3)
    return {
        name: recorded(
            tmp_path / name,
            each,
            curves.get(name, seeds(20, 150)),
            stops=FAILS_AFTER * each.rounds if name in stopping else None,
        )
        for name, each in trainings.items()
    }


def test_figure_3_as_published(tmp_path):
    curves = {
        "balance-diffusion": seeds(20, 195, late=True),
        "balance-centralised": seeds(60, 160, wobble=20),
        "balance-reinforce": seeds(10, 160, late=True),
        "balance-power": seeds(40, 120),
        "balance-diffusion-shared": seeds(20, 170),
    }
    curves["balance-reinforce"] = [curve - 5 for curve in curves["balance-reinforce"]]
    runs = figure_3_runs(tmp_path, curves, stopping=("balance-reinforce-failure",))
    findings = figure_3(runs)
    published = [claim for claim in findings.claims if not claim.unpublished]
    assert all(claim.unpublished == ("(ours)" in claim.text) for claim in findings.claims)
    assert len(published) == 10
    assert {claim.text: claim.verdict for claim in published if claim.verdict != "holds"} == {
        # the last test is a low one of the wobble: 140 and 155
        "centralised SiAC and Dist-MTPS REINFORCE end alike": "does not hold"
    }
    assert of(findings.claims, "own initial parameters ends above").verdict == "holds"
    assert of(findings.claims, "stops none").verdict == "holds"
    assert of(findings.claims, "stops all").verdict == "holds"
    assert "20.0 at the failure, 150.0 at the end" in of(findings.claims, "stops all").evidence
    assert findings.data["final"]["diffusion"]["mean"] == pytest.approx(195)
    written("diffdac-fig3", findings, runs, tmp_path / "results")


def test_figure_3_the_other_way_round(tmp_path):
    curves = {
        "balance-diffusion": seeds(60, 100, wobble=9),
        "balance-centralised": seeds(20, 190, late=True),
        "balance-power": seeds(10, 180, late=True),
    }
    runs = figure_3_runs(tmp_path, curves, stopping=("balance-diffusion-failure",))
    claims = figure_3(runs).claims
    for text in (
        "Diff-SiAC ends above centralised SiAC",
        "centralised SiAC's return varies more",
        "centralised SiAC learns faster than Diff-SiAC",
        "Dist-MTPS PoWER learns faster",
        "stops none",
        "stops all",
    ):
        chosen = [claim for claim in claims if claim.text.startswith(text) or text in claim.text]
        assert chosen[0].verdict == "does not hold", text


def test_the_others_of_a_failed_agent_are_all_but_its_task(tmp_path):
    experiment = balance_comparison("quick", 1)["balance-diffusion-failure"]
    run = recorded(tmp_path / "run", experiment, [np.arange(10.0)])
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1]["test"]["task_return"][FAILED_AGENT] = 1000.0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (course,) = returns_in_tests(run, [task for task in range(25) if task != FAILED_AGENT])
    assert course.returns.tolist() == list(range(10))
    assert course.spent[-1] == 60  # epochs: 300 episodes in each environment


@pytest.mark.parametrize("published", [True, False])
def test_figure_2_in_both_directions(tmp_path, published):
    quick, slow = seeds(-1300, -200, wobble=150), seeds(-1300, -150, late=True)
    runs = {}
    for name, each in stability("quick", 3).items():
        central = ("centralised" in name) == published
        runs[name] = recorded(tmp_path / name, each, quick if central else slow)
    findings = figure_2(runs)
    verdict = "holds" if published else "does not hold"
    for family in ("inverted pendulum", "cart-pole swing-up"):
        assert of(findings.claims, f"{family}: centralised SiAC is less stable").verdict == verdict
        assert of(findings.claims, f"{family}: centralised SiAC learns faster at first").verdict == verdict
        who = f"{family}: centralised SiAC from the mean of 25 networks"
        assert of(findings.claims, f"{who} is less stable").verdict == verdict
        assert of(findings.claims, f"{who} learns faster at first").verdict == verdict
        assert of(findings.claims, f"{who} ends below Diff-SiAC").verdict == verdict
    assert findings.data["pendulum"]["final"]["diffusion"]["mean"] == pytest.approx(
        -150 if published else -350
    )
    written("diffdac-fig2", findings, runs, tmp_path / "results")


def test_what_we_add_to_figure_2_does_not_change_how_its_claims_are_judged(tmp_path):
    runs = {}
    for name, each in stability("quick", 3).items():
        best = 5000 if name.endswith("averaged") else -200
        runs[name] = recorded(tmp_path / name, each, seeds(-1300, best))
    text = "inverted pendulum: centralised SiAC nears the maximum"
    assert of(figure_2(runs).claims, text).verdict == "holds"


def test_trainings_are_those_of_the_paper():
    balance = balance_comparison("paper", 5)
    epochs = {
        name: each.rounds * each.experience.episodes_per_environment / 5 for name, each in balance.items()
    }
    assert set(epochs.values()) == {200}
    assert all(each.tasks == 25 and each.seeds == 5 for each in balance.values())
    for failing in ("balance-diffusion-failure", "balance-reinforce-failure"):
        ((agent, leaves, returns),) = balance[failing].schedule.absences
        assert (agent, leaves, returns) == (FAILED_AGENT, FAILS_AFTER * balance[failing].rounds, None)
    for name, each in (*stability("quick", 6).items(), *stability_of_one_task("quick", 6).items()):
        assert each.experience.episodes_per_environment == 1, name
        assert each.rounds >= 1000, name
        parts = build(each)
        assert parts.task_index.size == 25
        assert len(np.unique(parts.task_index)) == (1 if "single" in name else 25)
