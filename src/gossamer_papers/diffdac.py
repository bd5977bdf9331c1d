"""Diff-DAC's figures 4 to 7 and tables I to III: what is read off the trainings, and whether each claim holds."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from gossamer.analysis.pictures import Style, shades
from gossamer.analysis.statistics import relative_difference_interval
from gossamer.environments import TaskSet
from gossamer.environments.acrobot import EASY, HARD
from gossamer.evaluation.evaluate import evaluate
from gossamer.recipes import diffdac as trainings
from gossamer.recipes.diffdac import FAILURES, Scale, Trainings
from gossamer.runs.description import load_experiment
from gossamer_papers.measures import (
    deviations,
    early,
    environments_of_each,
    final,
    final_by_task,
    interval,
    learning_curves,
    never_learned,
    points,
)
from gossamer_papers.protocol import Claim, Findings, Reproduction, Runs, alike, higher, similar, unpublished
from gossamer_papers.published import published_values

_EPISODES = 10


def figure_4(runs: Runs) -> Findings:
    """Acrobot: who learns fast, who ends high, and whether the optimiser matters."""
    names = ("diffusion", "diffusion-synchronous", "centralised", "specialised", "specialised-slower")
    of = {name: runs[f"acrobot-{name}"] for name in (*names, "diffusion-adam", "centralised-adam")}
    end = {name: final(run) for name, run in of.items()}
    begin = {name: early(run) for name, run in of.items()}
    by_task = {name: np.nanmedian(final_by_task(run), axis=1) for name, run in of.items()}
    claims = (
        higher("centralised A2C learns faster at first", begin["centralised"], begin["diffusion"]),
        similar("Diff-A2C ends as high as centralised A2C", end["diffusion"], end["centralised"]),
        higher("specialised agents end above Diff-A2C", end["specialised"], end["diffusion"]),
        higher("specialised agents end above centralised A2C", end["specialised"], end["centralised"]),
        unpublished(
            higher(
                "specialised agents end above Diff-A2C on the median task (ours)",
                by_task["specialised"],
                by_task["diffusion"],
            )
        ),
        unpublished(
            higher(
                "specialised agents with Diff-A2C's learning rate end above Diff-A2C (ours)",
                end["specialised-slower"],
                end["diffusion"],
            )
        ),
        unpublished(
            higher(
                "specialised agents with Diff-A2C's learning rate end above centralised A2C (ours)",
                end["specialised-slower"],
                end["centralised"],
            )
        ),
        _everybody_learns("specialised", of["specialised"]),
        _everybody_learns("specialised with Diff-A2C's learning rate", of["specialised-slower"]),
        _everybody_learns("Diff-A2C", of["diffusion"]),
        similar("Diff-A2C: Adam changes little", end["diffusion-adam"], end["diffusion"]),
        similar("centralised A2C: Adam changes little", end["centralised-adam"], end["centralised"]),
        unpublished(
            similar(
                "Diff-A2C: the seeded asynchrony changes little (ours)",
                end["diffusion"],
                end["diffusion-synchronous"],
            )
        ),
    )
    panel = [
        ("Diff-A2C, staleness ≤ 5", "diffusion", of["diffusion"]),
        ("Diff-A2C, synchronous", "diffusion", of["diffusion-synchronous"]),
        ("centralised A2C", "centralised", of["centralised"]),
        ("specialised A2C", "isolated", of["specialised"]),
        ("specialised A2C, rate 0.0007", "isolated", of["specialised-slower"]),
    ]
    picture = learning_curves(
        {"Extreme Acrobot, 25 tasks": panel}, "Figure 4: Diff-A2C on a ring of 25 agents"
    )
    data = {
        **_early_and_final(begin, end),
        "final_median_task": {name: interval(values) for name, values in by_task.items()},
        "tasks_never_learned": {name: never_learned(run) for name, run in of.items()},
    }
    return Findings(data, claims, picture)


def figure_5(runs: Runs) -> Findings:
    """Hopper with random mass and with random wind."""
    claims, data, panels = [], {}, {}
    for family in ("mass", "wind"):
        kinds = [
            name for name in ("diffusion", "centralised", "specialised") if f"hopper-{family}-{name}" in runs
        ]
        of = {name: runs[f"hopper-{family}-{name}"] for name in kinds}
        begin = {name: early(run) for name, run in of.items()}
        end = {name: final(run) for name, run in of.items()}
        claims += [
            higher(
                f"{family}: centralised A2C learns faster at first", begin["centralised"], begin["diffusion"]
            ),
            higher(f"{family}: Diff-A2C ends above centralised A2C", end["diffusion"], end["centralised"]),
            *(
                _noting_copies(
                    higher(f"{family}: specialised agents end above {who}", end["specialised"], end[other]),
                    of["specialised"],
                    of["diffusion"],
                )
                for who, other in (("Diff-A2C", "diffusion"), ("centralised A2C", "centralised"))
            ),
            _adam_on_hopper(family, runs, end),
        ]
        data[family] = _early_and_final(begin, end)
        labels = {"diffusion": "Diff-A2C", "centralised": "centralised A2C", "specialised": "specialised A2C"}
        kind = {"diffusion": "diffusion", "centralised": "centralised", "specialised": "isolated"}
        panels[f"random {family}, 25 tasks"] = [(labels[name], kind[name], of[name]) for name in kinds]
    return Findings(
        data, tuple(claims), learning_curves(panels, "Figure 5: Diff-A2C on Hopper, ring of 25 agents")
    )


def figure_6(runs: Runs) -> Findings:
    """Sparse and dense networks of 25 agents, and 100 agents, on one task."""
    of = {name: runs[f"balance-{name}"] for name in ("25-sparse", "25-dense", "100")}
    begin = {name: early(run, share=0.5) for name, run in of.items()}
    end = {name: final(run) for name, run in of.items()}
    claims = (
        higher("sparse is slightly slower than dense", begin["25-dense"], begin["25-sparse"]),
        similar("sparse and dense end alike", end["25-sparse"], end["25-dense"]),
        higher("100 agents end higher than 25", end["100"], end["25-sparse"]),
    )
    panel = [
        ("25 agents, mean neighbourhood 4.2", "diffusion", of["25-sparse"]),
        ("25 agents, mean neighbourhood 8.3", "diffusion", of["25-dense"]),
        ("100 agents, mean neighbourhood 16.7", "diffusion", of["100"]),
    ]
    picture = learning_curves({"cart-pole balance, one task": panel}, "Figure 6: Diff-SiAC and its network")
    return Findings(_early_and_final(begin, end), claims, picture)


def figure_7(runs: Runs) -> Findings:
    """Links that fail with probability p."""
    families = sorted({name.split("-")[1] for name in runs})
    claims, data, panels = [], {}, {}
    for family, rule in itertools.product(families, ("most-recent", "whatever-arrived")):
        of = {p: runs.get(f"noisy-{family}-{rule}-{p:g}") for p in FAILURES}
        known = {p: run for p, run in of.items() if run is not None}
        who = f"{family}, {rule}{'' if rule == _PUBLISHED_RULE else ' (ours)'}"
        if len(known) < 2:
            text = f"{who}: similar at the end even at p = 0.8"
            claims.append(Claim(text, "not run", "not part of this scale", rule != _PUBLISHED_RULE))
            continue
        begin = {p: early(run, share=1.0) for p, run in known.items()}
        end = {p: final(run) for p, run in known.items()}
        both = (
            higher(f"{who}: slower at p = 0.8 than at p = 0", begin[0.0], begin[0.8]),
            similar(f"{who}: similar at the end at p = 0.8", end[0.8], end[0.0]),
        )
        claims += both if rule == _PUBLISHED_RULE else map(unpublished, both)
        learned = {p: np.array(never_learned(run)) == 0 for p, run in known.items()}
        if not all(each.all() for each in learned.values()):
            text = f"{who}: similar at the end at p = 0.8, of the seeds that learned anything (ours)"
            claims.append(unpublished(similar(text, end[0.8][learned[0.8]], end[0.0][learned[0.0]])))
        data[f"{family}-{rule}"] = {
            **_early_and_final(begin, end),
            "seeds_that_learned": {str(p): int(each.sum()) for p, each in learned.items()},
        }
        panels[f"{family}, {rule.replace('-', ' ')}"] = [
            (f"p = {p:g}", "diffusion", run) for p, run in known.items()
        ]
    picture = learning_curves(
        panels, "Figure 7: Diff-A2C, 14 agents in a ring whose links fail with probability p", _FAILING
    )
    return Findings(data, tuple(claims), picture)


def table_1(runs: Runs) -> Findings:
    """How alike the parameters of agents are at the end, and whether an agent is better on its own task."""
    claims, data = [], {}
    for family, published in published_values("diffdac-table1").items():
        diffusion, specialised = published["diffusion"], published["specialised"]
        names = [name for name in runs if name.startswith(family)]
        if f"{family}-diffusion" not in names:
            text = f"{family}: Diff-A2C {diffusion} %, specialised {specialised} %"
            claims.append(Claim(text, "not run", "not part of this scale"))
            continue
        found = {name: deviations(runs[name]) for name in names}
        percent = {name: 100 * np.array([each.mean for each in seeds]) for name, seeds in found.items()}
        median = {name: 100 * np.array([each.median for each in seeds]) for name, seeds in found.items()}
        data[family] = {
            name: {"mean_percent": interval(percent[name]), "median_percent": interval(median[name])}
            for name in names
        }
        ours, special = median[f"{family}-diffusion"], median[f"{family}-specialised"]
        claims.append(
            _about(
                f"{family}: Diff-A2C's agents differ by {diffusion} %",
                percent[f"{family}-diffusion"],
                diffusion,
            )
        )
        claims.append(
            _about(
                f"{family}: specialised agents differ by {specialised} %",
                percent[f"{family}-specialised"],
                specialised,
            )
        )
        claims.append(
            higher(f"{family}: specialised agents differ more (medians over parameters)", special, ours, " %")
        )
        claims += [
            unpublished(
                higher(
                    f"{family}, medians: agents of {_METHODS[method][1]} differ less if they start alike (ours)",
                    median[f"{family}-{method}"],
                    median[f"{family}-{method}-shared"],
                    " %",
                )
            )
            for method in ("diffusion", "specialised")
            if f"{family}-{method}-shared" in median
        ]
        text = f"{family}: an agent earns no more on its own task (published 0.07 ± 3.4 %)"
        if family != "acrobot":
            claims.append(Claim(text, "not run", "every agent on every task takes long on the host"))
            continue
        advantage = _own_task_advantage(runs[f"{family}-diffusion"])
        data[family]["own_task_advantage_percent"] = interval(advantage)
        claims.append(_alike_percent(text, advantage))
    return Findings(data, tuple(claims), _deviation_picture(data))


def table_2(runs: Runs) -> Findings:
    """Zero-shot returns on an easy and a hard Acrobot, of one agent of each run drawn at random."""
    tables = {policy: _zero_shot(runs, greedy=policy == "greedy") for policy in ("sampled", "greedy")}
    claims = []
    for policy, sample in itertools.product(tables, ("random_agent", "all_agents")):
        chosen = {method: rows[sample] for method, rows in tables[policy].items()}
        pairs = [("specialised", "diffusion", "train"), ("diffusion", "specialised", "easy")]
        pairs += [("diffusion", "specialised", "hard"), ("diffusion", "centralised", "easy")]
        pairs += [("diffusion", "centralised", "hard"), ("specialised-slower", "diffusion", "train")]
        pairs += [("diffusion", "specialised-slower", "easy"), ("diffusion", "specialised-slower", "hard")]
        claims += [
            higher(
                f"{_POLICIES[policy]}, {_SAMPLES[sample]}: {_SPECIALISED.get(better, better)} above "
                f"{_SPECIALISED.get(worse, worse)} on {task}",
                chosen[better][task],
                chosen[worse][task],
            )._replace(
                unpublished=policy != "sampled"
                or sample != "random_agent"
                or "specialised-slower" in (better, worse)
            )
            for better, worse, task in pairs
        ]
    data = {"policy": _plain(tables), "published": published_values("diffdac-table2")}
    return Findings(data, tuple(claims), _zero_shot_picture(tables["sampled"]))


def table_3(runs: Runs) -> Findings:
    """Table II relative to the specialised agents (also to those that learn slower), in per cent."""
    table = _zero_shot(runs, greedy=False)
    published = published_values("diffdac-table3")
    data, claims = {}, []
    for base, (sample, words), method in itertools.product(_SPECIALISED, _SAMPLES.items(), published):
        for task, percent in published[method].items():
            ours, theirs = table[method][sample][task], table[base][sample][task]
            estimate, low, high = relative_difference_interval(ours, theirs)
            known = {"percent": estimate, "low": low, "high": high}
            data.setdefault(base, {}).setdefault(sample, {}).setdefault(method, {})[task] = known
            where = f"{'above' if percent > 0 else 'below'} {_SPECIALISED[base]} on {task}"
            text = f"{words}: {method} {where} (published {percent} %)"
            # As in table II: the bootstrap interval of the ratio is for the picture.
            claim = higher(text, *((ours, theirs) if percent > 0 else (theirs, ours)))
            claims.append(
                claim._replace(
                    evidence=f"{estimate:.1f} %: {claim.evidence}",
                    unpublished=base != "specialised" or sample != "random_agent",
                )
            )
    picture = _relative_picture(data["specialised"])
    return Findings({"percent_relative_to": data, "published": published}, tuple(claims), picture)


_SPECIALISED = {
    "specialised": "specialised",
    "specialised-slower": "specialised with Diff-A2C's learning rate (ours)",
}
_POLICIES = {"sampled": "sampled", "greedy": "greedy (ours)"}
_SAMPLES = {"random_agent": "one agent of each run", "all_agents": "all agents (ours)"}
_METHODS = {
    "diffusion": ("diffusion", "Diff-A2C"),
    "centralised": ("centralised", "centralised A2C"),
    "specialised": ("isolated", "specialised A2C"),
    "specialised-slower": ("isolated", "specialised, rate 0.0007"),
}
_PUBLISHED_RULE = "most-recent"
_FAILING = {
    f"p = {p:g}": Style(colour, line)
    for p, colour, line in zip(
        FAILURES,
        shades("diffusion", len(FAILURES)),
        ("solid", "dashed", "dashdot", "dotted", (0, (6, 1, 1, 1, 1, 1))),
        strict=True,
    )
}


def _zero_shot(runs: Runs, greedy: bool) -> dict[str, dict[str, dict[str, Float[np.ndarray, " seed"]]]]:
    """Per method: the mean over 10 episodes of one agent drawn at random in each run, and of all agents."""
    table = {}
    for method, run in ((name.removeprefix("acrobot-"), run) for name, run in runs.items()):
        own = evaluate(run, _EPISODES, greedy)
        returns = own.returns.mean(-1)  # [seed, agent, task]
        seeds, agents, _ = returns.shape
        drawn = np.random.default_rng(0).integers(agents, size=seeds)
        mine = np.where(own.trained[None], returns, np.nan)
        columns = {"train": np.nanmean(mine, axis=2)}
        for name, task in (("easy", EASY), ("hard", HARD)):
            columns[name] = evaluate(run, _EPISODES, greedy, task_set=TaskSet((task,))).returns.mean((-1, -2))
        every = np.arange(seeds)
        table[method] = {
            "random_agent": {name: column[every, drawn] for name, column in columns.items()},
            "all_agents": {name: column.mean(1) for name, column in columns.items()},
        }
    return table


def _own_task_advantage(run: Path) -> Float[np.ndarray, " seed"]:
    """How much more, in per cent, agents earn on their own task than on the others', averaged over agents."""
    evaluation = evaluate(run, _EPISODES, greedy=False)
    returns, own = evaluation.returns.mean(-1), evaluation.trained
    mine = returns[:, own].mean(1)
    others = returns[:, ~own].mean(1)
    return 100 * (mine - others) / np.abs(others)


