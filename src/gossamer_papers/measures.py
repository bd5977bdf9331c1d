"""Numbers that figures are judged by, read off runs: returns early and late, curves, parameters, evaluations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t as student_t

from gossamer.analysis.consensus import RelativeDeviation, relative_deviation
from gossamer.analysis.curves import Curve, read_curve
from gossamer.analysis.pictures import BOUND, Style, colours, styles
from gossamer.analysis.statistics import bootstrap_interval, standard_error
from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.running_statistics import without_statistics
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import read_metrics
from gossamer.runs.restore import restore_population, run_folders

Spent: TypeAlias = Literal["env_steps", "seconds", "joules"]
"""What a return may be set against: steps of all simulators, time, or energy."""

EARLY, LATE = 0.2, 0.1
"""Shares of training whose returns count as early and as final."""


def early(run: Path, share: float = EARLY) -> Float[np.ndarray, " seed"]:
    """Mean return of each seed in the first part of training, of metrics as they were recorded."""
    return np.array([_known_mean(each[: max(int(share * len(each)), 2)]) for each in _returns(run)])


def final(run: Path, share: float = LATE) -> Float[np.ndarray, " seed"]:
    """Mean return of each seed in the last part of training, of metrics as they were recorded."""
    return np.array([_known_mean(each[-max(int(share * len(each)), 1) :]) for each in _returns(run)])


def final_by_task(run: Path, share: float = LATE) -> Float[np.ndarray, "seed task"]:
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


class Course(NamedTuple):
    """Returns of one seed, where any is known, and what had been spent by then."""

    spent: Float[np.ndarray, " row"]
    returns: Float[np.ndarray, " row"]


def courses(run: Path, axis: Spent) -> list[Course]:
    """How returns of each seed grew with what was spent; nothing if the machine had no sensor of energy.

    Time and energy count from the first line of the metrics, whose rounds are mostly compilation.
    """
    found = []
    for folder in run_folders(run):
        rows = read_metrics(folder / "metrics.jsonl")
        spent = _spent(rows, axis)
        if spent is None:
            return []
        returns = np.array([row["episodic_return"] for row in rows], float)
        known = np.isfinite(returns)
        found.append(Course(spent[known], returns[known]))
    return found


def mean_until(seeds: Sequence[Course], budget: float) -> Float[np.ndarray, " seed"]:
    """Mean return of each seed while it spent a budget: the area under its curve; NaN where no return is known.

    Example:
        >>> course = Course(np.array([0.0, 2.0, 4.0]), np.array([0.0, 2.0, 2.0]))
        >>> mean_until([course], 2.0).round(6).tolist(), mean_until([course], 4.0).round(6).tolist()
        ([1.0], [1.5])
    """
    share = np.linspace(0.0, 1.0, 2001)
    return np.array([np.trapezoid(_on_grid(each, budget * share), share) for each in seeds])


def fluctuation(run: Path, share: float = 0.5) -> Float[np.ndarray, " seed"]:
    """Standard deviation of each seed's returns about a straight line through them, in the last part of training."""
    return np.array([about_a_line(each[-max(int(share * len(each)), 1) :]) for each in _returns(run)])


def steps_per_second(run: Path) -> Float[np.ndarray, " seed"]:
    """Steps of all simulators in a second, over the last half of the lines of each seed's metrics.

    At the beginning rates mean little: there is compilation, and what asynchronous workers did meanwhile.
    """
    rates = []
    for folder in run_folders(run):
        first, *_, last = _last_half(read_metrics(folder / "metrics.jsonl"))
        seconds = last["time"]["seconds"] - first["time"]["seconds"]
        rates.append((last["env_steps"] - first["env_steps"]) / seconds)
    return np.array(rates)


def mean_use(run: Path, name: Literal["gpu_utilisation", "gpu_watts"]) -> Float[np.ndarray, " seed"]:
    """Mean utilisation (per cent) or power (W) of each seed over the same time; NaN where nothing was measured."""
    every = (_last_half(read_metrics(folder / "metrics.jsonl")) for folder in run_folders(run))
    return np.array([_mean_use(rows, name) for rows in every])


