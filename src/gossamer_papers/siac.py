"""Diff-DAC's figures 2, 3 and 8: what tests in training say of SiAC and Dist-MTPS, and whether each claim holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from gossamer.analysis.pictures import BOUND, styles
from gossamer.errors import InputError
from gossamer.experience import Episodes
from gossamer.recipes import diffdac as trainings
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import read_metrics
from gossamer.runs.restore import run_folders
from gossamer_papers.measures import (
    EARLY,
    LATE,
    Course,
    about_a_line,
    draw_courses,
    interval,
    label_axis,
)
from gossamer_papers.protocol import Claim, Findings, Reproduction, Runs, higher, similar, unpublished

_EPOCH = 5  # episodes in each environment
_NEAR = 0.9  # of the way from the lowest to the highest: what "near maximum" is taken to mean
_LEARNED = 0.5  # of the same way: who never came so far has little to lose, and its stability is not judged
_STABILITY_EARLY = 0.5  # share of training: in its first fifth no agent has learned anything yet

_LABELS = {
    "diffusion": "Diff-SiAC",
    "centralised": "centralised SiAC",
    "reinforce": "Dist-MTPS REINFORCE",
    "power": "Dist-MTPS PoWER",
}
_STABILITY_LABELS = {
    "diffusion": "Diff-SiAC",
    "centralised": "centralised SiAC",
    "centralised-averaged": "the same, from the mean of 25 networks",
}
_FAMILIES = {"pendulum": "inverted pendulum", "swingup": "cart-pole swing-up"}


def figure_2(runs: Runs) -> Findings:
    """25 tasks of the pendulum and of swing-up: who is fast, who is stable."""
    return _stability(runs, "", "Figure 2: 25 tasks")


def figure_8(runs: Runs) -> Findings:
    """As figure 2, with 25 copies of one task."""
    return _stability(runs, "-single", "Figure 8: 25 copies of one task")


def figure_3(runs: Runs) -> Findings:
    """Cart-pole balance: Diff-SiAC, centralised SiAC and Dist-MTPS; where they start, and what one failure does."""
    tests = {name.removeprefix("balance-"): returns_in_tests(run) for name, run in runs.items()}
    begin = {name: early_tests(each) for name, each in tests.items()}
    end = {name: final_tests(each) for name, each in tests.items()}
    unrest = {name: fluctuation_of_tests(each) for name, each in tests.items()}
    claims = (
        *(
            higher(f"Diff-SiAC ends above {_LABELS[other]}", end["diffusion"], end[other])
            for other in ("centralised", "reinforce", "power")
        ),
        higher(
            "centralised SiAC's return varies more (from test to test of a seed)",
            unrest["centralised"],
            unrest["diffusion"],
        ),
        higher("Diff-SiAC learns faster than Dist-MTPS REINFORCE", begin["diffusion"], begin["reinforce"]),
        *(
            higher(
                f"centralised SiAC learns faster than {_LABELS[other]}", begin["centralised"], begin[other]
            )
            for other in ("diffusion", "reinforce", "power")
        ),
        higher("Dist-MTPS PoWER learns faster than Diff-SiAC", begin["power"], begin["diffusion"]),
        similar("centralised SiAC and Dist-MTPS REINFORCE end alike", end["centralised"], end["reinforce"]),
        *_ablations(end),
        unpublished(
            higher(
                "both from the mean of 25 networks: centralised SiAC's return varies more (ours)",
                unrest["centralised-averaged"],
                unrest["diffusion-averaged"],
            )
        ),
        *_after_a_failure(runs),
    )
    data = {
        "early": {name: interval(values) for name, values in begin.items()},
        "final": {name: interval(values) for name, values in end.items()},
        "fluctuation": {name: interval(values) for name, values in unrest.items()},
    }
    return Findings(data, claims, _figure_3_picture(runs, tests))


def returns_in_tests(run: Path, tasks: Sequence[int] | None = None) -> list[Course]:
    """Returns in the tests of each seed over epochs of 5 episodes in each environment, mean over tasks.

    Args:
        run: a training with ``test_every``.
        tasks: which of them count; all by default.
    """
    experience = load_experiment(run).experience
    assert isinstance(experience, Episodes)  # the recipes' own
    found = []
    for folder in run_folders(run):
        rows = [row for row in read_metrics(folder / "metrics.jsonl") if "test" in row]
        if not rows:
            raise InputError(f"{folder} has no tests; train it with test_every (--test-every)")
        epochs = np.array([row["round"] * experience.episodes_per_environment / _EPOCH for row in rows])
        returns = np.array([row["test"]["task_return"] for row in rows], float)
        found.append(Course(epochs, returns[:, tasks if tasks is not None else slice(None)].mean(1)))
    return found


def early_tests(seeds: Sequence[Course], share: float = EARLY) -> Float[np.ndarray, " seed"]:
    """Mean of each seed's tests in the first part of training, of one at least.

    Example:
        >>> early_tests([Course(np.arange(10.0), np.arange(10.0))]).tolist()
        [0.5]
    """
    return np.array([each.returns[: max(int(share * len(each.returns)), 1)].mean() for each in seeds])


def final_tests(seeds: Sequence[Course]) -> Float[np.ndarray, " seed"]:
    """Mean of each seed's tests in the last tenth of training, of one at least.

    Example:
        >>> final_tests([Course(np.arange(10.0), np.arange(10.0))]).tolist()
        [9.0]
    """
    return np.array([each.returns[-max(int(LATE * len(each.returns)), 1) :].mean() for each in seeds])


def fluctuation_of_tests(seeds: Sequence[Course]) -> Float[np.ndarray, " seed"]:
    """Standard deviation of each seed's tests about a straight line through them, in the last half of training.

    Example:
        >>> rising = Course(np.arange(6.0), np.arange(6.0))
        >>> fluctuation_of_tests([rising]).round(6).tolist()
        [0.0]
    """
    return np.array([about_a_line(each.returns[len(each.returns) // 2 :]) for each in seeds])


def loss_from_best(seeds: Sequence[Course]) -> Float[np.ndarray, " seed"]:
    """By how much each seed's tests lie below its best one so far, mean over the last half of training.

    A rise does not count, as it would in a deviation about a line.

    Example:
        >>> rising = Course(np.arange(4.0), np.array([0.0, 0.2, 0.5, 0.9]))
        >>> collapsing = Course(np.arange(4.0), np.array([0.0, 0.9, 0.1, 0.3]))
        >>> loss_from_best([rising, collapsing]).round(6).tolist()
        [0.0, 0.7]
    """
    losses = (np.maximum.accumulate(each.returns) - each.returns for each in seeds)
    return np.array([each[len(each) // 2 :].mean() for each in losses])


def _stability(runs: Runs, suffix: str, title: str) -> Findings:
    claims: list[Claim] = []
    data: dict[str, Any] = {}
    panels = {}
    for family, words in _FAMILIES.items():
        trained = {name: runs.get(f"{family}{suffix}-{name}") for name in _STABILITY_LABELS}
        tests = {name: returns_in_tests(run) for name, run in trained.items() if run is not None}
        scaled = _scaled(tests)
        begin = {name: early_tests(each, _STABILITY_EARLY) for name, each in scaled.items()}
        end = {name: final_tests(each) for name, each in scaled.items()}
        claims += [
            _near_maximum(f"{words}: centralised SiAC nears the maximum", scaled["centralised"]),
            _less_stable(
                f"{words}: centralised SiAC is less stable", scaled["centralised"], scaled["diffusion"]
            ),
            higher(
                f"{words}: centralised SiAC learns faster at first", begin["centralised"], begin["diffusion"]
            ),
            unpublished(
                higher(f"{words}: Diff-SiAC ends above (ours)", end["diffusion"], end["centralised"])
            ),
        ]
        if "centralised-averaged" in tests:
            claims += _from_the_mean(words, scaled, begin, end)
        data[family] = {
            "final": {name: interval(final_tests(each)) for name, each in tests.items()},
            "scaled_early": {name: interval(values) for name, values in begin.items()},
            "scaled_final": {name: interval(values) for name, values in end.items()},
            "scaled_loss_from_best": {name: interval(loss_from_best(each)) for name, each in scaled.items()},
        }
        panels[words] = scaled
    return Findings(data, tuple(claims), _stability_picture(panels, title))


def _from_the_mean(
    words: str, scaled: Mapping[str, Sequence[Course]], *measures: Mapping[str, Any]
) -> list[Claim]:
    """What remains where the centralised learner starts from the mean of 25 networks, near which Diff-SiAC soon is."""
    begin, end = ((each["centralised-averaged"], each["diffusion"]) for each in measures)
    who = f"{words}: centralised SiAC from the mean of 25 networks"
    return [
        unpublished(_near_maximum(f"{who} nears the maximum (ours)", scaled["centralised-averaged"])),
        unpublished(
            _less_stable(f"{who} is less stable (ours)", scaled["centralised-averaged"], scaled["diffusion"])
        ),
        unpublished(higher(f"{who} learns faster at first (ours)", *begin)),
        unpublished(higher(f"{who} ends below Diff-SiAC (ours)", *reversed(end))),
    ]


def _scaled(tests: Mapping[str, Sequence[Course]]) -> dict[str, list[Course]]:
    """Returns as a share of the way from the lowest test of any seed of both published algorithms to the highest.

    The paper divides by the maximum, which says little where returns are negative.
    """
    published = [each.returns for name in ("diffusion", "centralised") for each in tests[name]]
    every = np.concatenate(published)
    low, high = every.min(), max(every.max(), every.min() + 1e-12)
    return {
        name: [Course(each.spent, (each.returns - low) / (high - low)) for each in seeds]
        for name, seeds in tests.items()
    }


def _less_stable(text: str, first: Sequence[Course], second: Sequence[Course]) -> Claim:
    """Whether the first loses more of what it had reached; undecided if it never reached anything."""
    reached, _ = _best_of_median(first)
    if reached < _LEARNED:
        evidence = (
            f"its median seed never comes farther than {reached:.2f} of the highest test: nothing to lose"
        )
        return Claim(text, "not decided", evidence)
    claim = higher(text, loss_from_best(first), loss_from_best(second))
    return claim._replace(evidence=f"below the best test so far, mean of the last half: {claim.evidence}")


def _best_of_median(seeds: Sequence[Course]) -> tuple[float, int]:
    """The highest mean of a window of successive tests of the median seed, and the window's length."""
    median = np.median([each.returns for each in seeds], axis=0)
    window = max(int(LATE * len(median)), 1)
    return float(np.convolve(median, np.full(window, 1 / window), mode="valid").max()), window


