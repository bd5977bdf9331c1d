"""What the comparisons with peers make of their measurements; nothing is timed here."""

import json
import sys
from pathlib import Path

import pytest
from benchmarks import peers, time_to_result
from benchmarks.peers import Contender, Measurement
from benchmarks.time_to_result import Attempt

PROGRAMS = Path(peers.PROGRAMS)


def measured(name, rate, horizon=60, cores=1, environment="acrobot"):
    contender = Contender(environment, name, "program", horizon=horizon)
    return Measurement(contender, cores, rate, rate, 1.0, {})


def test_ratios_are_to_the_best_of_a_peer_on_one_core_or_on_all():
    measurements = [
        *(measured("gossamer, 25 agents", rate) for rate in (90.0, 100.0, 400.0)),
        measured("stable-baselines3", 4.0),
        measured("stable-baselines3", 5.0, cores=2),
        measured("stable-baselines3", 2.0, horizon=5),
        measured("stable-baselines3, our simulators", 10.0),
        measured("rejax, PPO as A2C", 50.0),
        measured("rejax, PPO as A2C", 80.0, cores=2),
        measured("skrl, our simulators", 8.0),
        measured("rejax, PPO as A2C", 1000.0, environment="cartpole"),
    ]
    ours = peers.compare(measurements)[0]
    assert ours["env_steps_per_second"] == 100.0  # the median
    assert ours["ratio_to_stable_baselines3"] == 20.0
    assert ours["ratio_to_stable_baselines3_default"] == 50.0
    assert ours["ratio_to_stable_baselines3_with_ours"] == 10.0
    assert ours["ratio_to_rejax"] == 1.25
    assert ours["ratio_to_skrl"] == 12.5
    assert ours["share_of_bare_physics"] is None


def test_targets_are_judged_by_the_better_placement():
    rows = peers.compare(
        [
            measured("gossamer, 25 agents", 70.0),
            measured("gossamer, 25 agents", 90.0, cores=2),
            measured("rejax, PPO as A2C", 80.0),
        ]
    )
    target = peers.Target("gossamer, 25 agents", "acrobot", 60, "ratio_to_rejax", 1.0)
    verdict = peers.judge(target, rows)
    assert (verdict["reached"], verdict["holds"]) == (1.125, True)
    assert not peers.judge(peers.Target("gossamer, 25 agents", "acrobot", 60, "ratio_to_rejax", 1.2), rows)[
        "holds"
    ]


def test_every_target_has_a_figure_from_contenders_that_run():
    rows = peers.compare([Measurement(each, 1, 1.0, 1.0, 1.0, {}) for each in peers.CONTENDERS])
    for target in peers.TARGETS:
        assert peers.judge(target, rows)["reached"] is not None


def test_contenders_are_programs_and_peers_have_pinned_requirements():
    for each in (*peers.CONTENDERS, *time_to_result.CONTENDERS):
        assert (PROGRAMS / f"{each.program}.py").exists()
        if each.venv is not None:
            pinned = (PROGRAMS / f"requirements-{each.venv}.txt").read_text().splitlines()
            assert all("==" in line for line in pinned)


def test_peers_are_installed_once_and_again_when_their_requirements_change(tmp_path, monkeypatch):
    requirements = tmp_path / "requirements-some.txt"
    requirements.write_text("some==1\n")
    commands = []
    monkeypatch.setattr(peers, "CACHE", tmp_path)
    monkeypatch.setattr(peers, "PROGRAMS", tmp_path)

    def run(command, check):
        commands.append([str(part) for part in command])
        (tmp_path / "venv-some").mkdir(exist_ok=True)

    monkeypatch.setattr(peers.subprocess, "run", run)
    for _ in range(2):
        python = peers.python_of("some")
    assert python == tmp_path / "venv-some" / "bin" / "python"
    assert [command[-1] for command in commands] == [str(tmp_path / "venv-some"), str(requirements)]
    requirements.write_text("some==2\n")
    peers.python_of("some")
    assert len(commands) == 4
    assert peers.python_of(None) == Path(sys.executable)