def paired_t_test(
    first: Float[np.ndarray, " pair"], second: Float[np.ndarray, " pair"]
) -> tuple[float, float]:
    """Student's t of the paired differences first − second, and its two-sided p-value.

    Differences that are all the same have no variance: t is infinite and p is 0, or both are NaN if they are 0.

    Example:
        >>> t, p = paired_t_test(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.5, 1.5]))
        >>> round(t, 3), round(p, 3)
        (3.464, 0.074)
        >>> paired_t_test(np.ones(3), np.ones(3))
        (nan, nan)
    """
    difference = first - second
    mean, error = difference.mean(), standard_error(difference[:, None])[0]
    if error == 0:
        return (float("nan"), float("nan")) if mean == 0 else (float(np.copysign(np.inf, mean)), 0.0)
    return float(mean / error), float(2 * student_t.sf(abs(mean / error), len(difference) - 1))


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
    panels: Mapping[str, Sequence[tuple[str, str, Path]]],
    title: str,
    by_label: Mapping[str, Style] | None = None,
) -> Figure:
    """A panel of learning curves for each name: (label, kind of training, run), mean and standard error over seeds.

    Each point is a mean over the last twentieth of all lines of the metrics.

    Args:
        panels: by name, the curves.
        title: of the picture.
        by_label: how the curve of each label is drawn; by default as its kind.
    """
    figure = Figure(figsize=(1.5 + 5.2 * len(panels), 4.4), dpi=150, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axis, (name, lines) in zip(axes, panels.items(), strict=True):
        palette = styles([kind for _, kind, _ in lines])
        if by_label is not None:
            palette = [by_label[label] for label, _, _ in lines]
        for (label, _, run), style in zip(lines, palette, strict=True):
            _draw(axis, label, read_curve(run), environments(load_experiment(run)), style)
        axis.set_title(name, fontsize="medium")
        axis.set_xlabel("steps in each environment (thousands)")
        axis.set_ylabel("return, mean over tasks and last 5 %\n(band: ± 1 standard error)", fontsize="small")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize="small")
    figure.suptitle(title)
    return figure


def points(
    panels: Mapping[str, Mapping[str, tuple[str, Mapping[str, Any]]]],
    title: str,
    quantity: str,
    zero: bool = False,
    log: bool = False,
) -> Figure:
    """A panel for each name: a point and its interval for each label, one below the other.

    Args:
        panels: by name and label, the kind of training, and its mean (``mean`` or ``percent``), ``low`` and ``high``.
            The kind ``published`` is grey, of a number without an interval.
        title: of the picture.
        quantity: what the x axes count, its unit, and what the intervals are.
        zero: whether a line marks 0.
        log: whether x axes are logarithmic; numbers then stand beside the points.
    """
    figure = Figure(figsize=(1.5 + 4.6 * len(panels), 3.4), dpi=150, layout="constrained")
    alike = len({tuple(rows) for rows in panels.values()}) == 1
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=alike))
    for axis, (name, rows) in zip(axes, panels.items(), strict=True):
        for place, (kind, row) in enumerate(rows.values()):
            colour = BOUND if kind == "published" else colours([kind])[0]
            axis.hlines(-place, row["low"], row["high"], color=colour)
            middle = row.get("mean", row.get("percent"))
            axis.plot(middle, -place, "o", color=colour)
            if log:
                text = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "fontsize": "small"}
                axis.annotate(f"{middle:.3g}", (middle, -place), **text)
        if zero:
            axis.axvline(0, color=BOUND, linewidth=1)
        if log:
            axis.set_xscale("log")
            axis.margins(x=0.1)
        axis.set_yticks(-np.arange(len(rows)), list(rows), fontsize="small")
        axis.set_ylim(-len(rows) + 0.5, 0.5)
        axis.set_title(name, fontsize="medium")
        axis.set_xlabel(quantity, fontsize="small")
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure


def draw_courses(axis: Axes, label: str, seeds: Sequence[Course], style: Style) -> None:
    """Mean over seeds and its 95 % interval, as far as all of them went; nothing if a seed has no known return."""
    known = [_smoothed(each) for each in seeds if len(each.returns)]
    if not known or len(known) < len(seeds):
        return
    grid = np.linspace(max(each.spent[0] for each in known), min(each.spent[-1] for each in known), 400)
    values = np.stack([_on_grid(each, grid) for each in known])
    label = f"{label}, {len(known)} seeds"
    axis.plot(grid, values.mean(0), color=style.colour, linestyle=style.line, label=label)
    if len(known) > 1:
        low, high = bootstrap_interval(values)
        axis.fill_between(grid, low, high, color=style.colour, alpha=0.2, linewidth=0)


def label_axis(axis: Axes, title: str, x: str, y: str, legend: bool = True) -> None:
    """Title, names of both axes, a light grid, no frame, and a legend if it shall have one and anything has a label."""
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if legend and axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize="small")