def _near_maximum(text: str, seeds: Sequence[Course]) -> Claim:
    if len(seeds) < 2:
        return Claim(text, "not run", "a median over seeds needs two of them")
    best, window = _best_of_median(seeds)
    evidence = (
        f"the median over {len(seeds)} seeds reaches {best:.2f} of the highest test, as a mean of {window} tests; "
        f"near means {_NEAR}"
    )
    return Claim(text, "holds" if best >= _NEAR else "does not hold", evidence)


def _ablations(end: Mapping[str, np.ndarray]) -> list[Claim]:
    """What remains of "Diff-SiAC ends above centralised" when both start alike or weigh tasks alike."""
    return [
        unpublished(
            higher(
                "Diff-SiAC from its own initial parameters ends above that from shared ones (ours)",
                end["diffusion"],
                end["diffusion-shared"],
            )
        ),
        unpublished(
            higher(
                "Diff-SiAC from the mean of 25 networks ends above that from shared ones (ours)",
                end["diffusion-averaged"],
                end["diffusion-shared"],
            )
        ),
        unpublished(
            higher(
                "both from the mean of 25 networks: Diff-SiAC ends above centralised SiAC (ours)",
                end["diffusion-averaged"],
                end["centralised-averaged"],
            )
        ),
        unpublished(
            higher(
                "Diff-SiAC from shared parameters ends above centralised SiAC (ours)",
                end["diffusion-shared"],
                end["centralised"],
            )
        ),
        unpublished(
            higher(
                "Diff-SiAC ends above centralised SiAC with task-mean gradients (ours)",
                end["diffusion"],
                end["centralised-tasks"],
            )
        ),
    ]


