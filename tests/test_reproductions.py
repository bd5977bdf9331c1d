"""Verdicts by hand-made numbers, and a small reproduction from trainings to files."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from gossamer.analysis.consensus import relative_deviation
from gossamer.analysis.statistics import (
    difference_interval,
    relative_difference_interval,
    standard_error,
)
from gossamer.environments import Acrobot, CartPoleBalance
from gossamer.errors import InputError
from gossamer.recipes import a3c, all_reduce_a2c, gala_a2c
from gossamer.recipes.diffdac import FAILURES
from gossamer.recipes.gala_figures import GAMES
from gossamer.runs.checkpoints import rounds
from gossamer.runs.folder import create_run
from gossamer.runs.serialization import dumps, loads, to_data
from gossamer.runtimes.build import build
from gossamer_papers import gala as gala_figures
from gossamer_papers.measures import (
    courses,
    early,
    final,
    final_by_task,
    fluctuation,
    learning_curves,
    mean_until,
    mean_use,
    never_learned,
    paired_t_test,
    steps_per_second,
)
from gossamer_papers.protocol import Findings, Reproduction, alike, higher, similar
from gossamer_papers.registry import REPRODUCTIONS
from gossamer_papers.run import reproduce, verdict_table, write_findings
from small import small_experiment

HIGH, LOW = np.array([5.0, 5.2, 4.9, 5.1]), np.array([1.0, 1.2, 0.9, 1.1])


def test_higher_needs_the_whole_interval_above_zero():
    assert higher("high beats low", HIGH, LOW).verdict == "holds"
    turned = higher("low beats high", LOW, HIGH)
    assert turned.verdict == "does not hold"
    assert turned.evidence.endswith("it is the other way round")
    noisy = higher("noise beats noise", np.array([0.0, 5.0, -5.0]), np.array([1.0, -4.0, 3.0]))
    assert noisy.verdict == "not decided"
    assert noisy.evidence.endswith("these seeds show no difference")


def test_alike_needs_the_whole_interval_within_the_margin():
    assert alike("same", HIGH, HIGH + 0.1, margin=1.0).verdict == "holds"
    assert alike("same", HIGH, HIGH + 0.1, margin=0.1).verdict == "not decided"
    # a mean inside the margin is not enough where seeds scatter
    assert alike("same", np.array([0.0, 10.0]), np.array([10.0, 0.0]), margin=1.0).verdict == "not decided"
    for first, second in ((HIGH, LOW), (LOW, HIGH)):
        assert alike("same", first, second, margin=1.0).verdict == "does not hold"


def test_difference_interval_against_the_normal_one():
    generator = np.random.default_rng(1)
    first, second = generator.normal(3.0, 1.0, 300), generator.normal(1.0, 2.0, 200)
    estimate, low, high = difference_interval(first, second)
    error = np.sqrt(first.var() / 300 + second.var() / 200)
    assert estimate == pytest.approx(first.mean() - second.mean())
    # Student's t of some hundreds of degrees of freedom is the normal one to half a per cent
    np.testing.assert_allclose(
        [low, high], [estimate - 1.96 * error, estimate + 1.96 * error], atol=0.02 * error
    )


def test_difference_interval_is_welchs():
    first, second = np.array([5.0, 6.5, 5.5, 7.0]), np.array([1.0, 2.0, 9.0])
    _, low, high = difference_interval(first, second, level=0.9)
    expected = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.9)
    np.testing.assert_allclose([low, high], [expected.low, expected.high])


def test_of_seeds_that_are_all_alike_the_difference_is_known():
    assert difference_interval(np.full(3, 2.0), np.full(2, 0.5)) == (1.5, 1.5, 1.5)


def test_difference_interval_covers_what_it_says_with_few_seeds():
    generator, level = np.random.default_rng(0), 0.95
    covered = 0
    for _ in range(2000):
        _, low, high = difference_interval(generator.normal(0, 1, 5), generator.normal(0, 3, 5), level)
        covered += low < 0 < high
    # 2,000 pairs know a share near 0.95 to 0.005; Welch's own error with five seeds is about as large
    assert covered / 2000 == pytest.approx(level, abs=0.015)


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
    assert trainings or name == "diffdac-theory"  # which computes, and trains nothing
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

    return Reproduction(name, trainings, conclude)


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


CALLER = """
import sys
from pathlib import Path
if __name__ == "__main__":
    from test_reproductions import make
    make(Path(sys.argv[1]), processes=2, rounds=10**7)