def about_a_line(returns: Float[np.ndarray, " row"]) -> float:
    """Standard deviation of known returns about a straight line through them; NaN if fewer than three are known.

    Example:
        >>> about_a_line(np.array([0.0, 1.0, 2.0, 3.0])) < 1e-9
        True
    """
    known = np.isfinite(returns)
    if known.sum() < 3:
        return float("nan")
    x, y = np.flatnonzero(known).astype(float), returns[known]
    slope, offset = np.polyfit(x - x.mean(), y, 1)
    return float((y - slope * (x - x.mean()) - offset).std(ddof=2))


def _spent(rows: Sequence[Mapping[str, Any]], axis: Spent) -> Float[np.ndarray, " row"] | None:
    if axis == "env_steps":
        return np.array([row["env_steps"] for row in rows], float)
    if axis == "seconds":
        seconds = np.array([row["time"]["seconds"] for row in rows], float)
        return seconds - seconds[0]
    joules = np.array([_joules(row["time"].get("power", {})) for row in rows])
    if np.isnan(joules).any():
        return None
    # A resumed run's meter begins at 0 again.
    spent = np.diff(joules, prepend=joules[0])
    return np.where(spent < 0, joules, spent).cumsum()


def _joules(power: Mapping[str, float]) -> float:
    """Of all sensors there are; NaN if there is none."""
    known = [power[name] for name in ("gpu_joules", "cpu_joules") if name in power]
    return sum(known) if known else float("nan")


def _last_half(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Two lines at least, the one before the half included: it says where the half begins."""
    if len(rows) < 2:
        raise InputError(f"a training has {len(rows)} lines of metrics; a rate needs at least 2")
    return rows[(len(rows) - 1) // 2 :]


def _mean_use(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """A meter's means are since its start: what the first line already held is taken out again."""
    first, last = (row["time"].get("power", {}) for row in (rows[0], rows[-1]))
    if name not in last:
        return float("nan")
    began, ended = first.get("seconds", 0.0), last["seconds"]
    if name not in first or began >= ended:  # the run was resumed, with a meter that began anew
        return last[name]
    return (last[name] * ended - first[name] * began) / (ended - began)


def _on_grid(course: Course, grid: Float[np.ndarray, " point"]) -> Float[np.ndarray, " point"]:
    """Between known returns; the first and the last of them beyond."""
    if not len(course.returns):
        return np.full(len(grid), np.nan)
    return np.interp(grid, course.spent, course.returns)


def _smoothed(course: Course, share: float = 0.05) -> Course:
    """With the mean of the last twentieth of all returns in place of each; at the start of fewer."""
    window = max(int(share * len(course.returns)), 1)
    sums = np.cumsum(np.insert(course.returns, 0, 0.0))
    end = np.arange(1, len(course.returns) + 1)
    start = np.maximum(end - window, 0)
    return course._replace(returns=(sums[end] - sums[start]) / (end - start))


def _returns(run: Path) -> list[np.ndarray]:
    """Of each seed, a number for each line of its metrics; NaN where no episode ended."""
    rows = (read_metrics(folder / "metrics.jsonl") for folder in run_folders(run))
    return [np.array([row["episodic_return"] for row in each], float) for each in rows]


def _known_mean(returns: Float[np.ndarray, " row"]) -> float:
    """NaN where no episode ended."""
    return float(np.nanmean(returns)) if np.isfinite(returns).any() else float("nan")


def _mean_by_task(folder: Path, share: float) -> Float[np.ndarray, " task"]:
    rows = read_metrics(folder / "metrics.jsonl")
    last = rows[-max(int(share * len(rows)), 1) :]
    returns = np.array([row["task_return"]["each"] for row in last], float)  # null becomes NaN
    counts = np.isfinite(returns).sum(0)
    return np.divide(np.nansum(returns, 0), counts, out=np.full(len(counts), np.nan), where=counts > 0)


def _draw(axis: Axes, label: str, curve: Curve, count: int, style: Style) -> None:
    x, mean = curve.x / count / 1000, curve.episodic_return.mean(0)
    error = standard_error(curve.episodic_return)
    label = f"{label}, {len(curve.episodic_return)} seeds"
    axis.plot(x, mean, color=style.colour, linestyle=style.line, label=label)
    axis.fill_between(x, mean - error, mean + error, color=style.colour, alpha=0.2, linewidth=0)