def _after_a_failure(runs: Runs) -> list[Claim]:
    """Whether the remaining agents keep learning after one has failed."""
    return [
        unpublished(
            _went_on(
                f"{_LABELS[name]}: one failed agent stops {end} others (ours)",
                runs[f"balance-{name}-failure"],
                stops,
            )
        )
        for name, end, stops in (("diffusion", "none of the", False), ("reinforce", "all the", True))
    ]


def _went_on(text: str, run: Path, stops: bool) -> Claim:
    experiment = load_experiment(run)
    failure, others = trainings.FAILS_AFTER * experiment.rounds, experiment.agents - 1
    active = [
        sum(each is not None for each in row["agent_return"]["each"])
        for folder in run_folders(run)
        for row in read_metrics(folder / "metrics.jsonl")
        if row["round"] > failure
    ]
    before, after = (
        [_mean_at(each, epoch) for each in _others(run)] for epoch in (trainings.FAILS_AFTER, 1.0)
    )
    evidence = (
        f"of {others} others {min(active)} to {max(active)} ended episodes in each line of the metrics "
        f"after the failure; greedy return of their tasks {np.mean(before):.1f} at the failure, "
        f"{np.mean(after):.1f} at the end"
    )
    went_as_said = max(active) == 0 if stops else min(active) == others
    return Claim(text, "holds" if went_as_said else "does not hold", evidence)


