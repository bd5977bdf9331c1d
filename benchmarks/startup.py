"""CPU-seconds until the first rounds are over: imports, tracing, lowering, XLA and the rest, cold and warm.

    python -m benchmarks.startup [--against REVISION] [--only balance acrobot pong launch]

Each case is a command in a separate process, first with an empty cache of compiled programs, then with what that
left, another seed and another learning rate. An older revision is checked out beside this one and takes its turn
before it, with the same interpreter and packages. The total is that of the process and all that it started. What JAX
reports of tracing, lowering and compiling is turned into CPU time; imports are everything before the first of it, and
the rest is everything that is none of these: rounds, checkpoints, the end of the process.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.control import machine, show
from benchmarks.tables import RESULTS, publish

HERE = Path(__file__).parents[1]
OURS = "this"
CASES = {
    "balance": "train cartpole-balance --rounds 4",
    "acrobot": "train acrobot --rounds 20",
    "pong": "train gala-pong --rounds 2 --record-every 1",
    "launch": "launch cartpole-balance --agents 4 --tasks 4 --topology ring --rounds 4",
}
CHANGED = {
    "balance": "--seed 1 --actor-learning-rate 0.002",
    "acrobot": "--seed 1 --learning-rate 0.0008",
    "pong": "--seed 1 --learning-rate 0.0008",
    "launch": "--seed 1 --actor-learning-rate 0.002",
}
PHASES = {
    "jaxpr_trace_duration": "tracing",
    "jaxpr_to_mlir_module_duration": "lowering",
    "backend_compile_duration": "xla",
}
TARGETS = {("balance", "cold"): 0.55, ("balance", "warm"): 0.2}

# Every process of a run imports this before anything else: sitecustomize.py in a separate folder.
RECORDER = """
import bisect, os, threading, time

samples = [(time.time(), time.process_time())]

def sample():
    while True:
        time.sleep(0.002)
        samples.append((time.time(), time.process_time()))

def record(name, seconds, **_):
    now, cpu = time.time(), time.process_time()
    began = samples[bisect.bisect(samples, (now - seconds, 0.0)) - 1][1]
    with open(f"{os.environ['STARTUP_RECORDS']}/{os.getpid()}", "a") as file:
        file.write(f"{name.rpartition('/')[2]} {began} {cpu}\\n")

class WhenJaxIsImported:
    def find_spec(self, name, path=None, target=None):
        if name == "jax.monitoring":
            import sys
            sys.meta_path.remove(self)
            import jax.monitoring
            jax.monitoring.register_event_duration_secs_listener(record)
            threading.Thread(target=sample, daemon=True).start()

import sys
sys.meta_path.insert(0, WhenJaxIsImported())
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", help="an older revision, measured in the same run")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json")
    arguments = parser.parse_args()
    with checked_out(arguments.against) as older:
        trees = {arguments.against: older, OURS: HERE} if older else {OURS: HERE}
        rows = [row for case in arguments.only for row in measure(case, trees)]
    reached = targets(rows, arguments.against)
    against = f" --against {arguments.against}" if arguments.against else ""
    result = {
        "command": f"python -m benchmarks.startup{against}",
        "machine": machine(),
        "results": rows,
        "targets": reached,
    }
    show("CPU-seconds", rows)
    show("CPU-seconds over those of the older revision, cold", reached)
    publish(result, arguments.out)


@contextmanager
def checked_out(revision: str | None) -> Iterator[Path | None]:
    """A work tree of a revision, for as long as it is needed."""
    if revision is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ("git", "-C", str(HERE), "worktree")
        subprocess.run((*git, "add", "--quiet", "--detach", str(tree), revision), check=True)
        try:
            yield tree
        finally:
            subprocess.run((*git, "remove", "--force", str(tree)), check=True)


def measure(case: str, trees: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """All trees with an empty cache, then all once more with what they left in it."""
    with tempfile.TemporaryDirectory() as folder:
        for cache, changed in (("cold", ""), ("warm", CHANGED[case])):
            for revision, tree in trees.items():
                print(f"{case}, {cache}, {revision}", file=sys.stderr)
                phases = run(f"{CASES[case]} {changed}", tree, Path(folder) / revision, cache)
                yield {"case": case, "revision": revision, "cache": cache, **phases}


def run(command: str, tree: Path, home: Path, name: str) -> dict[str, Any]:
    """CPU-seconds of one command, whose cache lies in ``home``."""
    records = home / f"{name}-records"
    records.mkdir(parents=True)
    (home / "sitecustomize.py").write_text(RECORDER)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join((str(home), str(tree / "src"))),
        "XDG_CACHE_HOME": str(home / "cache"),
        "STARTUP_RECORDS": str(records),
    }
    arguments = (*command.split(), "--out", str(home / name))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        (sys.executable, "-m", "gossamer", *arguments),
        env=environment, cwd=home, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    processes = [phases_of(file.read_text()) for file in records.iterdir()]
    phases = {
        name: sum(each[name] for each in processes) for name in ("import", *PHASES.values(), "programs")
    }
    known = sum(seconds for phase, seconds in phases.items() if phase != "programs")
    return {"cpu_seconds": total, **phases, "rest": total - known}


def phases_of(record: str) -> dict[str, float]:
    """Of one process: CPU-seconds before the first phase and in each, and programs compiled.

    A function that is traced while another one is counts once.
    """
    lines = [line.split() for line in record.splitlines()]
    spans = [(float(began), float(ended), PHASES[name]) for name, began, ended in lines if name in PHASES]
    phases = dict.fromkeys(("import", *PHASES.values()), 0.0)
    phases["import"] = min((began for began, _, _ in spans), default=0.0)
    counted = 0.0
    for began, ended, phase in sorted(spans):
        phases[phase] += max(ended - max(began, counted), 0.0)
        counted = max(ended, counted)
    return {**phases, "programs": sum(phase == "xla" for _, _, phase in spans)}


def targets(rows: list[dict[str, Any]], against: str | None) -> list[dict[str, Any]]:
    """Ratios to the older revision with an empty cache, and whether they are small enough."""
    seconds = {(row["case"], row["revision"], row["cache"]): row["cpu_seconds"] for row in rows}
    ratios = {
        (case, cache): own / seconds[case, against, "cold"]
        for (case, revision, cache), own in seconds.items()
        if revision == OURS and against is not None
    }
    return [
        {
            "case": case,
            "cache": cache,
            "reached": ratio,
            "target": TARGETS.get((case, cache)),
            "holds": ratio <= TARGETS[case, cache] if (case, cache) in TARGETS else None,
        }
        for (case, cache), ratio in ratios.items()
    ]


if __name__ == "__main__":
    main()
