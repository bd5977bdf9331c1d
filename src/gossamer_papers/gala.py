"""GALA's figures 1 to 4 and table 1: what is read off the trainings, and whether each claim holds."""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from gossamer.analysis.pictures import BOUND, colours, styles
from gossamer.diagnostics.consensus_bound import holds, is_vacuous
from gossamer.diagnostics.gradient_correlation import mean_off_diagonal
from gossamer.evaluation.evaluate import evaluate
from gossamer.recipes import gala_figures as trainings
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import read_metrics
from gossamer.runs.restore import run_folders
from gossamer_papers.measures import (
    Spent,
    courses,
    draw_courses,
    final,
    fluctuation,
    interval,
    label_axis,
    mean_until,
    mean_use,
    paired_t_test,
    points,
    steps_per_second,
)
from gossamer_papers.protocol import Claim, Findings, Reproduction, Runs, alike, higher, similar, unpublished
from gossamer_papers.published import published_values

_NAMES = {
    "cartpole": "cart-pole balance (in place of Atari)",
    "acrobot": "Acrobot (in place of Atari)",
    **{game: game.replace("_", " ").title() for game in trainings.GAMES},
}
_METHODS = {"gala": "GALA-A2C", "a2c": "A2C", "a3c": "A3C", "impala": "IMPALA"}
_KINDS = {"gala": "diffusion", "a2c": "centralised", "a3c": "a3c", "impala": "impala"}
_AXES: Mapping[Spent, str] = {
    "env_steps": "steps of all simulators",
    "seconds": "seconds",
    "joules": "joules",
}
Matrices: TypeAlias = Sequence[Float[np.ndarray, "agent agent"]]  # a mean one of each seed

_FRAMES = 4  # of Atari, for a step
_SIGNIFICANT = 0.05
_POWER = 0.10  # of the larger mean: what "comparable power" is taken to mean
_EPISODES = 10
_ENOUGH = 0.99  # of the published steps: a training is a whole number of rounds
_ABOVE_A2C = "GALA-A2C is above A2C"
_TRAINED = {"a2c": 10_000_000, "impala": 200_000_000}  # steps of those that table 1 is compared with
_AT_LEAST_AS_OFTEN = "GALA-A2C succeeds at least as often as A2C at every number of simulators"


def figure_1(runs: Runs) -> Findings:
    """How often seeds succeed with more and more simulators; returns over steps, time and energy."""
    success = {game: _success(runs, game) for game in _games(runs)}
    claims = [_never_less_often(game, each) for game, each in success.items()]
    claims += [_by_the_highest(game, each) for game, each in success.items()]
    claims.append(_more_often([pair for each in success.values() for pair in each.pairs]))
    claims += _not_trained(success, _AT_LEAST_AS_OFTEN)
    for game, each in success.items():
        size = _usual(runs, game)
        claims += [
            *_learning(game, runs[f"{game}-gala-{size}"], runs[f"{game}-a2c-{size}"]),
            *_ends(game, each),
        ]
    data = {game: each.plain() for game, each in success.items()}
    return Findings(data, tuple(claims), _figure_1_picture(runs, success))


def figure_2(runs: Runs) -> Findings:
    """How far learners are from their mean and can be; how alike their gradients are."""
    games = _games(runs)
    certified = {game: _certified(runs[f"{game}-gala-certified"]) for game in games}
    matrices = {
        game: {
            "gala": _correlations(runs[f"{game}-gala-certified"]),
            "a2c": _correlations(runs[f"{game}-a2c-correlated"]),
        }
        for game in games
    }
    claims = [
        claim
        for game in games
        for claim in (*_bounds(game, certified[game]), _less_correlated(game, matrices[game]))
    ]
    data = {game: _distances_and_correlations(certified[game], matrices[game]) for game in games}
    return Findings(data, tuple(claims), _figure_2_picture(certified, matrices))