def test_a_program_tells_its_last_line_and_finds_our_simulators(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "PROGRAMS", tmp_path)
    (tmp_path / "told.py").write_text(
        "import json, os, sys\nprint('noise')\nprint(json.dumps([sys.argv[1:], os.environ['PYTHONPATH']]))\n"
    )
    arguments, path = peers.ask(Path(sys.executable), "told", ("a", "b"), peers.available_cores(), 60)
    assert arguments == ["a", "b"]
    assert (Path(path) / "gossamer_gymnasium" / "__init__.py").exists()
    (tmp_path / "fails.py").write_text("raise SystemExit('no such thing')\n")
    with pytest.raises(SystemExit, match=r"fails\.py failed:\nno such thing"):
        peers.ask(Path(sys.executable), "fails", (), peers.available_cores(), 60)


def attempted(name, seconds, environment="cartpole"):
    contender = time_to_result.Contender(name, "program")
    told = {"seconds": seconds, "env_steps": 7, "best_return": 191.0, "versions": {}}
    return Attempt(environment, contender, 0, told)


def test_time_to_a_result_is_a_median_that_giving_up_makes_longer():
    rows = time_to_result.compare(
        [attempted(time_to_result.OURS, seconds) for seconds in (10.0, 30.0, 20.0)]
        + [attempted("slow", seconds) for seconds in (100.0, None, 80.0)]
        + [attempted("lost", seconds) for seconds in (None, None, 5.0)]
        + [attempted("elsewhere", 5.0, environment="acrobot")]
    )
    ours, slow, lost, elsewhere = rows
    assert (ours["seconds"], ours["reached"], ours["ratio_to_ours"]) == (20.0, "3 of 3", 1.0)
    assert (slow["seconds"], slow["reached"], slow["ratio_to_ours"]) == (100.0, "2 of 3", 5.0)
    assert slow["seconds_each"] == [100.0, None, 80.0]
    assert (lost["seconds"], lost["reached"], lost["ratio_to_ours"]) == (None, "1 of 3", None)
    assert elsewhere["ratio_to_ours"] is None


def test_ours_are_judged_by_the_ratio_of_the_peers_median():
    seconds = {time_to_result.OURS: 10.0, time_to_result.COLD: 20.0, time_to_result.PEER: 29.0}
    rows = time_to_result.compare([attempted(name, each) for name, each in seconds.items()])
    assert [(each["reached"], each["holds"]) for each in time_to_result.judge(rows)] == [
        (2.9, False),
        (1.45, False),
    ]
    rows[-1]["seconds"] = 30.0
    assert [each["holds"] for each in time_to_result.judge(rows)] == [True, True]
    rows[-1]["seconds"] = None  # it gave up, and the ratio is not known
    assert [each["holds"] for each in time_to_result.judge(rows)] == [False, False]


@pytest.fixture
def until(monkeypatch):
    monkeypatch.syspath_prepend(PROGRAMS)
    import until

    yield until
    sys.modules.pop("until")


def test_evaluations_do_not_count_and_giving_up_is_told(until, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(until.time, "perf_counter", lambda: now[0])
    returns = iter([10.0, 150.0, 195.0])

    def make():
        now[0] += 2.0
        return until.Training(advance, evaluate)

    def advance(steps):
        now[0] += 3.0
        return steps + 5

    def evaluate():
        now[0] += 100.0
        return next(returns)

    class Chosen:
        target, every, limit = 190.0, 10, 50.0

    until.print_until(make, Chosen(), ())
    told = json.loads(capsys.readouterr().out)
    assert (told["seconds"], told["env_steps"], told["evaluation_seconds"]) == (11.0, 45, 300.0)
    assert told["curve"] == [[15, 5.0, 10.0], [30, 8.0, 150.0], [45, 11.0, 195.0]]
    returns = iter([10.0, 20.0])
    Chosen.limit = 8.0
    until.print_until(make, Chosen(), ())
    told = json.loads(capsys.readouterr().out)
    assert (told["seconds"], told["seconds_spent"], told["best_return"]) == (None, 8.0, 20.0)
    Chosen.limit = 1.0  # over before anything was learned
    until.print_until(make, Chosen(), ())
    assert json.loads(capsys.readouterr().out)["best_return"] is None
