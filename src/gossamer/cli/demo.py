"""The main job in one call: the same 25 tasks learned by diffusion and by one centralised learner, compared."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gossamer.analysis import plot, read_curve
from gossamer.evaluation.evaluate import evaluate, write_evaluation
from gossamer.recipes import cartpole_balance, centralised
from gossamer.runs.folder import require_free
from gossamer.runs.progress import reporter
from gossamer.train import train

_LAST = 20


def demo(out: Path, rounds: int = 200, seed: int = 0) -> Path:
    """Train Diff-SiAC and centralised SiAC on cart-pole balance, print a comparison, draw the curves.

    Args:
        out: a folder that is new or empty, for both runs and the picture.
        rounds: of each training.
        seed: of each training.

    Returns:
        The picture's path, which is also the last line printed.

    Raises:
        InputError: The folder is not empty or not writable, or a number is out of range.
    """
    require_free(out)
    diffusion = replace(cartpole_balance(), rounds=rounds, seed=seed)
    experiments = {"diffusion": diffusion, "centralised": centralised(diffusion)}
    runs = {name: train(each, out / name, reporter(name)) for name, each in experiments.items()}
    console = Console(width=max(80, Console().width))
    console.print(_comparison(runs))
    return _picture(list(runs.values()), out / "curves.png")


def _comparison(runs: dict[str, Path]) -> Table:
    table = Table(title="Cart-pole balance, 25 tasks (best return: 200)")
    for heading in ("", f"training, last {_LAST} rounds", "greedy, mean task", "greedy, worst task"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, run in runs.items():
        last = read_curve(run, "rounds").episodic_return[0, -1]
        evaluation = evaluate(run)
        write_evaluation(evaluation, run / "evaluation-greedy.json")
        table.add_row(name, f"{last:.1f}", f"{evaluation.all.mean():.1f}", f"{evaluation.all.min():.1f}")
    return table


def _picture(runs: list[Path], out: Path) -> Path:
    plot(runs, out, title="Cart-pole balance, 25 tasks")
    print(out)
    return out