def figure_3(runs: Runs) -> Findings:
    """Frames per second, utilisation of the device and its power, over the number of learners."""
    sizes = sorted({int(name.rpartition("-")[2]) for name in runs})
    found = {
        method: {size: _speed(runs[f"pong-speed-{method}-{size}"]) for size in sizes} for method in _METHODS
    }
    most = {method: rows[sizes[-1]] for method, rows in found.items()}
    data = {
        method: {str(size): speed.plain() for size, speed in rows.items()} for method, rows in found.items()
    }
    return Findings(data, tuple(_faster(sizes[-1], most)), _figure_3_picture(found))


def figure_4(runs: Runs) -> Findings:
    """A3C with batches of several simulators, and with one simulator a worker."""
    claims, data = [], {}
    for game in _games(runs):
        of = {shape: runs[f"{game}-a3c-{shape}"] for shape in _SHAPES}
        claims += _batches(game, of["large-batch"], of["original"])
        data[game] = {
            shape: {"fluctuation": interval(fluctuation(run)), "final": interval(final(run))}
            for shape, run in of.items()
        }
    return Findings(data, tuple(claims), _figure_4_picture(runs))


def table_1(runs: Runs) -> Findings:
    """The best policy that was kept, greedy, beside published scores; from 10M steps on these say anything."""
    scores: dict[str, dict[str, Score]] = {}
    for name, run in runs.items():
        game, method, _ = name.split("-")
        scores.setdefault(game, {})[method] = _best_policy(run)
    claims = [
        claim for game, of in scores.items() for claim in (_above_a2c(game, of), *_beside_published(game, of))
    ]
    claims += _not_trained(scores, _ABOVE_A2C)
    data = {
        game: {"ours": {method: score.plain() for method, score in of.items()}, "published": _published(game)}
        for game, of in scores.items()
    }
    panels = {_NAMES[game]: _rows(game, of) for game, of in scores.items()}
    return Findings(
        data,
        tuple(claims),
        points(panels, "GALA, table 1: the best policy kept, greedy", "points, mean of 10 games (bar: 95 %)"),
    )


