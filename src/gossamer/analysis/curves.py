"""Learning curves of one or several runs as a picture. It reads run folders and knows nothing of what made them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gossamer.analysis.pictures import Style, check_format, save_picture, styles
from gossamer.analysis.statistics import bootstrap_interval
from gossamer.errors import InputError, require_choice
from gossamer.runs.folder import read_config, read_metrics

Abscissa: TypeAlias = Literal["env_steps", "rounds"]

_POINTS = 400
_SMOOTHING = 0.05  # of all lines of the metrics
_MOST_INSIDE = 4  # labels; a longer legend would lie on the curves


class Curve(NamedTuple):
    """One training, its seeds as rows on a common grid: environment steps or rounds, returns, distances."""

    label: str
    kind: str
    x: Float[np.ndarray, " point"]
    episodic_return: Float[np.ndarray, "seed point"]
    consensus_distance: Float[np.ndarray, "seed point"]


def plot(
    runs: Sequence[Path | str],
    out: Path | str,
    labels: Sequence[str] | None = None,
    abscissa: Abscissa = "env_steps",
    title: str | None = None,
) -> Path:
    """Draw returns and consensus distances of trainings over environment steps or rounds.

    A folder with several seeds is one curve: the mean over seeds, and its 95 % bootstrap interval. Returns are
    means over all tasks of training episodes, each the mean of the last twentieth of all lines of the metrics.

    Args:
        runs: folders that ``train`` made.
        out: the picture's path; its ending says the format (png, pdf, svg).
        labels: one for each run; by default what its configuration says.
        abscissa: what the x axis counts.
        title: of the picture.

    Returns:
        ``out``.

    Raises:
        InputError: a folder holds no run or no finished round, or labels do not match the runs.
    """
    require_choice("abscissa", abscissa, ("env_steps", "rounds"))
    if not runs:
        raise InputError("no run was given; give at least one run folder")
    if labels is not None and len(labels) != len(runs):
        raise InputError(f"{len(labels)} labels were given for {len(runs)} runs; give one for each, or none")
    runs, out = [Path(run) for run in runs], Path(out)
    curves = [read_curve(run, abscissa) for run in runs]
    check_format(out)
    if labels is not None:
        curves = [curve._replace(label=label) for curve, label in zip(curves, labels, strict=True)]
    return save_picture(_draw(_distinct(curves, runs), abscissa, title), out)


def read_curve(run: Path, abscissa: Abscissa = "env_steps") -> Curve:
    """The learning curve of a training, of one seed or several.

    Raises:
        InputError: the folder holds no run, or one without a finished round.
    """
    label, kind, folders = _describe(run)
    seeds = [_read_rows(folder) for folder in folders]
    key = "round" if abscissa == "rounds" else "env_steps"
    end = min(rows[-1][key] for rows in seeds)
    start = max(rows[0][key] for rows in seeds)
    x = np.linspace(start, end, min(_POINTS, len(seeds[0])))

    def on_grid(name: str, share: float) -> np.ndarray:
        return np.stack(
            [
                _interpolate(
                    x, _column(rows, key), _smooth(_column(rows, name), max(int(share * len(rows)), 1))
                )
                for rows in seeds
            ]
        )

    return Curve(label, kind, x, on_grid("episodic_return", _SMOOTHING), on_grid("consensus_distance", 0.0))


def _read_rows(folder: Path) -> list[dict[str, Any]]:
    rows = read_metrics(folder / "metrics.jsonl")
    if not rows:
        raise InputError(f"{folder} has not finished a round yet; wait until its metrics.jsonl has a line")
    return rows


def _column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], float)


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the known values among the last ``window``, of fewer at the start; NaN where none is known."""
    known = np.isfinite(values)
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)

    def moving_sum(column: np.ndarray) -> np.ndarray:
        sums = np.cumsum(np.insert(column, 0, 0.0))
        return sums[end] - sums[start]

    counts = moving_sum(known.astype(float))
    totals = moving_sum(np.where(known, values, 0.0))
    return np.divide(totals, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _interpolate(x: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Between known values; NaN before the first of them."""
    known = np.isfinite(values)
    if not known.any():
        return np.full(len(x), np.nan)
    return np.where(x < at[known][0], np.nan, np.interp(x, at[known], values[known]))


def _describe(run: Path) -> tuple[str, str, list[Path]]:
    """What a run's configuration says: its label, the kind of training, and the folders of its seeds."""
    config = read_config(run)
    try:
        experiment = config["experiment"]
        algorithm = re.split("[.:]", experiment["algorithm"]["class"])[-1]
        agents, tasks = int(experiment["agents"]), int(experiment["tasks"])
        copies = int(experiment.get("copies", 1))
        topology = experiment["topology"].partition(":")[0]
        seed, seeds = int(experiment["seed"]), int(experiment["seeds"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{run / 'config.json'} describes no experiment; it must be the file that a run wrote"
        ) from error
    folders = [run] if seeds == 1 else [run / f"seed-{seed + index}" for index in range(seeds)]
    if agents == 1:
        return f"centralised {algorithm} (1 agent, {tasks} tasks)", "centralised", folders
    if topology == "isolated" and copies > 1:
        return f"specialised {algorithm} ({agents} agents, {copies} copies each)", "isolated", folders
    if topology == "isolated":
        return f"isolated {algorithm} ({agents} agents)", "isolated", folders
    return (
        f"Diff-{algorithm} ({agents} agents, {Path(topology).stem.replace('_', ' ')})",
        "diffusion",
        folders,
    )


def _distinct(curves: Sequence[Curve], runs: Sequence[Path]) -> list[Curve]:
    """Labels that occur twice get the name of their folder."""
    labels = [curve.label for curve in curves]
    return [
        curve._replace(label=f"{curve.label}, {run.name}") if labels.count(curve.label) > 1 else curve
        for curve, run in zip(curves, runs, strict=True)
    ]


def _draw(curves: Sequence[Curve], abscissa: Abscissa, title: str | None) -> Figure:
    networked = any(curve.kind != "centralised" for curve in curves)
    beneath = len(curves) > _MOST_INSIDE
    size = (11 if networked else 6.5, 4.2 + (0.15 * len(curves) if beneath else 0.0))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, 2 if networked else 1))
    palette = styles([curve.kind for curve in curves])
    _draw_returns(axes[0], curves, palette)
    if networked:
        _draw_distances(axes[1], curves, palette)
    for axis in axes:
        axis.set_xlabel("environment steps of all agents" if abscissa == "env_steps" else "rounds")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    if beneath:
        columns = 3 if networked else 2
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
    else:
        axes[0].legend(frameon=False, fontsize="small")
    if title:
        figure.suptitle(title)
    return figure


def _draw_returns(axis: Axes, curves: Sequence[Curve], palette: Sequence[Style]) -> None:
    for curve, (colour, line) in zip(curves, palette, strict=True):
        seeds = len(curve.episodic_return)
        label = curve.label if seeds == 1 else f"{curve.label}, {seeds} seeds"
        axis.plot(curve.x, curve.episodic_return.mean(0), color=colour, linestyle=line, label=label)
        if seeds > 1:
            low, high = bootstrap_interval(curve.episodic_return)
            axis.fill_between(curve.x, low, high, color=colour, alpha=0.2, linewidth=0)
    several = any(len(curve.episodic_return) > 1 for curve in curves)
    axis.set_ylabel(
        f"return, mean over tasks\n(of the last 5 %{'; band: 95 % bootstrap' if several else ''})"
    )


def _draw_distances(axis: Axes, curves: Sequence[Curve], palette: Sequence[Style]) -> None:
    for curve, (colour, line) in zip(curves, palette, strict=True):
        if curve.kind != "centralised":
            axis.plot(curve.x, curve.consensus_distance.mean(0), color=colour, linestyle=line)
    axis.set_ylabel("consensus distance\n(RMS over agents, mean over seeds)")
    axis.set_yscale("log")
