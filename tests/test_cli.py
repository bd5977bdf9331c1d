"""The command line as a user meets it: output, exit status, one sentence for bad input."""

import errno
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import pytest

from gossamer import train
from gossamer.catalogue import RECIPES, REPRODUCTIONS, TOPOLOGIES, WEIGHT_RULES
from gossamer.cli import COMMANDS, main
from gossamer.recipes import pendulum
from gossamer.runs.folder import MetricsLog, read_metrics

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


def test_every_command_is_implemented():
    for module, _, function in (path.partition(":") for path, _ in COMMANDS.values()):
        assert callable(getattr(importlib.import_module(module), function))


def test_list_names_everything(capsys):
    _, out, _ = call(capsys, "list")
    names = [*RECIPES, *REPRODUCTIONS, *TOPOLOGIES, *WEIGHT_RULES]
    assert all(re.search(rf"^  {re.escape(name)} ", out, re.M) for name in names)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("list",),
        ("train", "-h"),
        ("launch", "-h"),
        ("agent", "-h"),
        *((command, "cartpole-balance-policy-gradient", "-h") for command in ("train", "launch", "agent")),
    ],
    ids=" ".join,
)
def test_help_fits_80_columns(capsys, arguments):
    status, out, _ = call(capsys, *arguments)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80


def test_short_help_shows_what_matters_first(capsys):
    status, out, _ = call(capsys, "train", "cartpole-balance", "--help")
    assert status == 0
    assert re.findall(r"^  (--[a-z-]+)", out, re.M) == [
        "--out", "--rounds", "--seed", "--seeds", "--agents", "--tasks", "--topology", "--runtime",
        "--actor-learning-rate", "--critic-learning-rate",
    ]  # fmt: skip
    assert "--resume" in out
    assert "--help-all lists" in out
    assert "--gamma for --discount" in " ".join(out.split())


def test_full_help_shows_defaults_and_units(capsys):
    status, out, _ = call(capsys, "train", "cartpole-balance", "--help-all")
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
    assert call(capsys, "train", "--rounds", 4, "--resume", run)[0] == 0
    status, out, _ = call(capsys, "evaluate", run, "--episodes", 2, "--policy", "sampled")
    assert status == 0
    assert out.splitlines()[-1] == str(run / "evaluation-sampled.json")
    assert "worst agent" in out.splitlines()[0]
    status, out, _ = call(capsys, "plot", run, "--x", "rounds")
    assert out == f"{run / 'figures' / 'curves.png'}\n"
    assert (run / "figures" / "curves.png").exists()


def test_evaluates_on_tasks_in_words(capsys, run):
    status, out, _ = call(capsys, "evaluate", run, "--episodes", 1, "--tasks", "pole_mass=0.2,half_length=1")
    assert status == 0
    assert out.splitlines()[1].startswith("pole_mass 0.2, half_length 1")
    assert out.splitlines()[-1] == str(run / "evaluation-greedy-zero-shot-pole_mass=0.2,half_length=1.json")
    status, _, err = call(capsys, "evaluate", run, "--tasks", "easy")
    assert (status, err.count("\n")) == (2, 1)
    assert "'easy' is no task; give values of all parameters" in err


def test_an_environment_of_gymnasium_trains_and_resumes(capsys, tmp_path):
    """One that no other test names, under a schedule, with every agent's simulators on the host."""
    out = tmp_path / "run"
    small = ["--hidden", 8, 8, "--agents", 2, "--topology", "ring", "--copies", 2, "--steps", 4]
    counts = ["--rounds", 4, "--record-every", 2, "--checkpoint-every", 2]
    environment = ["--env-id", "MountainCarContinuous-v0"]
    status, _, err = call(
        capsys, "train", "a2c", *environment, *small, *counts, "--link-failure", 0.2, "--out", out
    )
    assert status == 0, err
    assert json.loads((out / "config.json").read_text())["resume"] == "learner-exact"
    status, lines, err = call(capsys, "train", "--resume", out, "--rounds", 6)
    assert status == 0, err
    assert "simulators start new episodes" in lines + err
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [2, 4, 6]
    assert rows[-1]["env_steps"] == 6 * 2 * 2 * 4