class Success(NamedTuple):
    """Of one game: what the A2C of 16 simulators earns in the end and at first, and each method's end at each size."""

    nominal: float
    untrained: float
    final: dict[int, dict[str, Float[np.ndarray, " seed"]]]

    @property
    def known(self) -> bool:
        """Whether half the nominal score tells success: it is less than all, and more than was earned at first."""
        return self.nominal > 0 and self.nominal / 2 > self.untrained

    @property
    def rates(self) -> dict[int, dict[str, float]]:
        """Shares of seeds that end with at least half the nominal score."""
        return self.rates_from(self.nominal / 2)

    def rates_from(self, score: float) -> dict[int, dict[str, float]]:
        """Shares of seeds that end with at least a score."""
        return {
            size: {method: float((values >= score).mean()) for method, values in row.items()}
            for size, row in self.final.items()
        }

    @property
    def highest(self) -> float:
        """The highest mean end of A2C at any size."""
        return max(float(row["a2c"].mean()) for row in self.final.values())

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Rates of GALA-A2C and A2C at each size; none where success tells nothing."""
        return [(row["gala"], row["a2c"]) for row in self.rates.values()] if self.known else []

    def plain(self) -> dict[str, object]:
        """For a file."""
        final = {
            str(size): {m: interval(values) for m, values in row.items()} for size, row in self.final.items()
        }
        rates = {str(size): row for size, row in self.rates.items()}
        return {
            "nominal_score": self.nominal,
            "untrained": self.untrained,
            "success_rate": rates if self.known else None,
            "final": final,
        }


class Certified(NamedTuple):
    """Of one seed, at some moments: updates of each learner, distance, bounds, verdict."""

    round: Float[np.ndarray, " row"]
    distance: Float[np.ndarray, " row"]
    bound: Float[np.ndarray, " row"]
    printed: Float[np.ndarray, " row"]
    holds: Bool[np.ndarray, " row"]

    def over(self, bound: str) -> Float[np.ndarray, " row"]:
        """Distance over ``bound`` or ``printed``; NaN before any agent has moved."""
        values = getattr(self, bound)
        return np.divide(self.distance, values, out=np.full(len(values), np.nan), where=values > 0)


class Speed(NamedTuple):
    """Of each seed: frames per second, utilisation of the GPU (per cent), its power (W)."""

    frames: Float[np.ndarray, " seed"]
    utilisation: Float[np.ndarray, " seed"]
    watts: Float[np.ndarray, " seed"]

    def plain(self) -> dict[str, object]:
        """For a file; what was not measured is null."""
        return {
            name: interval(values) if np.isfinite(values).all() else None
            for name, values in self._asdict().items()
        }


class Score(NamedTuple):
    """Points of the kept policy in each episode, and how many steps its training has made in all."""

    returns: Float[np.ndarray, " episode"]
    steps: int

    @property
    def known(self) -> bool:
        """Whether a policy was kept: an episode had to end."""
        return len(self.returns) > 0

    @property
    def error(self) -> float:
        """Standard error of the mean over episodes."""
        return float(self.returns.std(ddof=1) / math.sqrt(len(self.returns)))

    def row(self) -> dict[str, float]:
        """The mean and its normal 95 % interval."""
        mean, half = float(self.returns.mean()), 1.96 * self.error
        return {"mean": mean, "low": mean - half, "high": mean + half}

    def plain(self) -> dict[str, object]:
        """For a file."""
        known = {**self.row(), "standard_error": self.error} if self.known else {}
        return {**known, "episodes": self.returns.tolist(), "env_steps": self.steps}


_SHAPES = ("large-batch", "original", "original-fewer")


def _games(runs: Runs) -> list[str]:
    return list(dict.fromkeys(name.partition("-")[0] for name in runs))


def _usual(runs: Runs, game: str) -> int:
    """The size whose curves are drawn: 4 learners, as in the paper."""
    sizes = (int(name.rpartition("-")[2]) for name in runs if name.startswith(f"{game}-gala-"))
    return next(size for size in sizes if load_experiment(runs[f"{game}-gala-{size}"]).agents == 4)


def _success(runs: Runs, game: str) -> Success:
    sizes = [int(name.rpartition("-")[2]) for name in runs if name.startswith(f"{game}-gala-")]
    (nominal,) = (run for name, run in runs.items() if name.startswith(f"{game}-nominal-"))
    ends = {size: {m: final(runs[f"{game}-{m}-{size}"]) for m in ("gala", "a2c")} for size in sizes}
    return Success(float(final(nominal).mean()), _at_first(nominal), ends)


def _at_first(run: Path, share: float = 0.05) -> float:
    """Mean over seeds of the first known returns."""
    every = [seed.returns for seed in courses(run, "env_steps")]
    return float(np.mean([each[: max(int(share * len(each)), 1)].mean() for each in every if len(each)]))


def _never_less_often(game: str, success: Success) -> Claim:
    text = f"{_NAMES[game]}: {_AT_LEAST_AS_OFTEN}"
    if not success.known:
        shown = f"the A2C of 16 simulators goes from {success.untrained:.1f} to {success.nominal:.1f}"
        evidence = f"{shown}; half of that is no success"
        return Claim(text, "not run", evidence)
    of = f"what A2C with {trainings.NOMINAL} simulators and the learning rate of one learner ends with"
    return _at_least_as_often(text, success, success.nominal, of)


def _by_the_highest(game: str, success: Success) -> Claim:
    text = f"{_NAMES[game]}: the same, if success is half of A2C's highest end (ours)"
    return unpublished(_at_least_as_often(text, success, success.highest, "A2C's highest mean end"))


def _at_least_as_often(text: str, success: Success, score: float, of: str) -> Claim:
    """As they are: an interval of so few seeds would tell nothing."""
    rates = success.rates_from(score / 2)
    shown = (
        f"{size}: {row['gala']:.0%} against {row['a2c']:.0%} of {len(success.final[size]['gala'])} seeds"
        for size, row in rates.items()
    )
    evidence = (
        f"{', '.join(shown)}; success means at least {score / 2:.1f}, half of {of}; shares without intervals"
    )
    verdict = "holds" if all(row["gala"] >= row["a2c"] for row in rates.values()) else "does not hold"
    return Claim(text, verdict, evidence)


def _not_trained(trained: Mapping[str, Any], statement: str) -> list[Claim]:
    """One claim for all published games that are not among what was trained."""
    games = [_NAMES[game] for game in trainings.GAMES if game not in trained]
    return [Claim(f"{', '.join(games)}: {statement}", "not run", "not part of this scale")] if games else []


def _more_often(pairs: Sequence[tuple[float, float]]) -> Claim:
    text = "GALA-A2C succeeds more often (paired t-test, published p = 0.0001303 of 30 pairs)"
    if len(pairs) < 2:
        return Claim(text, "not run", f"{len(pairs)} pairs of a game and a size; a t-test needs two")
    ours, theirs = np.array(pairs, float).T
    t, p = paired_t_test(ours, theirs)
    shown = f"{ours.mean():.0%} against {theirs.mean():.0%} over {len(pairs)} pairs"
    evidence = f"{shown}, t = {t:.2f}, two-sided p = {p:.2g}"
    if math.isnan(t):
        return Claim(text, "not decided", f"{evidence}; every pair is alike")
    if p >= _SIGNIFICANT:
        return Claim(text, "not decided", evidence)
    return Claim(text, "holds" if t > 0 else "does not hold", evidence)


def _learning(game: str, gala: Path, a2c: Path) -> list[Claim]:
    """With 4 learners: the same over steps, better over time and energy."""
    text = f"{_NAMES[game]}: GALA-A2C is as sample efficient as A2C (mean return over the same steps)"
    name = f"{_NAMES[game]}: GALA-A2C earns more than A2C over the same"
    return [
        _within_budget(similar, text, gala, a2c, "env_steps"),
        _within_budget(higher, f"{name} time", gala, a2c, "seconds"),
        _within_budget(higher, f"{name} energy", gala, a2c, "joules"),
    ]


def _ends(game: str, success: Success) -> list[Claim]:
    return [
        unpublished(
            higher(f"{_NAMES[game]}, {size} simulators: GALA-A2C ends higher (ours)", row["gala"], row["a2c"])
        )
        for size, row in success.final.items()
    ]


def _within_budget(
    rule: Callable[[str, np.ndarray, np.ndarray], Claim], text: str, first: Path, second: Path, axis: Spent
) -> Claim:
    """A rule about mean returns until that seed of both was at its end which had spent least."""
    both = [courses(run, axis) for run in (first, second)]
    if not all(both):
        return Claim(text, "not run", "the machine that trained has no sensor of energy")
    if not all(len(seed.returns) for seeds in both for seed in seeds):
        return Claim(text, "not run", "no episode ended in some seed")
    budget = float(min(seed.spent[-1] for seeds in both for seed in seeds))
    claim = rule(text, *(mean_until(seeds, budget) for seeds in both))
    amount = f"{budget:,.0f}" if budget >= 100 else f"{budget:.1f}"
    return claim._replace(evidence=f"{claim.evidence}; within {amount} {_AXES[axis]}")


def _certified(run: Path) -> list[Certified]:
    found = []
    for folder in run_folders(run):
        rows = _distinct(folder, "certificate")
        columns = {
            name: np.array([row["certificate"][key] for row in rows], float)  # null becomes NaN
            for name, key in (("distance", "distance"), ("bound", "bound"), ("printed", "printed_bound"))
        }
        inside = np.array([row["certificate"]["holds"] for row in rows], bool)
        found.append(Certified(np.array([row["round"] for row in rows], float), **columns, holds=inside))
    return found


def _distinct(folder: Path, key: str) -> list[dict[str, Any]]:
    """The lines that tell something new: what threads are like is seen when a line is written, and they may be ahead.

    Several lines that were due at once then show one moment, which counts once.
    """
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if key in row]
    return [row for index, row in enumerate(rows) if index == 0 or row[key] != rows[index - 1][key]]


def _bounds(game: str, seeds: Sequence[Certified]) -> list[Claim]:
    lines = sum(len(each.holds) for each in seeds)
    inside = sum(int(each.holds.sum()) for each in seeds)
    printed = sum(_within_printed(each) for each in seeds)
    ratio = np.concatenate([each.over("bound") for each in seeds])
    said = f"median of distance / bound {_median(seeds, 'bound'):.3g}, largest {_largest(ratio):.3g}"
    printed_said = f"median of distance / bound {_median(seeds, 'printed'):.3g}"
    name, of = _NAMES[game], f"of {lines} moments of {len(seeds)} seeds"
    says_something = "does not hold" if is_vacuous(ratio) else "holds"
    return [
        _all_of(f"{name}: learners are always within the certified bound", inside, lines, f"{of}; {said}"),
        unpublished(
            Claim(
                f"{name}: the certificate says something: its median is at least 0.01 (ours)",
                says_something,
                said,
            )
        ),
        _all_of(
            f"{name}: learners are always within the bound as printed",
            printed,
            lines,
            f"{of}; {printed_said}",
        ),
    ]


def _all_of(text: str, count: int, lines: int, evidence: str) -> Claim:
    if lines == 0:
        return Claim(text, "not run", "no line of the metrics has a certificate")
    return Claim(text, "holds" if count == lines else "does not hold", f"{count} {evidence}")


def _within_printed(seed: Certified) -> int:
    """A bound too large for a number is recorded as null, and any distance is within it."""
    pairs = zip(seed.distance, seed.printed, strict=True)
    return sum(math.isnan(printed) or holds(distance, printed) for distance, printed in pairs)


def _median(seeds: Sequence[Certified], bound: str) -> float:
    ratio = np.concatenate([each.over(bound) for each in seeds])
    known = ratio[np.isfinite(ratio)]
    return float(np.median(known)) if len(known) else float("nan")


def _largest(ratio: Float[np.ndarray, " row"]) -> float:
    return float(np.max(ratio, initial=0.0, where=np.isfinite(ratio)))


def _correlations(run: Path) -> Matrices:
    """Of each seed, the mean over moments."""
    key = "gradient_correlation"
    return [
        _mean([np.array(row[key], float) for row in _distinct(folder, key)]) for folder in run_folders(run)
    ]


def _mean(matrices: Matrices) -> Float[np.ndarray, "agent agent"]:
    """Over what is known of each pair; NaN where nothing is."""
    stacked = np.stack(matrices)
    known = np.isfinite(stacked).sum(0)
    return np.divide(np.nansum(stacked, 0), known, out=np.full(known.shape, np.nan), where=known > 0)


def _less_correlated(game: str, matrices: Mapping[str, Matrices]) -> Claim:
    text = f"{_NAMES[game]}: A2C's gradients are more correlated than GALA-A2C's (mean over pairs)"
    return _measured(higher, text, _over_pairs(matrices["a2c"]), _over_pairs(matrices["gala"]))


def _over_pairs(matrices: Matrices) -> Float[np.ndarray, " seed"]:
    return np.array([mean_off_diagonal(each) for each in matrices])


def _distances_and_correlations(
    certified: Sequence[Certified], matrices: Mapping[str, Matrices]
) -> dict[str, object]:
    return {
        "median_distance_over_bound": _median(certified, "bound"),
        "median_distance_over_printed_bound": _median(certified, "printed"),
        "gradient_correlation": {method: interval(_over_pairs(each)) for method, each in matrices.items()},
    }


def _faster(size: int, most: Mapping[str, Speed]) -> list[Claim]:
    """What is claimed of GALA-A2C beside each other method, all with the largest number of learners."""
    ours, claims = most["gala"], []
    for method in ("a2c", "a3c", "impala"):
        other, theirs = _METHODS[method], most[method]
        text = f"{size} learners: GALA-A2C makes more frames per second than {other}"
        claims.append(higher(text, ours.frames, theirs.frames))
        claims.append(_comparable_power(f"{size} learners", other, ours.watts, theirs.watts))
        text = f"{size} learners: GALA-A2C uses more of the device than {other}"
        claims.append(_measured(higher, text, ours.utilisation, theirs.utilisation, " %"))
    return claims


def _speed(run: Path) -> Speed:
    return Speed(
        _FRAMES * steps_per_second(run), mean_use(run, "gpu_utilisation"), mean_use(run, "gpu_watts")
    )


def _comparable_power(size: str, other: str, ours: np.ndarray, theirs: np.ndarray) -> Claim:
    margin = _POWER * max(ours.mean(), theirs.mean())
    text = f"{size}: GALA-A2C's power is comparable to {other}'s"
    return _measured(alike, text, ours, theirs, margin, " W")


def _measured(
    rule: Callable[..., Claim], text: str, first: np.ndarray, second: np.ndarray, *arguments: object
) -> Claim:
    """A rule's claim, or none where something was not measured in some seed, for want of a sensor, say."""
    if np.isfinite(first).all() and np.isfinite(second).all():
        return rule(text, first, second, *arguments)
    return Claim(text, "not run", "not measured where it trained")


