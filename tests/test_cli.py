"""The command line as a user meets it: output, exit status, one sentence for bad input."""

import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from gossamer.cli import COMMANDS, main

TINY = ["--hidden", "8", "8", "--agents", "5", "--topology", "ring", "--max-steps", "20"]


def call(capsys, *arguments):
    """Exit status, standard output and standard error of one command."""
    status = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        status = exit_.code
    output = capsys.readouterr()
    return status, output.out, output.err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    main(["train", "cartpole-balance", *TINY, "--rounds", "3", "--out", str(folder)])
    return folder


def test_version_and_overview(capsys):
    assert call(capsys, "--version")[1] == f"gossamer {version('gossamer')}\n"
    status, out, _ = call(capsys)
    assert status == 0
    assert all(command in out for command in COMMANDS)


def test_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "gossamer", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("gossamer ")


def test_list_names_everything(capsys):
    from gossamer.mixing import RULES
    from gossamer.recipes import RECIPES
    from gossamer.topologies import NAMES

    _, out, _ = call(capsys, "list")
    assert all(re.search(rf"^  {re.escape(name)} ", out, re.M) for name in [*RECIPES, *NAMES, *RULES])


def test_help_shows_defaults_and_units(capsys):
    status, out, _ = call(capsys, "train", "cartpole-balance", "--help")
    text = " ".join(out.split())
    assert status == 0
    for flag in ("agents", "tasks", "rounds", "seed", "seeds", "topology", "weights", "out"):
        assert f"--{flag} " in text
    for flag in ("hidden", "actor-learning-rate", "critic-learning-rate", "discount", "spread", "weighting"):
        assert f"--{flag} " in text
    assert "(default: 0.001)" in text
    assert "--spaces" not in text


def test_train_prints_plain_lines_and_the_folder(capsys, tmp_path):
    status, out, _ = call(
        capsys, "train", "cartpole-balance-centralised", "--hidden", 8, "--max-steps", 9, "--rounds", 2, "--out",
        tmp_path / "run",
    )  # fmt: skip
    lines = out.splitlines()
    assert status == 0
    assert lines[-1] == str(tmp_path / "run")
    assert re.search(r"round 2/2  .*env-steps/s  return .*consensus distance 0\.000  0:00 left", lines[-2])


def test_resume_evaluate_plot(capsys, run):
    assert call(capsys, "train", "--resume", run, "--rounds", 4)[0] == 0
    status, out, _ = call(capsys, "evaluate", run, "--episodes", 2, "--policy", "sampled")
    assert status == 0
    assert out.splitlines()[-1] == str(run / "evaluation-sampled.json")
    assert "worst agent" in out.splitlines()[0]
    status, out, _ = call(capsys, "plot", run, "--x", "rounds")
    assert out == f"{run / 'figures' / 'curves.png'}\n"
    assert (run / "figures" / "curves.png").exists()


def test_topology_prints_properties_and_draws(capsys, tmp_path):
    status, out, _ = call(capsys, "topology", "ring", "--agents", 14, "--out", tmp_path / "ring.png")
    assert status == 0
    assert "0.934" in out
    assert (tmp_path / "ring.png").exists()


def test_demo_ends_with_the_path_of_the_picture(capsys, tmp_path, monkeypatch):
    import gossamer.demo
    from small import small_experiment

    monkeypatch.setattr(gossamer.demo, "cartpole_balance", small_experiment)
    status, out, _ = call(capsys, "demo", "--rounds", 3, "--out", tmp_path / "demo")
    assert status == 0
    assert out.splitlines()[-1] == str(tmp_path / "demo" / "curves.png")
    assert (tmp_path / "demo" / "curves.png").exists()
    assert "centralised" in out


def recipe(*flags):
    return ("train", "cartpole-balance", *flags)


BAD = [
    (("trian",), "'trian' is no command; did you mean train"),
    (("train", "cartpole-balanse"), "'cartpole-balanse' is no recipe; did you mean cartpole-balance"),
    (
        ("train", "--rounds", "3"),
        "'--rounds' stands where a recipe was expected; known are .*cartpole-balance",
    ),
    (recipe("--agent", "3"), "unknown flag --agent; did you mean --agents"),
    (recipe("--agents", "0"), "agents is 0; it must be at least 1"),
    (recipe("--agents", "x"), "--agents: invalid literal|--agents.*'x'"),
    (recipe("--agents", "4"), "25 tasks cannot be dealt evenly to 4 agents; 1, 5, 25 or a multiple of 25"),
    (
        recipe("--actor-learning-rate", "-1"),
        "actor_learning_rate is -1.0; it must be a finite number above 0",
    ),
    (
        recipe("--critic-learning-rate", "nan"),
        "critic_learning_rate is nan; it must be a finite number above 0",
    ),
    (recipe("--topology", "rong"), "'rong' is not a topology.*did you mean ring"),
    (recipe("--topology", "hypercube"), "hypercube"),
    (recipe("--weights", "metropolis"), "did you mean metropolis_hastings"),
    (recipe("--max-steps", "0"), "max_steps is 0"),
    (("train", "--resume", "no/such/run"), "no/such/run is not a run folder"),
    (("evaluate", "no/such/run"), "no/such/run is not a run folder"),
    (("plot",), "runs|no run was given"),
    (("plot", "no/such/run"), "no/such/run is not a run folder"),
    (("topology", "ring", "--out", "x.gif"), "x.gif is no path of a picture"),
    (("train", "--resume"), "resume"),
    (("topology", "ring", "--agents", "0"), "agents is 0; it must be at least 1"),
    (("evaluate",), "run|RUN"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=lambda value: " ".join(value)[:40])
def test_bad_input_is_one_sentence_and_status_2(capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert re.fullmatch(r"gossamer: [^\n]+\n", err), err
    assert re.search(sentence, err), err
    assert list(tmp_path.iterdir()) == []


BAD_FILES = [
    ("edges.txt", "0 1\n1 2\nthree 4\n", "--topology", "edges.txt.*line 3|line 3.*edges.txt"),
    ("edges.txt", "0 1\n2 3\n3 4\n", "--topology", "connect|reach"),
    ("weights.txt", "0.5 0.4\n0.5 0.5\n", "--weights", "row 0 sums to 0.9"),
]


@pytest.mark.parametrize(("name", "content", "flag", "sentence"), BAD_FILES)
def test_bad_files(capsys, tmp_path, monkeypatch, name, content, flag, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(content)
    status, _, err = call(capsys, *recipe("--agents", "5", flag, name))
    assert status == 2
    assert re.fullmatch(r"gossamer: [^\n]+\n", err), err
    assert re.search(sentence, err), err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_unwritable_folder(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = call(capsys, *recipe(*TINY, "--out", tmp_path / "file" / "run"))
    assert status == 2
    assert re.fullmatch(r"gossamer: .*cannot be written.*\n", err)


def test_a_diverged_run_ends_with_status_1(capsys, tmp_path):
    flags = (*TINY, "--critic-learning-rate", "1e38", "--rounds", "50", "--out", tmp_path / "run")
    status, _, err = call(capsys, *recipe(*flags))
    assert status == 1
    assert re.fullmatch(
        r"gossamer: agent \d+ of seed 0 has parameters that are not finite in round \d+.*\n", err
    )


def test_ctrl_c_in_another_process(tmp_path):
    """SIGINT to the program itself: it saves, says how to go on, and ends with status 130."""
    import signal

    command = [sys.executable, "-m", "gossamer", "train", "cartpole-balance", *TINY, "--rounds", "1000000"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert "round 1/" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert f"go on with: gossamer train --resume {tmp_path / 'run'}" in err