"""


@contextmanager
def caller_of(program, tmp_path):
    """A process that trains for ever, as far as its output shows both trainings; it is waited for."""
    script = tmp_path / "caller.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, script, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as caller:
        try:
            assert caller.stdout is not None
            shown: set[str] = set()
            while shown != {"ring", "isolated"}:
                line = caller.stdout.readline()
                assert line, "the caller ended before both trainings had begun"
                if "round" in line:
                    shown.add(line.split()[0])
            yield caller
        finally:
            caller.kill()


def require_both_saved(tmp_path):
    for name in ("ring", "isolated"):
        saved = rounds(tmp_path / "runs" / "quick" / name / "seed-0" / "checkpoints")
        assert saved[-1] > 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "setsid"), reason="sessions of processes are POSIX's")
def test_trainings_of_a_killed_caller_save_themselves_and_end(tmp_path):
    """SIGKILL tells nobody. Both trainings have the caller's output, which is at its end once all have ended."""
    with caller_of(CALLER, tmp_path) as caller:
        caller.kill()
        rest, _ = caller.communicate(timeout=120)
    assert rest.count("stopping after the rounds in hand") == 2
    require_both_saved(tmp_path)


CALLER_OF_MANY = """
import sys
from dataclasses import replace
from pathlib import Path
from gossamer_papers.run import reproduce
from test_reproductions import tiny

def trainings(scale, seeds):
    both = tiny(rounds=10**7).trainings(scale, seeds)
    return {**both, **{f"later-{number}": both["ring"] for number in range(6)}}

if __name__ == "__main__":
    many, out = replace(tiny(), trainings=trainings), Path(sys.argv[1])
    reproduce(many, seeds=2, out=out / "results", runs=out / "runs", processes=2)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "setsid"), reason="requests to stop are POSIX's")
def test_a_request_to_stop_begins_no_training_that_the_pool_has_taken_already(tmp_path):
    with caller_of(CALLER_OF_MANY, tmp_path) as caller:
        caller.terminate()
        rest, _ = caller.communicate(timeout=120)
    assert "stopped; all trainings are saved, repeat the command to continue" in rest
    require_both_saved(tmp_path)
    assert {path.name for path in (tmp_path / "runs" / "quick").iterdir()} == {"ring", "isolated"}


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


def test_similar_scales_its_margin_with_the_larger_mean():
    assert similar("same", 95 + HIGH, 95 + HIGH + 2).verdict == "holds"
    assert similar("same", 95 + HIGH, 95 + HIGH + 8).verdict == "does not hold"


def test_gala_at_its_published_size():
    """64 to 1024 simulators, 16 of a learner, on a ring of one peer; table 2; A3C's rate is not scaled."""
    known = REPRODUCTIONS["gala-fig1"].trainings("paper", 10)
    assert {name.rsplit("-", 2)[0] for name in known} == set(GAMES)
    for size in (64, 128, 256, 512, 1024):
        ours, theirs = known[f"pong-gala-{size}"], known[f"pong-a2c-{size}"]
        assert (ours.agents, ours.copies, ours.topology) == (size // 16, 16, "directed_ring")
        assert (theirs.workers, theirs.copies, theirs.runtime) == (size // 16, size, "all_reduce")
        assert ours.algorithm == theirs.algorithm
        assert ours.algorithm.learning_rate == pytest.approx(7e-4 * np.sqrt(size / 16))
    nominal = known["pong-nominal-16"]
    assert (nominal.agents, nominal.workers, nominal.copies) == (1, 1, 16)
    shapes = REPRODUCTIONS["gala-fig4"].trainings("paper", 10)
    workers = [shapes[f"pong-a3c-{shape}"] for shape in ("large-batch", "original", "original-fewer")]
    assert [(each.workers, each.copies) for each in workers] == [(4, 64), (64, 64), (16, 16)]
    assert {each.algorithm.learning_rate for each in workers} == {7e-4}
    timed_runs = REPRODUCTIONS["gala-fig3"].trainings("quick", 2).values()
    assert {each.rounds * each.experience.steps * each.agents * each.copies for each in timed_runs} == {
        16_000
    }
    best = REPRODUCTIONS["gala-table1"].trainings("paper", 10)
    assert len(best) == 12
    assert all(each.keep_best and known[name] == each for name, each in best.items())


@pytest.mark.parametrize("name", [name for name in REPRODUCTIONS if name.startswith("gala")])
def test_galas_quick_trainings_can_be_built(name):
    for experiment in REPRODUCTIONS[name].trainings("quick", 2).values():
        assert len(build(experiment).seeds) == 2
        assert experiment.rounds // experiment.record_every >= 2


def recorded(folder, experiment, seeds):
    """A training with these rows of metrics for each of its seeds."""
    create_run(folder, {"experiment": to_data(replace(experiment, seeds=len(seeds)))})
    for index, rows in enumerate(seeds):
        seed = folder if len(seeds) == 1 else folder / f"seed-{index}"
        if seed != folder:
            create_run(seed, {"experiment": to_data(replace(experiment, seed=index))})
        (seed / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def row(number, episodic_return=None, seconds=None, power=None, **more):
    """The line of ``number`` rounds, 100 steps and by default a second each."""
    time = {"seconds": number if seconds is None else seconds, **({"power": power} if power else {})}
    return {
        "round": number,
        "env_steps": 100 * number,
        "episodic_return": episodic_return,
        "consensus_distance": 0.0,
        "time": time,
        **more,
    }


def growing(low, high, wobble=0.0, pace=1.0, scale=1.0):
    """Three seeds that go from one return to another in 20 lines, each line taking ``pace`` seconds."""
    returns = [
        np.linspace(low, high, 20) * scale + shift + wobble * (-1) ** np.arange(20)
        for shift in (-0.1, 0, 0.1)
    ]
    return [[row(i + 1, value, pace * (i + 1)) for i, value in enumerate(each)] for each in returns]


CARTPOLE = CartPoleBalance()
GOSSIP, REDUCE = gala_a2c(CARTPOLE, 4, 4, 400), all_reduce_a2c(CARTPOLE, 4, 4, 400)


def of(claims, text):
    """The one claim whose text has this in it."""
    (claim,) = [claim for claim in claims if text in claim.text]
    return claim


def written(name, findings, runs, tmp_path):
    """All files of a reproduction; its picture is drawn without a warning, which would be an error."""
    folder = write_findings(REPRODUCTIONS[name], findings, "quick", 3, runs, tmp_path / "results")
    assert (folder / "picture.png").stat().st_size > 10_000
    assert json.loads((folder / "summary.json").read_text())["claims"]
    assert "not the same to the bit" in (folder / "verdicts.md").read_text().splitlines()[0]


OFTEN = "(in place of Atari): GALA-A2C succeeds at least as often"


def test_success_can_hang_on_what_is_nominal(tmp_path):
    """A2C of 16 simulators ends at 100 and that of 64 at 200: GALA reaches half of the one and not of the other."""
    runs = success_runs(tmp_path, gala=(80, 80, 80), a2c=(200, 200, 200), nominal=(20, 100))
    claims = gala_figures.figure_1(runs).claims
    assert of(claims, OFTEN).verdict == "holds"
    assert of(claims, "if success is half of A2C's highest end").verdict == "does not hold"


def success_runs(tmp_path, gala, a2c, nominal=(20, 200)):
    """Figure 1 of cart-pole balance; ``gala`` and ``a2c`` say where seeds end with 16, 32 and 64 simulators."""
    runs = {
        "cartpole-nominal-16": recorded(
            tmp_path / "nominal", all_reduce_a2c(CARTPOLE, 1, 16, 400), growing(*nominal)
        )
    }
    for size, ours, theirs in zip((16, 32, 64), gala, a2c, strict=True):
        runs[f"cartpole-gala-{size}"] = recorded(
            tmp_path / f"gala-{size}", gala_a2c(CARTPOLE, size // 4, 4, 400), growing(20, ours, pace=0.5)
        )
        runs[f"cartpole-a2c-{size}"] = recorded(
            tmp_path / f"a2c-{size}", all_reduce_a2c(CARTPOLE, size // 4, 4, 400), growing(20, theirs)
        )
    return runs


def test_figure_1_when_gossip_succeeds_more_often(tmp_path):
    """Success is half of the 16-simulator A2C's score, ~98: A2C misses it with 32 and 64, GALA never."""
    runs = success_runs(tmp_path, gala=(200, 200, 200), a2c=(200, 60, 40))
    findings = gala_figures.figure_1(runs)
    assert of(findings.claims, OFTEN).verdict == "holds"
    assert "32: 100% against 0% of 3 seeds" in of(findings.claims, OFTEN).evidence
    assert ", half of what A2C with 16 simulators" in of(findings.claims, OFTEN).evidence
    assert of(findings.claims, "if success is half of A2C's highest end").verdict == "holds"
    test = of(findings.claims, "paired t-test")
    assert test.verdict == "not decided"  # three pairs: 0, 1, 1; t = 2, p = 0.18
    assert "t = 2.00, two-sided p = 0.18" in test.evidence
    assert of(findings.claims, "as sample efficient as").verdict == "holds"
    assert of(findings.claims, "over the same time").verdict == "holds"
    assert of(findings.claims, "over the same energy").verdict == "not run"
    assert of(findings.claims, "64 simulators: GALA-A2C ends higher").verdict == "holds"
    assert findings.data["cartpole"]["success_rate"]["64"] == {"gala": 1.0, "a2c": 0.0}
    written("gala-fig1", findings, runs, tmp_path)


def test_figure_1_when_it_does_not(tmp_path):
    claims = gala_figures.figure_1(success_runs(tmp_path, gala=(120, 200, 40), a2c=(200, 200, 200))).claims
    assert of(claims, OFTEN).verdict == "does not hold"
    assert of(claims, "Beam Rider, Breakout, Pong, Qbert, Seaquest, Space Invaders").verdict == "not run"
    assert of(claims, "as sample efficient as").verdict == "does not hold"
    assert of(claims, "64 simulators: GALA-A2C ends higher").verdict == "does not hold"


def test_success_that_nobody_had_to_learn_is_none(tmp_path):
    """Half of what the A2C of 16 simulators ends with is below what it began with; likewise below zero."""
    for name, nominal in (("flat", (38, 40)), ("negative", (-21, -20))):
        runs = success_runs(tmp_path / name, (200, 200, 200), (40, 40, 40), nominal)
        findings = gala_figures.figure_1(runs)
        assert of(findings.claims, OFTEN).verdict == "not run"
        assert of(findings.claims, "paired t-test").verdict == "not run"
        assert findings.data["cartpole"]["success_rate"] is None
    written("gala-fig1", findings, runs, tmp_path)


def test_more_often_needs_a_significant_difference_in_the_right_direction():
    pairs = [(1.0, 0.8), (1.0, 0.7), (0.9, 0.5), (1.0, 0.6)]
    assert gala_figures._more_often(pairs).verdict == "holds"
    assert gala_figures._more_often([(b, a) for a, b in pairs]).verdict == "does not hold"
    alike_pairs = gala_figures._more_often([(1.0, 1.0)] * 4)
    assert alike_pairs.verdict == "not decided"
    assert alike_pairs.evidence.endswith("every pair is alike")


def test_paired_t_test_equals_scipys():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=30), generator.normal(0.3, size=30)
    found = scipy.stats.ttest_rel(first, second)
    np.testing.assert_allclose(paired_t_test(first, second), (found.statistic, found.pvalue), rtol=1e-9)
    assert paired_t_test(np.ones(3), np.zeros(3)) == (np.inf, 0.0)


def certified(ratio=0.3, printed=2.0, outside=()):
    """Two seeds of ten moments, distances from 1.0 to 1.09; in those of ``outside`` the bound was broken.

    The last line shows the last moment once more, which counts for nothing.
    """

    def line(i, shift):
        bounds = {"bound": (1 + i / 100) / ratio, "printed_bound": printed, "holds": i not in outside}
        matrix = [[1.0, 0.1 + shift], [0.1 + shift, None]]
        certificate = {"distance": 1 + i / 100, **bounds}
        return row(i + 1, certificate=certificate, gradient_correlation=matrix)

    return [[line(min(i, 9), shift) for i in range(11)] for shift in (0.0, 0.02)]


def correlated(value):
    """Two seeds whose two workers' gradients have about this correlation, the first line's being unknown."""
    matrix = [[1.0, value], [value, 1.0]]
    lines = [row(1), *(row(i, gradient_correlation=matrix) for i in range(2, 11))]
    other = [row(i, gradient_correlation=[[1.0, value + 0.02], [value + 0.02, 1.0]]) for i in range(1, 11)]
    return [lines, other]


def figure_2(tmp_path, distances, value):
    acrobot = Acrobot()
    gossip = replace(gala_a2c(acrobot, 2, 4, 400), certify=True, correlate=True)
    reduce = replace(all_reduce_a2c(acrobot, 2, 4, 400), correlate=True)
    runs = {
        "acrobot-gala-certified": recorded(tmp_path / "gala", gossip, distances),
        "acrobot-a2c-correlated": recorded(tmp_path / "a2c", reduce, correlated(value)),
    }
    return gala_figures.figure_2(runs), runs


def test_figure_2_inside_the_bound_and_less_correlated(tmp_path):
    findings, runs = figure_2(tmp_path, certified(), value=0.6)
    inside = of(findings.claims, "within the certified bound")
    assert inside.verdict == "holds"
    assert inside.evidence.startswith("20 of 20 moments of 2 seeds; median of distance / bound 0.3")
    assert of(findings.claims, "says something").verdict == "holds"
    assert of(findings.claims, "bound as printed").verdict == "holds"
    assert of(findings.claims, "more correlated").verdict == "holds"
    assert findings.data["acrobot"]["gradient_correlation"]["gala"]["seeds"] == pytest.approx([0.1, 0.12])
    assert findings.data["acrobot"]["gradient_correlation"]["a2c"]["seeds"] == pytest.approx([0.6, 0.62])
    written("gala-fig2", findings, runs, tmp_path)


def test_figure_2_the_other_way_round(tmp_path):
    """One line of twenty outside is enough; a bound a thousand times the distance says nothing."""
    findings, _ = figure_2(tmp_path, certified(ratio=0.001, printed=0.9, outside={7}), value=0.0)
    inside = of(findings.claims, "within the certified bound")
    assert (inside.verdict, inside.evidence[:11]) == ("does not hold", "18 of 20 mo")
    assert of(findings.claims, "says something").verdict == "does not hold"
    assert of(findings.claims, "bound as printed").verdict == "does not hold"
    assert of(findings.claims, "more correlated").verdict == "does not hold"


def test_a_bound_too_large_for_a_number_is_not_broken(tmp_path):
    findings, _ = figure_2(tmp_path, certified(printed=None), value=0.6)
    assert of(findings.claims, "bound as printed").verdict == "holds"


def timed(pace, watts=None, seeds=2):
    """Ten lines; the first half's time is another, as of compilation. Frames per second: 400 / pace."""
    lines = []
    for i in range(10):
        seconds = 50.0 if i < 5 else 50 + pace * (i - 4)
        power = None
        if watts:
            share = 0.0 if i < 5 else pace * (i - 4) / seconds  # before, it was idle
            power = {"seconds": seconds, "gpu_watts": watts * share, "gpu_utilisation": 90.0 * share}
        lines.append(row(i + 1, None, seconds, power))
    return [lines] * seeds


def figure_3(tmp_path, paces, watts=None):
    runs = {
        f"pong-speed-{method}-{size}": recorded(
            tmp_path / f"{method}-{size}", REDUCE, timed(pace / size, (watts or {}).get(method))
        )
        for method, pace in paces.items()
        for size in (1, 2)
    }
    return gala_figures.figure_3(runs), runs


def test_figure_3_speed_and_power_without_their_beginning(tmp_path):
    paces = {"gala": 1.0, "a2c": 2.0, "a3c": 4.0, "impala": 0.5}
    findings, runs = figure_3(tmp_path, paces, {"gala": 200, "a2c": 195, "a3c": 100, "impala": 200})
    assert steps_per_second(runs["pong-speed-gala-1"]) == pytest.approx([100.0, 100.0])
    assert mean_use(runs["pong-speed-a2c-1"], "gpu_watts") == pytest.approx([195.0, 195.0])
    assert findings.data["gala"]["2"]["frames"]["mean"] == pytest.approx(800.0)
    verdicts = [
        of(findings.claims, f"frames per second than {name}").verdict for name in ("A2C", "A3C", "IMPALA")
    ]
    assert verdicts == ["holds", "holds", "does not hold"]
    verdicts = [of(findings.claims, f"comparable to {name}").verdict for name in ("A2C", "A3C")]
    assert verdicts == ["holds", "does not hold"]
    written("gala-fig3", findings, runs, tmp_path)


def test_figure_3_without_sensors(tmp_path):
    findings, runs = figure_3(tmp_path, dict.fromkeys(("gala", "a2c", "a3c", "impala"), 1.0))
    assert {claim.verdict for claim in findings.claims if "frames" not in claim.text} == {"not run"}
    assert {claim.verdict for claim in findings.claims if "frames" in claim.text} == {"not decided"}
    assert findings.data["gala"]["1"]["watts"] is None
    written("gala-fig3", findings, runs, tmp_path)


def figure_4(tmp_path, large, original):
    batches = {"large-batch": (4, 4), "original": (16, 1), "original-fewer": (4, 1)}
    seeds = {"large-batch": large, "original": original, "original-fewer": original}
    runs = {
        f"cartpole-a3c-{shape}": recorded(tmp_path / shape, a3c(CARTPOLE, *batches[shape], 400), seeds[shape])
        for shape in batches
    }
    return gala_figures.figure_4(runs), runs


def test_figure_4_in_both_directions(tmp_path):
    steady, restless = growing(20, 200, pace=0.5), growing(20, 100, wobble=15)
    findings, runs = figure_4(tmp_path / "one", steady, restless)
    assert [claim.verdict for claim in findings.claims] == ["holds"] * 3
    written("gala-fig4", findings, runs, tmp_path)
    findings, _ = figure_4(tmp_path / "other", restless, steady)
    assert [claim.verdict for claim in findings.claims] == ["does not hold"] * 3


def test_nothing_is_concluded_from_seeds_without_an_episode(tmp_path):
    silent = [[row(i + 1) for i in range(20)] for _ in range(2)]
    findings, _ = figure_4(tmp_path, silent, growing(20, 100))
    assert {claim.verdict for claim in findings.claims[1:]} == {"not run"}


def table_1(tmp_path, monkeypatch, points, steps=10_000_000, kept=True):
    """Two seeds each, of which the second was better in training; greedy, its games end with ``points``."""
    played = []

    def fake(run, episodes, greedy, best):
        played.append((run.name, episodes, greedy, best))
        returns = points[run.parent.name] + np.arange(episodes) % 2
        return SimpleNamespace(returns=returns[None, None, None])

    monkeypatch.setattr(gala_figures, "evaluate", fake)
    runs = {}
    for method in ("gala", "a2c"):
        rows = [{**row(1, -20.0), "env_steps": steps}]
        runs[f"pong-{method}-64"] = recorded(tmp_path / method, GOSSIP, [rows, rows])
        for index in range(2 if kept else 0):
            best = {"round": 1, "episodic_return": -20.0 + index}
            (tmp_path / method / f"seed-{index}" / "best.json").write_text(json.dumps(best))
    return gala_figures.table_1(runs), runs, played


def test_table_1_plays_the_policy_that_training_chose(tmp_path, monkeypatch):
    findings, runs, played = table_1(tmp_path, monkeypatch, {"gala": 20.5, "a2c": 12.0}, steps=200_000_000)
    assert played == [("seed-1", 10, True, True)] * 2
    # 20.5 and 21.5 in turn: 21 ± 0.17
    assert of(findings.claims, "GALA-A2C is not below RL-Zoo").verdict == "holds"
    assert of(findings.claims, "GALA-A2C is not below RL-Zoo").evidence.startswith("21.00 ± 0.17 (s.e. of 10")
    assert of(findings.claims, "above IMPALA").verdict == "holds"
    assert of(findings.claims, "Pong: GALA-A2C is above A2C").verdict == "holds"
    assert of(findings.claims, ": A2C is not below RL-Zoo").verdict == "does not hold"
    written("gala-table1", findings, runs, tmp_path)


def test_table_1_is_not_judged_by_a_shorter_training(tmp_path, monkeypatch):
    findings, _, _ = table_1(tmp_path, monkeypatch, {"gala": 21.0, "a2c": -21.0}, steps=60_000)
    assert {claim.verdict for claim in findings.claims} == {"not run"}
    assert "after 60,000 steps; the comparison is of 10,000,000" in findings.claims[0].evidence
    findings, _, _ = table_1(tmp_path / "longer", monkeypatch, {"gala": 21.0, "a2c": -21.0})
    assert of(findings.claims, "Pong: GALA-A2C is above A2C").verdict == "holds"
    assert of(findings.claims, "above IMPALA").verdict == "not run"
    assert "the comparison is of 200,000,000" in of(findings.claims, "above IMPALA").evidence


def test_table_1_without_a_policy(tmp_path, monkeypatch):
    findings, runs, played = table_1(tmp_path, monkeypatch, {}, kept=False)
    assert played == []
    assert {claim.verdict for claim in findings.claims} == {"not run"}
    written("gala-table1", findings, runs, tmp_path)


def test_energy_goes_on_where_a_resumed_meter_begins_anew(tmp_path):
    joules = [10.0, 30.0, 5.0, 15.0]
    rows = [row(i + 1, float(i), None, {"cpu_joules": each}) for i, each in enumerate(joules)]
    (course,) = courses(recorded(tmp_path / "run", GOSSIP, [rows]), "joules")
    assert course.spent.tolist() == [0.0, 20.0, 25.0, 35.0]
    assert courses(recorded(tmp_path / "other", GOSSIP, [[row(1, 1.0)]]), "joules") == []


def test_mean_until_is_the_area_under_what_is_known(tmp_path):
    """Time counts from the first line. 0 until 1 s, where the first return is known, then up to 4."""
    rows = [row(1, None, 7.0), row(2, 0.0, 8.0), row(3, 4.0, 9.0), row(4, 4.0, 11.0)]
    seeds = courses(recorded(tmp_path / "run", GOSSIP, [rows]), "seconds")
    assert mean_until(seeds, 2.0) == pytest.approx([1.0], abs=0.01)
    assert mean_until(seeds, 4.0) == pytest.approx([2.5], abs=0.01)


def test_fluctuation_is_about_a_line_in_the_last_half(tmp_path):
    returns = [0.0, 90.0, -50.0, 7.0, 1.0, 2.0, 3.0, 4.0]
    run = recorded(tmp_path / "run", GOSSIP, [[row(i, each) for i, each in enumerate(returns)]])
    assert fluctuation(run) == pytest.approx([0.0], abs=1e-9)
    noise = np.random.default_rng(0).normal(size=4000)
    run = recorded(tmp_path / "noise", GOSSIP, [[row(i, each) for i, each in enumerate(noise)]])
    assert fluctuation(run) == pytest.approx([1.0], abs=0.06)  # four standard errors of a deviation of 2000


@pytest.mark.slow
def test_a_figure_of_gala_from_trainings_to_files(tmp_path, monkeypatch):
    monkeypatch.setattr("gossamer.recipes.gala_figures._CARTPOLE_STEPS", 4_000)
    figure = REPRODUCTIONS["gala-fig4"]
    folder, claims = reproduce(figure, seeds=2, out=tmp_path / "results", runs=tmp_path / "runs", processes=1)
    assert len(claims) == 3
    assert len(list(folder.glob("*.csv"))) == 3