def _batches(game: str, large: Path, original: Path) -> list[Claim]:
    name = _NAMES[game]
    text = f"{name}: the original's returns fluctuate more (standard deviation about a line, last half)"
    return [
        _measured(higher, text, fluctuation(original), fluctuation(large)),
        _within_budget(
            higher, f"{name}: large-batch A3C earns more over the same steps", large, original, "env_steps"
        ),
        _within_budget(
            higher, f"{name}: large-batch A3C earns more over the same time", large, original, "seconds"
        ),
    ]


def _best_policy(run: Path) -> Score:
    """Of the seed whose training returns before a checkpoint were the highest of all, and there of agent 0.

    Training returns choose, so that the episodes played now are no part of the choice.
    """
    folders = run_folders(run)
    steps = read_metrics(folders[0] / "metrics.jsonl")[-1]["env_steps"]
    kept = [folder for folder in folders if (folder / "best.json").exists()]
    if not kept:
        return Score(np.array([]), steps)
    best = max(kept, key=lambda folder: json.loads((folder / "best.json").read_text())["episodic_return"])
    return Score(evaluate(best, _EPISODES, greedy=True, best=True).returns[0, 0, 0], steps)


def _published(game: str) -> dict[str, float]:
    table = published_values("gala-table1")
    return {name: table[name][game] for name in ("RL-Zoo's A2C, 10M steps", "IMPALA, 200M steps")}