def test_without_mujoco_one_sentence_names_the_extra_and_the_rest_works(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in [name for name in sys.modules if name.partition(".")[0] == "mujoco"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    status, out, err = call(capsys, "train", "hopper-mass", "--out", "run")
    assert (status, out) == (2, "")
    assert re.fullmatch(r"gossamer: [^\n]*mujoco[^\n]*pip install -e '\.\[mujoco\]'[^\n]*\n", err), err
    assert list(tmp_path.iterdir()) == []
    assert call(capsys, "list")[0] == 0
    assert call(capsys, "train", "cartpole-balance", *TINY, "--rounds", 1, "--out", "other")[0] == 0


def test_topology_prints_properties_and_draws(capsys, tmp_path):
    status, out, _ = call(capsys, "topology", "ring", "--agents", 14, "--out", tmp_path / "ring.png")
    assert status == 0
    assert "0.934" in out
    assert (tmp_path / "ring.png").exists()


def test_demo_ends_with_the_path_of_the_picture(capsys, tmp_path, monkeypatch):
    import gossamer.cli.demo
    from small import small_experiment

    monkeypatch.setattr(gossamer.cli.demo, "cartpole_balance", small_experiment)
    status, out, _ = call(capsys, "demo", "--rounds", 3, "--out", tmp_path / "demo")
    assert status == 0
    assert out.splitlines()[-1] == str(tmp_path / "demo" / "curves.png")
    assert (tmp_path / "demo" / "curves.png").exists()
    assert "centralised" in out


def test_demo_refuses_a_folder_that_is_taken(capsys, tmp_path):
    (tmp_path / "notes").write_text("mine")
    status, out, err = call(capsys, "demo", "--out", tmp_path)
    assert (status, out) == (2, "")
    assert (
        err
        == f"gossamer: {tmp_path} is a directory that is not empty; give another folder (--out), new or empty\n"
    )


def recipe(*flags):
    return ("train", "cartpole-balance", *flags)


BAD = [
    (("trian",), "'trian' is not a command; did you mean train"),
    (("train", "cartpole-balanse"), "'cartpole-balanse' is not a recipe; did you mean cartpole-balance"),
    (("train", "--rounds", "3"), "expected a recipe, not '--rounds'; known are .*cartpole-balance"),
    (recipe("--agent", "3"), "unknown flag --agent; did you mean --agents"),
    (
        recipe("--lr", "0.1"),
        r"unknown flag --lr; did you mean --actor-learning-rate or --critic-learning-rate\?",
    ),
    (
        recipe("--learning-rate=0.1"),
        r"unknown flag --learning-rate; did you mean --actor-learning-rate or --critic-learning-rate\?",
    ),
    (
        ("train", "cartpole-balance-power", "--lr", "0.1"),
        "unknown flag --lr; it would be --learning-rate or .* here, which this command does not have",
    ),
    (recipe("--total-timesteps", "9"), r"unknown flag --total-timesteps; did you mean --rounds\?"),
    (recipe("--env", "CartPole-v1"), "unknown flag --env; the recipe decides this: gossamer list"),
    (recipe("--gamma", "2"), "discount is 2.0; it must lie between 0 and 1"),
    (recipe("--gamma", "0.9", "--discount", "0.9"), "--discount is given 2 times"),
    (recipe("--certify", "--no-certify"), "--certify is given 2 times"),
    (recipe("--certify", "maybe"), "--certify is 'maybe'; give --certify or --no-certify"),
    (recipe("--certify", "True"), "certify is True; the runtime vectorised"),
    (recipe("--certify=true"), "certify is True; the runtime vectorised"),
    (recipe("--certify", "False", "--agents", "0"), "agents is 0"),
    (("demo", "--lr", "1"), "unknown flag --lr; it would be --learning-rate"),
    (("list", "--al"), "unknown flag --al; "),
    (
        ("keys", "init", "authority", "--title", "site", "--dayz", "3"),
        "unknown flag --dayz; did you mean --days",
    ),
    (recipe("--agents", "0"), "agents is 0; it must be at least 1"),
    (recipe("--agents", "x"), "--agents is 'x'; it must be an integer"),
    (recipe("--agents"), "--agents has no value; --help says what it accepts"),
    (recipe("--critic-learning-rate", "x"), "--critic-learning-rate is 'x'; it must be a number"),
    (recipe("--staleness", "x"), r"--staleness is 'x'; it must be one of \{None\}\|INT"),
    (recipe("--hidden", "a", "b"), r"--hidden is \['a', 'b'\]; --help says what it accepts"),
    (recipe("--runtime", "x"), "--runtime is 'x'; it must be one of 'vectorised', 'threads'"),
    (("keys", "issue", "authority"), "--names is missing: Of agents, or of observers"),
    (("keys", "init", "authority", "--title", "A"), "title is 'A'; it must have 1 to 63 lower-case letters"),
    (("agent", "cartpole-balance"), "--name is missing: Name of the agent, one of the fleet's"),
    (("evaluate",), "PATH is missing: Folder of the run"),
    (
        ("train", "--resume", "no/such/run", "--agents", "6"),
        "a run keeps what it was begun with, and takes --rounds",
    ),
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
    (("train", "--rounds", "9", "--resume", "no/such/run"), "no/such/run is not a run folder"),
    (("train", "--rounds=9", "--resume=no/such/run"), "no/such/run is not a run folder"),
    (
        recipe("--resume", "no/such/run"),
        "unknown argument cartpole-balance; a run keeps what it was begun with",
    ),
    (("launch", "--rounds", "9", "--resume", "no/such/run"), "no/such/run is not a run folder"),
    (
        ("launch", "cartpole-balance", "--resume", "no/such/run"),
        "unknown argument cartpole-balance; a launch keeps what it was begun with",
    ),
    (("topology", "ring", "--agents", "0"), "agents is 0; it must be at least 1"),
    (("reproduce",), "name|NAME"),
    (("reproduce", "diffdac-fig9"), "'diffdac-fig9' is not a reproduction; did you mean diffdac-fig"),
    (("reproduce", "diffdac-fig4", "--seeds", "0"), "seeds is 0; it must be at least 1"),
    (("train", "a2c", "--env-id", "CartPole-v9"), "CartPole-v9"),
    (("train", "a2c", "--env-id", "Blackjack-v1"), "Blackjack-v1.*Box or Discrete|Blackjack-v1.*Tuple"),
    (("train", "acrobot", "--link-failure", "1.5"), "link_failure is 1.5"),
    (("train", "acrobot", "--rule", "newest"), "rule|newest"),
    (
        ("train", "acrobot", "--slow-agents", "25", "2.0"),
        "slow_agents names agent 25; it must be among 0 to 24",
    ),
    (("train", "acrobot", "--latency", "normal:mean=1"), "latency.*normal"),
    (
        recipe("--absences", "1", "2", "3", "--absences", "2", "2", "3"),
        "--absences is given 2 times; give it once, with all its values",
    ),
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


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("--keep-best",), ("--keep-best", "True")),
        (("--keep-best", "true"), ("--keep-best=True",)),
        (("--no-keep-best",), ("--keep-best", "False")),
        (("--gamma", "0.5"), ("--discount", "0.5")),
        (("--gamma=0.5", "--n-agents=5"), ("--discount", "0.5", "--agents", "5")),
        (("--hidden", "8", "9", "--keep_best", "False"), ("--hidden", "8", "9")),
    ],
    ids=lambda value: " ".join(value),
)
def test_other_spellings_mean_the_same(capsys, monkeypatch, arguments, meant):
    trained = []
    monkeypatch.setattr(
        sys.modules["gossamer.train"], "train", lambda experiment, *_: trained.append(experiment)
    )
    for each in ((), arguments, meant):
        assert call(capsys, *recipe(*each))[0] == 0
    default, first, second = trained
    assert first == second
    assert (first == default) == (arguments == ("--no-keep-best",))


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