def _mean_at(course: Course, share: float) -> float:
    """The last test within a share of training."""
    return float(course.returns[course.spent <= share * course.spent[-1]][-1])


def _others(run: Path) -> list[Course]:
    """Tests in the tasks of those that did not fail."""
    tasks = range(load_experiment(run).tasks)
    return returns_in_tests(run, [task for task in tasks if task != trainings.FAILED_AGENT])


def _stability_picture(panels: Mapping[str, Mapping[str, Sequence[Course]]], title: str) -> Figure:
    figure = Figure(figsize=(11, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(panels))
    for axis, (name, scaled) in zip(axes, panels.items(), strict=True):
        for kind, (colour, line) in zip(
            scaled, styles([kind.partition("-")[0] for kind in scaled]), strict=True
        ):
            values = np.stack([each.returns for each in scaled[kind]])
            low, middle, high = np.percentile(values, [25, 50, 75], axis=0)
            epochs = scaled[kind][0].spent
            label = f"{_STABILITY_LABELS[kind]}, {len(values)} seeds"
            axis.plot(epochs, middle, color=colour, linestyle=line, label=label)
            axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set_ylim(-0.02, 1.05)
        words = (
            "epochs of 5 episodes in each environment",
            "test return, lowest 0 to highest 1 (band: quartiles)",
        )
        label_axis(axis, name, *words, legend=False)
    # One for both: curves fill the panels.
    figure.legend(
        handles=axes[0].get_lines(), loc="outside lower center", ncols=3, frameon=False, fontsize="small"
    )
    figure.suptitle(f"{title}; median and quartiles over seeds")
    return figure


def _figure_3_picture(runs: Runs, tests: Mapping[str, Sequence[Course]]) -> Figure:
    figure = Figure(figsize=(15, 4.4), dpi=150, layout="constrained")
    methods, starts, failure = figure.subplots(1, 3, sharey=True)
    names = list(_LABELS)
    for name, style in zip(names, styles(names), strict=True):
        draw_courses(methods, _LABELS[name], tests[name], style)
    labels = {
        "diffusion": "Diff-SiAC, own initial parameters",
        "diffusion-shared": "Diff-SiAC, shared",
        "diffusion-averaged": "Diff-SiAC, mean of 25",
        "centralised": "centralised, one network",
        "centralised-averaged": "centralised, mean of 25",
        "centralised-tasks": "centralised, tasks weigh alike",
    }
    for name, style in zip(labels, styles([name.partition("-")[0] for name in labels]), strict=True):
        draw_courses(starts, labels[name], tests[name], style)
    failing = ("diffusion", "reinforce")
    for name, style in zip(failing, styles(failing), strict=True):
        draw_courses(failure, _LABELS[name], _others(runs[f"balance-{name}-failure"]), style)
    moment = trainings.FAILS_AFTER * tests["diffusion"][0].spent[-1]
    failure.axvline(moment, color=BOUND, linestyle=":", label="one of 25 agents fails")
    titles = ("methods", "where agents start, what gradients weigh", "one failed agent; tasks of the others")
    for axis, title in zip((methods, starts, failure), titles, strict=True):
        label_axis(axis, title, "epochs of 5 episodes in each environment", "")
    methods.set_ylabel("test return, mean over tasks (band: 95 % bootstrap)")
    figure.suptitle("Figure 3: cart-pole balance, 25 tasks")
    return figure


REPRODUCTIONS: dict[str, Reproduction] = {
    each.name: each
    for each in (
        Reproduction(
            "diffdac-fig2",
            trainings.stability,
            figure_2,
            6,
        ),
        Reproduction(
            "diffdac-fig3",
            trainings.balance_comparison,
            figure_3,
            5,
        ),
        Reproduction(
            "diffdac-fig8",
            trainings.stability_of_one_task,
            figure_8,
            6,
        ),
    )
}