def _above_a2c(game: str, scores: Mapping[str, Score]) -> Claim:
    """Ours beside ours, over the episodes of the best policies."""
    text, ours, theirs = f"{_NAMES[game]}: {_ABOVE_A2C}", scores["gala"], scores["a2c"]
    steps = min(ours.steps, theirs.steps)
    if not (ours.known and theirs.known):
        return Claim(text, "not run", f"no game ended in {steps:,} steps")
    claim = higher(text, ours.returns, theirs.returns)
    claim = claim._replace(evidence=claim.evidence.replace(" seeds", " episodes"))
    if steps < _ENOUGH * _TRAINED["a2c"]:
        return Claim(
            text,
            "not run",
            f"{claim.evidence}; after {steps:,} steps; the comparison is of {_TRAINED['a2c']:,}",
        )
    return claim


def _beside_published(game: str, scores: Mapping[str, Score]) -> list[Claim]:
    (zoo, zoo_points), (impala, impala_points) = _published(game).items()
    claims = [
        _compared(
            f"{_NAMES[game]}: {_METHODS[method]} is not below {zoo} ({zoo_points:g})",
            score,
            _TRAINED["a2c"],
            lambda row: row["high"] >= zoo_points,
        )
        for method, score in scores.items()
    ]
    text = f"{_NAMES[game]}: GALA-A2C is above {impala} ({impala_points:g})"
    return [
        *claims,
        _compared(text, scores["gala"], _TRAINED["impala"], lambda row: row["low"] > impala_points),
    ]