def test_keys_and_videos_where_nothing_can_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = call(capsys, "keys", "init", tmp_path / "file" / "keys", "--title", "site")
    assert (status, err.count("\n")) == (2, 1)
    assert "cannot be written (Not a directory)" in err
    (tmp_path / "folder.gif").mkdir()
    status, _, err = call(capsys, "video", "no/such/run", "--out", tmp_path / "folder.gif")
    assert (status, err.count("\n")) == (2, 1)
    assert "folder.gif cannot be written" in err


def test_a_defect_keeps_its_traceback_and_a_full_disk_is_none(capsys, monkeypatch):
    def refuse(number):
        def command(arguments):
            raise OSError(number, os.strerror(number), "somewhere/inside")

        return command

    for number in (errno.ENOENT, errno.EACCES, errno.EMFILE):
        monkeypatch.setattr("gossamer.cli.catalogue.list_names", refuse(number))
        with pytest.raises(OSError, match="somewhere/inside"):
            main(["list"])
    monkeypatch.setattr("gossamer.cli.catalogue.list_names", refuse(errno.ENOSPC))
    sentence = (
        "gossamer: somewhere/inside cannot be written (No space left on device); make room and try again\n"
    )
    assert call(capsys, "list") == (1, "", sentence)


def test_a_run_on_a_full_disk_says_how_to_go_on_and_does(capsys, tmp_path, monkeypatch):
    append, folder = MetricsLog.append, tmp_path / "run"

    def full(log, rows):
        if rows[-1]["round"] > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(log, rows)

    flags = (*TINY, "--rounds", 4, "--record-every", 1, "--checkpoint-every", 2, "--out", folder)
    with monkeypatch.context() as patched:
        patched.setattr(MetricsLog, "append", full)
        status, _, err = call(capsys, *recipe(*flags))
    assert status == 1
    assert err == (
        f"gossamer: cannot write to {folder} (No space left on device); the run stopped and its last checkpoint is "
        f"kept; resume with: gossamer train --resume {folder}\n"
    )
    assert call(capsys, "train", "--resume", folder)[0] == 0
    assert [row["round"] for row in read_metrics(folder / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_diverged_run_ends_with_status_1(capsys, tmp_path):
    flags = (*TINY, "--critic-learning-rate", "1e38", "--rounds", "50", "--out", tmp_path / "run")
    status, _, err = call(capsys, *recipe(*flags))
    assert status == 1
    assert re.fullmatch(
        r"gossamer: agent \d+ of seed 0 has parameters that are not finite in round \d+.*\n", err
    )


def begun(out, rounds=1_000_000):
    """The program itself, training in a process of its own."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gossamer",
            "train",
            "cartpole-balance",
            *TINY,
            "--rounds",
            str(rounds),
            "--out",
            str(out),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_ctrl_c_while_modules_are_imported(tmp_path):
    code = (
        "import os, signal, sys\n"
        # A shell that runs the suite in the background ignores the signal.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'jax': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from gossamer.cli import program\n"
        "sys.argv = ['gossamer', 'train', 'cartpole-balance']\n"
        "program()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "gossamer: interrupted\n")


def test_ctrl_c_in_another_process(tmp_path):
    """SIGINT to the program itself: it saves, says how to go on, and ends with status 130."""
    process = begun(tmp_path / "run")
    assert process.stdout is not None
    assert "round 1/" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert f"resume with: gossamer train --resume {tmp_path / 'run'}" in err


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once_and_leaves_a_run_that_goes_on(tmp_path, capsys):
    """Also where XLA compiles or computes, which an interpreter that takes itself apart would not survive."""
    run = tmp_path / "run"
    process = begun(run)
    assert process.stderr is not None
    # from here on a stop is asked for, and the first rounds are compiled
    while not (run / "checkpoints").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert "once more stops at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    path = run / "config.json"
    path.write_text(path.read_text().replace('"rounds": 1000000', '"rounds": 2'))
    assert call(capsys, "train", "--resume", run)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tabular", "--families", 5, "--states", 4, "--actions", 2, "--tasks", 2], "of 5 "),
        (["theorem-1", "--families", 2], "Theorem 1 in 2 random families"),
        (["lemma-1", "--agents", 8], "does not hold"),
        (["theorem-2", "--agents", 3, "--rounds", 3], "after 3 rounds"),
        (["theorem-3", "--problems", 1, "--agents", 3, "--rounds", 20], "‖ḡ‖ in the end"),
        (
            ["certificates", "--agents", 3, "--iterations", 30, "--records", 1],
            "1 random records, 30 iterations each",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_theory_prints_what_it_checked(capsys, arguments, said):
    status, out, err = call(capsys, "theory", *arguments)
    assert (status, err) == (0, "")
    assert said in out


def test_theory_refuses_bad_input_in_one_sentence(capsys):
    assert "subjects: tabular, theorem-1" in call(capsys, "theory")[1]
    for arguments, said in (
        (["tabulr"], "'tabulr' is no subject of theory; did you mean tabular?"),
        (["tabular", "--families", 0], "families is 0; it must be at least 1"),
        (["tabular", "--states", 1], "states is 1; it must be at least 2"),
        (["tabular", "--seed", -1], "seed is -1; it must be at least 0"),
        (["theorem-2", "--rounds", 0], "rounds is 0; it must be at least 1"),
        (["lemma-1", "--agents", 6], "hypercube is not defined for 6 agents"),
    ):
        status, out, err = call(capsys, "theory", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert said in err


def test_theory_computes_nothing_where_a_flag_is_unknown(capsys, monkeypatch):
    from gossamer_papers.theory.tables import SUBJECTS

    computed = []

    def tabular(families: int = 200):
        computed.append(families)
        print("heard", file=sys.stderr)
        return ()

    monkeypatch.setitem(SUBJECTS, "tabular", tabular)
    status, _, err = call(capsys, "theory", "tabular", "--familiez", 3)
    assert (status, computed) == (2, [])
    assert "unknown flag --familiez; did you mean --families?" in err
    assert call(capsys, "theory", "tabular", "--families", 3) == (0, "", "heard\n")
    assert computed == [3]


def test_keys_are_issued_for_all_names_or_for_none(capsys, tmp_path):
    folder = tmp_path / "keys"
    assert call(capsys, "keys", "init", folder, "--title", "site")[0] == 0
    status, out, err = call(capsys, "keys", "issue", folder, "--names", "ada", "Bob")
    assert (status, out) == (2, "")
    assert "name is 'Bob'" in err
    assert not (folder / "ada.pem").exists()
    assert call(capsys, "keys", "issue", folder, "--names", "ada", "bob")[1].splitlines() == [
        str(folder / "ada.pem"),
        str(folder / "bob.pem"),
    ]


def test_classes_of_ones_own_are_found_where_the_command_is_given(capsys, tmp_path, monkeypatch):
    module = tmp_path / "heavy_pendulum.py"
    module.write_text(
        "from dataclasses import dataclass\n"
        "from gossamer.environments import Pendulum\n"
        "@dataclass(frozen=True)\n"
        "class Heavy(Pendulum):\n"
        "    gravity: float = 20.0\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    heavy = importlib.import_module("heavy_pendulum").Heavy(max_steps=5)
    recipe = pendulum()
    small = replace(recipe, environment=heavy, agents=1, tasks=1, topology="isolated", rounds=1)
    train(replace(small, algorithm=replace(recipe.algorithm, hidden=(8,))), tmp_path / "run")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    monkeypatch.delitem(sys.modules, "heavy_pendulum")
    status, _, said = call(capsys, "evaluate", tmp_path / "run", "--episodes", 1)
    assert status == 2
    assert "heavy_pendulum:Heavy" in said
    assert "if you trust it, add --import heavy_pendulum" in said
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "evaluate", "run", "--episodes", 1)[0] == 2
    assert call(capsys, "evaluate", "run", "--episodes", 1, "--import", "heavy_pendulum")[0] == 0
    assert call(capsys, "evaluate", "run", "--import=no_such_module")[0] == 2