def _everybody_learns(who: str, run: Path) -> Claim:
    """Whether no agent is left that never once reached the goal."""
    stuck = never_learned(run)
    text = f"{who}: no task is left on which nothing was learned (ours)"
    counts = ", ".join(map(str, stuck))
    return Claim(
        text, "does not hold" if any(stuck) else "holds", f"tasks by seed: {counts}", unpublished=True
    )


def _noting_copies(claim: Claim, specialised: Path, diffusion: Path) -> Claim:
    """Specialised agents are published with as many environments each as there are tasks."""
    held, asked = environments_of_each(load_experiment(specialised)), load_experiment(diffusion).tasks
    if held == asked:
        return claim
    return claim._replace(
        evidence=f"{claim.evidence}; with {held} environments of each agent in place of {asked}"
    )


def _about(text: str, percent: np.ndarray, published: float) -> Claim:
    """Within a factor of two of the published number: it depends on the length of training, which is not stated."""
    mean = percent.mean()
    verdict = "holds" if published / 2 <= mean <= 2 * published else "does not hold"
    return Claim(
        text,
        verdict,
        f"{mean:.2f} % (mean over parameters and {len(percent)} seeds); about means within a factor of 2",
    )


def _alike_percent(text: str, percent: np.ndarray) -> Claim:
    return alike(text, percent, np.zeros_like(percent), margin=3.4, unit=" %")