def _rows(game: str, scores: Mapping[str, Score]) -> dict[str, tuple[str, dict[str, float]]]:
    """For the picture: our scores with their intervals, published ones without."""
    ours = {
        f"{_METHODS[method]}, {score.steps:,} steps": (_KINDS[method], score.row())
        for method, score in scores.items()
        if score.known
    }
    return ours | {
        name: ("published", {"mean": value, "low": value, "high": value})
        for name, value in _published(game).items()
    }


def _compared(
    text: str, score: Score, published_steps: int, rule: Callable[[Mapping[str, float]], bool]
) -> Claim:
    if not score.known:
        return Claim(text, "not run", f"no game ended in {score.steps:,} steps")
    shown = f"{score.returns.mean():.2f} ± {score.error:.2f} (s.e. of {len(score.returns)} episodes)"
    evidence = f"{shown} after {score.steps:,} steps"
    if score.steps < _ENOUGH * published_steps:
        return Claim(text, "not run", f"{evidence}; the comparison is of {published_steps:,}")
    return Claim(text, "holds" if rule(score.row()) else "does not hold", evidence)


def _figure_1_picture(runs: Runs, success: Mapping[str, Success]) -> Figure:
    pairs = {
        (game, size): [(_METHODS[m], _KINDS[m], runs[f"{game}-{m}-{size}"]) for m in ("gala", "a2c")]
        for game in success
        for size in sorted({_usual(runs, game), max(success[game].final)})
    }
    axes_of = _known_axes(pairs, ("env_steps", "seconds", "joules"))
    figure, grid = _grid(len(pairs), 1 + len(axes_of))
    for ((game, size), lines), row in zip(pairs.items(), grid, strict=True):
        if size == _usual(runs, game):
            _draw_success(row[0], success[game])
            label_axis(row[0], _NAMES[game], "simulators", "seeds that succeed (%)")
        else:
            row[0].axis("off")  # all sizes are in the panel above
        learners = load_experiment(runs[f"{game}-gala-{size}"]).agents
        _draw_over(row[1:], axes_of, f"{size} simulators, {learners} learners", lines)
    figure.suptitle("GALA, figure 1: success, and returns over what was spent")
    return figure


