"""Records short runs of every algorithm and runtime, against which tests/test_reference_runs.py compares later code.

Written for revision bf475a9, whose code made tests/data/bf475a9:

    git worktree add /tmp/bf475a9 bf475a9
    PYTHONPATH=/tmp/bf475a9/src .venv/bin/python tests/data/make_reference_runs.py /tmp/runs
    mv /tmp/runs tests/data/bf475a9

To record again, check out the revision to record from, adapt this script if its interface has changed, and pass a new
folder. For each run it leaves config.json, the metrics of each seed without what a clock measured, the final
parameters, and, for six runs, the complete folder ``run`` of the same experiment stopped after four of its six rounds.
"""

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from gossamer.fleet.launch import launch
from gossamer.records import read_metrics

from gossamer.algorithms import A2C, DistMTPS, Impala, Reinforce, SiAC
from gossamer.environments import Acrobot, CartPoleBalance, GymnasiumEnvironment, Pendulum, spaces_of
from gossamer.experience import Episodes, Steps, Unrolls
from gossamer.experiment import Experiment
from gossamer.runtimes.inbox import Patience
from gossamer.schedules import Schedule
from gossamer.train import restore_population, run_folders, train

SHORT, ALL = 4, 6
IN_STEP = Schedule("most_recent", staleness=0)
PATIENT = Patience(first=600.0)  # seconds; a busy machine may compile for minutes
BALANCE, PENDULUM, ACROBOT = CartPoleBalance(max_steps=20), Pendulum(max_steps=20), Acrobot(max_steps=40)
GYMNASIUM = GymnasiumEnvironment("CartPole-v1")
CENTRAL = {"agents": 1, "tasks": 1, "copies": 4, "topology": "isolated"}


def a_run(environment, kind, experience, hyper=None, **choices):
    """An experiment of a few agents on a ring, with networks of two layers of eight units."""
    sizes = {} if kind is DistMTPS else {"hidden": (8, 8)}
    algorithm = kind(spaces_of(environment), **sizes, **(hyper or {}))
    usual = {"tasks": 4, "agents": 4, "topology": "ring", "rounds": ALL, "checkpoint_every": SHORT}
    return Experiment(environment, algorithm, experience, **{**usual, **choices})


def reference_runs():
    """Experiments by name."""
    lossy = Schedule(
        "most_recent", staleness=5, link_failure=0.2, latency="exponential:mean=0.5", slow_agents=((2, 2.0),)
    )
    one_sided = Schedule("push_sum", link_failure=0.3, failures="one_sided")
    cycle = Schedule("cycle")
    power = {"search": "power", "latent": 3}
    ahead = Unrolls(steps=5, actors=1, batch=1, ahead=0)
    return {
        "siac": a_run(BALANCE, SiAC, Episodes(1), tasks=5, agents=5),
        "siac-centralised": a_run(PENDULUM, SiAC, Episodes(1), agents=1, topology="isolated", seeds=2),
        "a2c-scheduled": a_run(ACROBOT, A2C, Steps(5), copies=2, schedule=lossy),
        "a2c-gymnasium": a_run(GYMNASIUM, A2C, Steps(5), tasks=1, copies=2),
        "reinforce-push-sum": a_run(BALANCE, Reinforce, Episodes(2), schedule=one_sided),
        "dist-mtps": a_run(BALANCE, DistMTPS, Episodes(2), schedule=cycle),
        "dist-mtps-power": a_run(BALANCE, DistMTPS, Episodes(2), schedule=cycle, hyper=power),
        "a2c-threads": a_run(ACROBOT, A2C, Steps(5), copies=2, schedule=IN_STEP, runtime="threads"),
        "impala-threads": a_run(GYMNASIUM, Impala, ahead, tasks=1, schedule=IN_STEP, runtime="threads"),
        "a2c-all-reduce": a_run(ACROBOT, A2C, Steps(5), **CENTRAL, runtime="all_reduce", workers=2),
        "a2c-a3c": a_run(ACROBOT, A2C, Steps(5), **CENTRAL, runtime="a3c"),
        "siac-launch": a_run(
            BALANCE, SiAC, Episodes(1), schedule=IN_STEP, runtime="network", patience=PATIENT
        ),
    }


KEPT = ("siac", "siac-centralised", "a2c-scheduled", "a2c-gymnasium", "dist-mtps", "a2c-threads")


def record(experiment, folder, keep):
    """Run one experiment and write what it did into a new folder."""
    with tempfile.TemporaryDirectory() as place:
        run = (launch if experiment.runtime == "network" else train)(experiment, Path(place) / "run")
        folder.mkdir(parents=True)
        shutil.copy(run / "config.json", folder)
        metrics = [
            [{name: value for name, value in row.items() if name != "time"} for row in read_metrics(each)]
            for each in (seed / "metrics.jsonl" for seed in run_folders(run))
        ]
        (folder / "metrics.json").write_text(json.dumps(metrics) + "\n")
        leaves = jax.tree_util.tree_leaves_with_path(restore_population(run)[2].learner.params)
        named = {f"{i:02d}{jax.tree_util.keystr(path)}": leaf for i, (path, leaf) in enumerate(leaves)}
        np.savez_compressed(
            folder / "parameters.npz", **{name: np.asarray(leaf) for name, leaf in named.items()}
        )
    if keep:
        train(replace(experiment, rounds=SHORT), folder / "run")
        for initial in (folder / "run").rglob("checkpoints/0"):  # the last one is enough, and small
            shutil.rmtree(initial)
        for events in (folder / "run").rglob("events.out.tfevents.*"):  # named after the machine
            events.rename(events.with_name(f"events.out.tfevents.{events.name.split('.')[3]}.host.0000"))
    for config in folder.rglob("config.json"):
        data = json.loads(config.read_text())
        data["provenance"]["platform"] = "Linux"
        config.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    out = Path(sys.argv[1])
    for name, experiment in reference_runs().items():
        record(experiment, out / name, keep=name in KEPT)
        print(name, flush=True)
