"""Numbers that figures are judged by, read off runs: returns early and late, curves, parameters, evaluations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gossamer.analysis.consensus import RelativeDeviation, relative_deviation
from gossamer.analysis.curves import Curve, read_curve
from gossamer.analysis.pictures import colours
from gossamer.analysis.statistics import bootstrap_interval, standard_error
from gossamer.experiment import Experiment
from gossamer.normalisation import without_statistics
from gossamer.records import read_metrics
from gossamer.train import load_experiment, restore_population, run_folders

_EARLY, _LATE = 0.2, 0.1  # shares of training


def early(run: Path, share: float = _EARLY) -> Float[np.ndarray, " seed"]:
    """Mean return of each seed in the first part of training, of metrics as they were recorded."""
    return np.array([np.nanmean(each[: max(int(share * len(each)), 2)]) for each in _returns(run)])


def final(run: Path, share: float = _LATE) -> Float[np.ndarray, " seed"]:
    """Mean return of each seed in the last part of training, of metrics as they were recorded."""
    return np.array([np.nanmean(each[-max(int(share * len(each)), 1) :]) for each in _returns(run)])


def final_by_task(run: Path, share: float = _LATE) -> Float[np.ndarray, "seed task"]:
    """Mean return on every task of each seed in the last part of training; NaN where no episode ended."""
    return np.stack([_mean_by_task(folder, share) for folder in run_folders(run)])


def never_learned(run: Path) -> list[int]:
    """On how many tasks of each seed the return is still the lowest there is, −1 for every step to the time limit."""
    worst = -load_experiment(run).environment.max_steps
    return [int((tasks <= 0.99 * worst).sum()) for tasks in final_by_task(run)]


def deviations(run: Path) -> list[RelativeDeviation]:
    """Relative deviation of the parameters of each seed's agents at the end."""
    _, parts, population = restore_population(run)
    messages = jax.vmap(jax.vmap(parts.algorithm.message))(population.learner)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(without_statistics(messages))]
    return [relative_deviation([leaf[seed] for leaf in leaves]) for seed in range(len(leaves[0]))]


def interval(values: Float[np.ndarray, " seed"]) -> dict[str, Any]:
    """Mean over seeds, its 95 % interval, and every seed's value."""
    low, high = bootstrap_interval(values[:, None])
    return {
        "mean": float(values.mean()),
        "low": float(low[0]),
        "high": float(high[0]),
        "seeds": values.tolist(),
    }


def environments(experiment: Experiment) -> int:
    """How many environments share an experiment's steps."""
    return experiment.agents * environments_of_each(experiment)


def environments_of_each(experiment: Experiment) -> int:
    """How many environments each agent has."""
    return max(experiment.tasks // experiment.agents, 1) * experiment.copies


def learning_curves(
    panels: Mapping[str, Sequence[tuple[str, str, Path]]], title: str, band: str = "± 1 standard error"
) -> Figure:
    """A panel of learning curves for each name: (label, kind of training, run), mean and standard error over seeds."""
    figure = Figure(figsize=(1.5 + 5.2 * len(panels), 4.4), dpi=150, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axis, (name, lines) in zip(axes, panels.items(), strict=True):
        palette = colours([kind for _, kind, _ in lines])
        for (label, _, run), colour in zip(lines, palette, strict=True):
            _draw(axis, label, read_curve(run), environments(load_experiment(run)), colour)
        axis.set_title(name, fontsize="medium")
        axis.set_xlabel("steps in each environment (thousands)")
        axis.set_ylabel(f"return, mean over tasks (band: {band})")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize="small")
    figure.suptitle(title)
    return figure


def points(panels: Mapping[str, Mapping[str, Mapping[str, Any]]], title: str, unit: str) -> Figure:
    """A panel for each name: a point and its 95 % interval for each label, one below the other.

    Args:
        panels: by name and label, the mean (``mean`` or ``percent``), ``low`` and ``high``.
        title: of the picture.
        unit: what the x axes count.
    """
    figure = Figure(figsize=(1.5 + 4.2 * len(panels), 3.4), dpi=150, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axis, (name, rows) in zip(axes, panels.items(), strict=True):
        place = -np.arange(len(rows))
        mean = np.array([row.get("mean", row.get("percent")) for row in rows.values()])
        low, high = (np.array([row[end] for row in rows.values()]) for end in ("low", "high"))
        axis.hlines(place, low, high, color="#0072B2")
        axis.plot(mean, place, "o", color="#0072B2")
        axis.set_yticks(place, list(rows), fontsize="small")
        axis.set_ylim(-len(rows) + 0.5, 0.5)
        axis.set_title(name, fontsize="medium")
        axis.set_xlabel(f"{unit} (95 % interval)")
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure


def _returns(run: Path) -> list[np.ndarray]:
    """Of each seed, a number for each line of its metrics; NaN where no episode ended."""
    rows = (read_metrics(folder / "metrics.jsonl") for folder in run_folders(run))
    return [np.array([row["episodic_return"] for row in each], float) for each in rows]


def _mean_by_task(folder: Path, share: float) -> Float[np.ndarray, " task"]:
    rows = read_metrics(folder / "metrics.jsonl")
    last = rows[-max(int(share * len(rows)), 1) :]
    returns = np.array([row["task_return"]["each"] for row in last], float)  # null becomes NaN
    counts = np.isfinite(returns).sum(0)
    return np.divide(np.nansum(returns, 0), counts, out=np.full(len(counts), np.nan), where=counts > 0)


def _draw(axis: Axes, label: str, curve: Curve, count: int, colour: str) -> None:
    x, mean = curve.x / count / 1000, curve.episodic_return.mean(0)
    error = standard_error(curve.episodic_return)
    axis.plot(x, mean, color=colour, label=f"{label}, {len(curve.episodic_return)} seeds")
    axis.fill_between(x, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