def _draw_success(axis: Axes, success: Success) -> None:
    if not success.known:
        axis.text(
            0.5, 0.5, "the A2C of 16 simulators\nhas not learned", ha="center", transform=axis.transAxes
        )
        return
    for method, colour in zip(("gala", "a2c"), colours(("diffusion", "centralised")), strict=True):
        rates = [100 * row[method] for row in success.rates.values()]
        style = "o-" if method == "gala" else "s--"
        axis.plot(list(success.rates), rates, style, color=colour, label=_METHODS[method])
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(success.rates), [str(size) for size in success.rates])
    axis.set_ylim(-5, 105)


def _known_axes(panels: Mapping[Any, Sequence[tuple[str, str, Path]]], axes: Sequence[Spent]) -> list[Spent]:
    """Those that every run has numbers for."""
    every = [run for lines in panels.values() for _, _, run in lines]
    return [axis for axis in axes if all(courses(run, axis) for run in every)]


def _draw_over(
    row: Sequence[Axes], axes_of: Sequence[Spent], title: str, lines: Sequence[tuple[str, str, Path]]
) -> None:
    palette = styles([kind for _, kind, _ in lines])
    for axis, spent in zip(row, axes_of, strict=True):
        for (label, _, run), style in zip(lines, palette, strict=True):
            draw_courses(axis, label, courses(run, spent), style)
        label_axis(axis, title, _AXES[spent], "return, mean of the last 5 % (band: 95 % bootstrap)")
        if spent != "seconds":
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def _figure_2_picture(
    certified: Mapping[str, Sequence[Certified]], matrices: Mapping[str, Mapping[str, Matrices]]
) -> Figure:
    figure, grid = _grid(len(certified), 4)
    for (game, seeds), row in zip(certified.items(), grid, strict=True):
        _draw_distances(row[0], seeds[0])
        label_axis(
            row[0], f"{_NAMES[game]}, first seed", "updates of each learner", "distance to the mean (RMS)"
        )
        row[1].plot(seeds[0].round, seeds[0].over("bound"), color=colours(["diffusion"])[0])
        row[1].set_ylim(0, None)
        label_axis(row[1], "how much of its bound", "updates of each learner", "distance / certified bound")
        for axis, (method, each) in zip(row[2:], matrices[game].items(), strict=True):
            mean = _mean(each)
            _draw_matrix(axis, mean, f"{_METHODS[method]}, mean of pairs {mean_off_diagonal(mean):.2f}")
    figure.suptitle("GALA, figure 2: distance of learners and its bound; correlation of their gradients")
    return figure