def _adam_on_hopper(family: str, runs: Runs, end: Mapping[str, np.ndarray]) -> Claim:
    text = f"{family}: Adam changes little"
    run = runs.get(f"hopper-{family}-diffusion-adam")
    return (
        similar(text, final(run), end["diffusion"])
        if run
        else Claim(text, "not run", "not part of this scale")
    )


def _early_and_final(begin: Mapping, end: Mapping) -> dict[str, object]:
    return {
        "early": {str(name): interval(values) for name, values in begin.items()},
        "final": {str(name): interval(values) for name, values in end.items()},
    }


def _zero_shot_picture(table: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]) -> Figure:
    panels = {
        task: {
            f"{_METHODS[method][1]}, {_SAMPLES[sample]}": (
                _METHODS[method][0],
                interval(table[method][sample][task]),
            )
            for method, sample in itertools.product(_METHODS, _SAMPLES)
            if method in table
        }
        for task in ("train", "easy", "hard")
    }
    return points(
        panels, "Table II: zero-shot, sampled actions", "return, mean over runs (bar: 95 % bootstrap)"
    )


def _relative_picture(data: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    panels = {
        task: {
            f"{_METHODS[method][1]}, {words}": (_METHODS[method][0], row[task])
            for sample, words in _SAMPLES.items()
            for method, row in data[sample].items()
        }
        for task in ("train", "easy", "hard")
    }
    title = "Table III: zero-shot returns beside the specialised agents', sampled actions"
    return points(panels, title, "return relative to theirs, % (bar: 95 % bootstrap)", zero=True)


def _deviation_picture(data: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    panels = {}
    for family, rows in data.items():
        names = [name for name in rows if "-" in name]  # another row is no method's
        labels = [name.removeprefix(f"{family}-").replace("-shared", ", shared start") for name in names]
        kinds = [_METHODS[label.partition(",")[0]][0] for label in labels]
        panels[family.replace("-", ", ")] = {
            label: (kind, rows[name]["median_percent"])
            for label, kind, name in zip(labels, kinds, names, strict=True)
        }
    quantity = "deviation / mean, median parameter, % (bar: 95 % bootstrap)"
    return points(panels, "Table I: how far agents' parameters differ", quantity, log=True)


def _plain(tables: Mapping) -> dict[str, object]:
    return jax.tree.map(interval, dict(tables), is_leaf=lambda leaf: isinstance(leaf, np.ndarray))


def _several(*makers: Callable[[Scale, int], Trainings]) -> Callable[[Scale, int], Trainings]:
    """The trainings of several makers together."""

    def make(scale: Scale, seeds: int) -> Trainings:
        return {name: each for maker in makers for name, each in maker(scale, seeds).items()}

    return make


REPRODUCTIONS: Mapping[str, Reproduction] = {
    each.name: each
    for each in (
        Reproduction("diffdac-fig4", trainings.acrobot_comparison, figure_4),
        Reproduction("diffdac-fig5", trainings.hopper_comparison, figure_5),
        Reproduction("diffdac-fig6", trainings.balance_networks, figure_6, 5),
        Reproduction(
            "diffdac-fig7",
            _several(trainings.noisy_acrobot, trainings.noisy_hopper),
            figure_7,
        ),
        Reproduction(
            "diffdac-table1",
            _several(trainings.table_1_acrobot, trainings.table_1_hopper),
            table_1,
        ),
        Reproduction("diffdac-table2", trainings.zero_shot, table_2),
        Reproduction("diffdac-table3", trainings.zero_shot, table_3),
    )
}
