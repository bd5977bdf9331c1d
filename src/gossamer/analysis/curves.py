"""Learning curves of one or several runs as a picture. It reads run folders and knows nothing of what made them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gossamer.analysis.statistics import bootstrap_interval
from gossamer.errors import InputError, require_choice
from gossamer.records import read_config, read_metrics

Abscissa: TypeAlias = Literal["env_steps", "rounds"]

# One colour per kind of training throughout (Okabe and Ito's palette, safe for the colour-blind).
_COLOURS = {"diffusion": "#0072B2", "centralised": "#D55E00", "isolated": "#009E73"}
_OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_POINTS = 400
_SMOOTHING = 20


class Curve(NamedTuple):
    """One training, its seeds as rows on a common grid: environment steps or rounds, returns, distances."""

    label: str
    kind: str
    x: Float[np.ndarray, " point"]
    episodic_return: Float[np.ndarray, "seed point"]
    consensus_distance: Float[np.ndarray, "seed point"]


def plot(
    runs: Sequence[Path],
    out: Path,
    labels: Sequence[str] | None = None,
    abscissa: Abscissa = "env_steps",
    title: str | None = None,
) -> Path:
    """Draw returns and consensus distances of trainings over environment steps or rounds.

    A folder with several seeds is one curve: the mean over seeds, and its 95 % bootstrap interval. Returns are
    means over all tasks of training episodes, smoothed over 20 rounds.

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
    curves = [read_curve(run, abscissa) for run in runs]
    if labels is not None:
        curves = [curve._replace(label=label) for curve, label in zip(curves, labels, strict=True)]
    figure = _draw(curves, abscissa, title)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(out)
    except (OSError, ValueError) as error:
        raise InputError(f"{out} cannot be written ({error}); choose another --out") from error
    return out


def read_curve(run: Path, abscissa: Abscissa = "env_steps") -> Curve:
    """The learning curve of a training, of one seed or several.

    Raises:
        InputError: the folder holds no run, or one without a finished round.
    """
    experiment = read_config(run)["experiment"]
    folders = [run] if experiment["seeds"] == 1 else sorted(run.glob("seed-*"), key=_seed_number)
    seeds = [_read_rows(folder) for folder in folders]
    key = "round" if abscissa == "rounds" else "env_steps"
    end = min(rows[-1][key] for rows in seeds)
    start = max(rows[0][key] for rows in seeds)
    x = np.linspace(start, end, min(_POINTS, len(seeds[0])))
    label, kind = _describe(experiment)

    def on_grid(name: str, window: int) -> np.ndarray:
        return np.stack(
            [np.interp(x, _column(rows, key), _smooth(_column(rows, name), window)) for rows in seeds]
        )

    return Curve(label, kind, x, on_grid("episodic_return", _SMOOTHING), on_grid("consensus_distance", 1))


def _seed_number(folder: Path) -> int:
    return int(folder.name.removeprefix("seed-"))


def _read_rows(folder: Path) -> list[dict[str, Any]]:
    rows = read_metrics(folder / "metrics.jsonl")
    if not rows:
        raise InputError(f"{folder} has not finished a round yet; wait until its metrics.jsonl has a line")
    return rows


def _column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], float)


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last ``window`` values, of fewer at the start."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    return (sums[end] - sums[start]) / (end - start)


def _describe(experiment: dict[str, Any]) -> tuple[str, str]:
    algorithm = experiment["algorithm"]["class"].rpartition(":")[2]
    agents, tasks, topology = experiment["agents"], experiment["tasks"], experiment["topology"]
    if agents == 1:
        return f"centralised {algorithm} (1 agent, {tasks} tasks)", "centralised"
    name = topology.partition(":")[0]
    if name == "isolated":
        return f"isolated {algorithm} ({agents} agents)", "isolated"
    return f"Diff-{algorithm} ({agents} agents, {Path(name).stem.replace('_', ' ')})", "diffusion"


def _draw(curves: Sequence[Curve], abscissa: Abscissa, title: str | None) -> Figure:
    networked = [curve for curve in curves if curve.kind != "centralised"]
    figure = Figure(figsize=(11 if networked else 6.5, 4.2), dpi=150, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, 2 if networked else 1))
    _draw_returns(axes[0], curves)
    if networked:
        _draw_distances(axes[1], networked, _colours(curves))
    for axis in axes:
        axis.set_xlabel("environment steps of all agents" if abscissa == "env_steps" else "rounds")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title)
    return figure


def _colours(curves: Sequence[Curve]) -> dict[str, str]:
    """A colour per label: the kind's own for the first curve of a kind, others for the rest."""
    colours: dict[str, str] = {}
    free = list(_OTHERS)
    for curve in curves:
        own = _COLOURS[curve.kind]
        colours[curve.label] = free.pop(0) if own in colours.values() and free else own
    return colours


def _draw_returns(axis: Axes, curves: Sequence[Curve]) -> None:
    colours = _colours(curves)
    for curve in curves:
        colour, seeds = colours[curve.label], len(curve.episodic_return)
        label = curve.label if seeds == 1 else f"{curve.label}, {seeds} seeds"
        axis.plot(curve.x, curve.episodic_return.mean(0), color=colour, label=label)
        if seeds > 1:
            low, high = bootstrap_interval(curve.episodic_return)
            axis.fill_between(curve.x, low, high, color=colour, alpha=0.2, linewidth=0)
    several = any(len(curve.episodic_return) > 1 for curve in curves)
    axis.set_ylabel("return, mean over tasks" + (" (band: 95 % interval)" if several else ""))
    axis.legend(frameon=False, fontsize="small")


def _draw_distances(axis: Axes, curves: Sequence[Curve], colours: dict[str, str]) -> None:
    for curve in curves:
        axis.plot(curve.x, curve.consensus_distance.mean(0), color=colours[curve.label], label=curve.label)
    axis.set_ylabel("consensus distance (RMS, parameters)")
    axis.set_yscale("log")