def _draw_distances(axis: Axes, certified: Certified) -> None:
    ours = colours(["diffusion"])[0]
    lines = (("distance", "solid", ours), ("bound", "dashed", BOUND), ("printed", "dotted", BOUND))
    for name, style, colour in lines:
        label = {"distance": "distance", "bound": "certified bound", "printed": "bound as printed"}[name]
        values = getattr(certified, name)
        axis.plot(
            certified.round, np.where(values > 0, values, np.nan), linestyle=style, color=colour, label=label
        )
    axis.set_yscale("log")


def _draw_matrix(axis: Axes, matrix: Float[np.ndarray, "agent agent"], title: str) -> None:
    image = axis.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
    for i, j in itertools.product(range(len(matrix)), repeat=2):
        colour = "white" if abs(matrix[i, j]) > 0.6 else "black"
        axis.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize="small", color=colour)
    axis.set_xticks(range(len(matrix)))
    axis.set_yticks(range(len(matrix)))
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel("learner")
    axis.set_ylabel("learner")
    axis.figure.colorbar(image, ax=axis, shrink=0.8, label="correlation of gradients")


def _figure_3_picture(found: Mapping[str, Mapping[int, Speed]]) -> Figure:
    names = {"frames": "frames per second", "utilisation": "utilisation of the GPU (%)", "watts": "power (W)"}
    measured = [
        name
        for name in names
        if all(np.isfinite(getattr(speed, name)).all() for rows in found.values() for speed in rows.values())
    ]
    figure, grid = _grid(1, len(measured))
    for axis, name in zip(grid[0], measured, strict=True):
        for (method, rows), colour in zip(found.items(), colours([_KINDS[m] for m in found]), strict=True):
            _draw_sizes(
                axis, _METHODS[method], {n: getattr(speed, name) for n, speed in rows.items()}, colour
            )
        label_axis(axis, "Pong", "learners (workers, actors)", f"{names[name]} (bar: range over seeds)")
        axis.set_ylim(0, None)
    figure.suptitle("GALA, figure 3: speed, mean over seeds")
    return figure


def _draw_sizes(axis: Axes, label: str, values: Mapping[int, np.ndarray], colour: str) -> None:
    mean = np.array([each.mean() for each in values.values()])
    reach = np.array([[each.mean() - each.min(), each.max() - each.mean()] for each in values.values()]).T
    axis.errorbar(list(values), mean, yerr=reach, marker="o", color=colour, label=label, capsize=3)
    axis.set_xticks(list(values))


def _figure_4_picture(runs: Runs) -> Figure:
    games = _games(runs)
    panels = {game: [_a3c_line(runs, game, shape) for shape in _SHAPES] for game in games}
    figure, grid = _grid(len(games), 2)
    for (game, lines), row in zip(panels.items(), grid, strict=True):
        _draw_over(row, ("env_steps", "seconds"), _NAMES[game], lines)
    figure.suptitle("GALA, figure 4: A3C with large batches and the original")
    return figure


def _a3c_line(runs: Runs, game: str, shape: str) -> tuple[str, str, Path]:
    run = runs[f"{game}-a3c-{shape}"]
    experiment = load_experiment(run)
    each = experiment.copies // experiment.workers
    return f"{experiment.workers} workers × {each} simulator{'s' if each > 1 else ''}", "a3c", run


def _grid(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(0.8 + 4.4 * columns, 0.6 + 3.6 * rows), dpi=150, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


REPRODUCTIONS: Mapping[str, Reproduction] = {
    each.name: each
    for each in (
        Reproduction(
            "gala-fig1",
            trainings.success,
            figure_1,
            10,
        ),
        Reproduction(
            "gala-fig2",
            trainings.correlation,
            figure_2,
            10,
        ),
        Reproduction(
            "gala-fig3",
            trainings.speed,
            figure_3,
            10,
        ),
        Reproduction(
            "gala-fig4",
            trainings.a3c_batches,
            figure_4,
            10,
        ),
        Reproduction(
            "gala-table1",
            trainings.best_policies,
            table_1,
            10,
        ),
    )
}
