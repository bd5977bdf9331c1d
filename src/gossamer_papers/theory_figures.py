"""Diff-DAC's and GALA's propositions, lemma and theorems: computed, not trained, with a verdict on each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gossamer.analysis.consensus_bounds import (
    contraction_norms,
    distances,
    exact_bounds,
    one_late_contraction,
    printed_bounds,
    random_gossip,
)
from gossamer.analysis.pictures import BOUND, colours
from gossamer.mixing import metropolis_hastings, weigh
from gossamer.recipes.diffdac import Scale, Trainings
from gossamer.topologies import ring
from gossamer_papers.protocol import Claim, Findings, Reproduction, Runs, unpublished
from gossamer_papers.theory import agreement, compatible
from gossamer_papers.theory.asynchrony import Study, study
from gossamer_papers.theory.corollary_1 import Check, check, check_random_families
from gossamer_papers.theory.families import retrying
from gossamer_papers.theory.lemma_1 import Case, named_cases, one_norm, topology_cases
from gossamer_papers.theory.policy_gradient_theorem import GradientCheck, check_theorem_1
from gossamer_papers.theory.verdicts import (
    AGREED,
    GRADIENT,
    STATIONARY,
    contracts_at_once,
    ends_at_a_saddle,
    is_ergodic,
    is_never_beaten,
    is_the_gradient,
    reaches_the_value,
    stays_within_exact_bounds,
    stays_within_printed_bounds,
    values_the_maximum,
    verdict,
)

_FAMILIES = 200
_ROUNDS = 2000  # of theorem 2's runs
_PROBLEMS, _STEPS = 8, 20_000  # of theorem 3
_RECORDS, _ITERATIONS, _DELAY = 10, 100, 2  # of asynchronous gossip

# One blue for what the papers do; what is no algorithm of theirs is not drawn in any algorithm's colour.
_BLUE, _GREEN = colours(["diffusion", "isolated"])
_OTHER, _ANOTHER = colours(["one", "another"])


class _Computed(NamedTuple):
    families: Sequence[Check]
    gradients: Sequence[GradientCheck]
    named: Sequence[Case]
    graphs: Sequence[Case]
    comparison: agreement.Comparison
    bounded: Sequence[compatible.Outcome]
    free: Sequence[compatible.Outcome]
    gossip: Study


def theory(runs: Runs) -> Findings:
    """Everything is computed here, with seeds of its own; there is no training to read."""
    computed = _Computed(
        families=check_random_families(_FAMILIES),
        gradients=check_theorem_1(_FAMILIES),
        named=named_cases(),
        graphs=[case for agents in (8, 16) for case in topology_cases(agents)],
        comparison=agreement.compare(rounds=_ROUNDS),
        bounded=compatible.outcomes(compatible.contested, _PROBLEMS, agents=8, rounds=_STEPS, seed=0),
        free=compatible.outcomes(compatible.uncontested, _PROBLEMS, agents=8, rounds=_STEPS, seed=0),
        gossip=study(4, _ITERATIONS, _RECORDS, _DELAY),
    )
    claims = (
        *_tabular(computed.families),
        *_theorem_1(computed.gradients),
        *_lemma_1(computed.named, computed.graphs),
        *_theorem_2(computed.comparison),
        *_theorem_3(computed.bounded, computed.free),
        *_asynchrony(computed.gossip),
    )
    return Findings(_data(computed), claims, _picture(computed))


def _tabular(families: Sequence[Check]) -> list[Claim]:
    count = len(families)
    stochastic = sum(each.row_stochastic for each in families)
    error = max(each.value_error for each in families)
    infeasible = max(each.infeasibility for each in families)
    gap = max(each.duality_gap for each in families)
    slackness = max(each.slackness for each in families)
    beaten = [each for each in families if each.beaten()]
    misvalued = sum(each.misvalued() for each in families)
    small = check(retrying())
    example = (
        f"smallest counterexample, 2 tasks, 2 states, 2 actions: {small.saddle_value:.3f} under P̄,"
        f" {small.saddle_objective:.3f} in truth, and another policy earns {small.best_objective:.3f}"
    )
    return [
        _claim(
            "Proposition 1: P̄ is row-stochastic", stochastic == count, f"{stochastic} of {count} families"
        ),
        _claim(
            "Dual ascent (21)-(24) reaches the value of the averaged process",
            reaches_the_value(families),
            f"largest difference from value iteration {error:.1e} in {count} families",
        ),
        _claim(
            "Strong duality and complementary slackness (15), (17), (25)",
            ends_at_a_saddle(families),
            f"largest infeasibility of v* or d* {infeasible:.1e}, duality gap {gap:.1e}, slackness {slackness:.1e} in"
            f" {count} families",
        ),
        _claim(
            "Proposition 2 (i), corollary 1 (i): μᵀv* = max (1/N) Σ J",
            values_the_maximum(families),
            f"{misvalued} of {count} families ({misvalued / count:.0%}) have a policy that earns more, or none that"
            f" could earn as much; {example}",
        ),
        _claim(
            "Proposition 2 (ii), corollary 1 (ii): the saddle's policy maximises (1/N) Σ J",
            is_never_beaten(families),
            f"beaten by a deterministic policy in {len(beaten)} of {count} families ({len(beaten) / count:.0%}),"
            f" by up to {max(each.gap for each in families):.1%}; {example}",
        ),
    ]


def _theorem_1(checks: Sequence[GradientCheck]) -> list[Claim]:
    own, other = (np.array(column) for column in zip(*checks, strict=True))
    of = f"of {len(own)} families"
    return [
        _claim(
            "Theorem 1: (37) is the gradient of (34), with v = v^π held fixed",
            is_the_gradient(own),
            f"largest relative error against central differences {own.max():.1e} {of}",
        ),
        _claim(
            "Theorem 1 with a critic's v, any other (step (b) of (59))",
            is_the_gradient(other),
            f"relative error {np.median(other):.2f} in the median, {other.min():.1e} at least {of}",
        ),
    ]


def _lemma_1(named: Sequence[Case], graphs: Sequence[Case]) -> list[Claim]:
    counterexample, lazy, *unconnected = named
    repaired = [case for case in (*graphs, lazy) if case.repaired]
    worst = max(repaired, key=lambda case: case.rate)
    norm = one_norm(weigh(ring(25), metropolis_hastings)[0].toarray())
    return [
        _claim(
            "Lemma 1: ‖C − J‖₂ < 1 for primitive, doubly stochastic C",
            counterexample.contracts,
            f"[[.5, .5, 0], [0, 0, 1], [.5, .5, 0]] is both and has {counterexample.rate:.4f}",
        ),
        _claim("Lemma 1's proof: ‖C − J‖₁ < ‖C‖₁ = 1", norm < 1, f"it is {norm:.2f} on a ring of 25"),
        unpublished(
            _claim(
                "Lemma 1 for connected, doubly stochastic C with a positive diagonal (ours)",
                all(case.contracts for case in repaired),
                f"{len(repaired) - 1} topologies of 8 and 16 agents with weight rules, time-varying ones over a period,"
                f" and half the counterexample with half of I; largest"
                f" {worst.rate:.4f} ({worst.name})",
            )
        ),
        unpublished(
            _claim(
                "Where a round's graph is not connected ‖C − J‖₂ is 1 (ours)",
                all(case.stalls for case in unconnected),
                "; ".join(f"{case.name}: {case.rate:.4f}" for case in unconnected),
            )
        ),
    ]


def _theorem_2(comparison: agreement.Comparison) -> list[Claim]:
    courses, rates = comparison.courses, comparison.rates
    left = {name: course.remaining for name, course in courses.items()}
    above = courses["ring"].violations(rates["ring"])
    unmixed = f"{left['isolated']:.2f} of it without mixing"
    return [
        _claim(
            "Theorem 2: under (50) all agents come to their mean",
            left["ring"] < AGREED < left["isolated"],
            f"8 agents on a ring keep {left['ring']:.1e} of their disagreement after {_ROUNDS} rounds, {unmixed};"
            " one run, seed 0",
        ),
        _claim(
            "(66)-(67): a combination leaves at most ‖C − J‖₂ of the disagreement",
            above == 0,
            f"{above} of {_ROUNDS} rounds leave more than {rates['ring']:.3f} of it",
        ),
        _claim(
            "Assumption 1 may hold in expectation only, for i.i.d. C",
            left["permutations"] < AGREED,
            f"random permutations, with E[C] = J, keep {left['permutations']:.2f} of the disagreement; root mean square"
            f" rate {rates['permutations']:.3f}",
        ),
        unpublished(
            _claim(
                "The same, for links that fail one way with probability 0.5 (ours)",
                left["failing links"] < AGREED,
                f"they keep {left['failing links']:.1e} of it, root mean square rate {rates['failing links']:.3f}",
            )
        ),
    ]


def _theorem_3(bounded: Sequence[compatible.Outcome], free: Sequence[compatible.Outcome]) -> list[Claim]:
    first = min(each.course.gradient[0] for each in bounded)
    last = max(each.course.gradient[-1] for each in bounded)
    apart = max(each.course.disagreement[-1] for each in bounded)
    objective = [each.stationarity.objective_gradient for each in bounded]
    start = [each.stationarity.objective_gradient_at_start for each in bounded]
    bias = [each.stationarity.bias for each in (*bounded, *free)]
    growing = sum(each.growing for each in free)
    return [
        _claim(
            "Theorem 3: the mean comes to a stationary point of ḡ",
            last < STATIONARY,
            f"‖ḡ‖ falls from {first:.2g} or more to {last:.1e} or less in {len(bounded)} problems whose best parameters"
            f" are finite, disagreement to {apart:.1e}",
        ),
        unpublished(
            _claim(
                "Theorem 3 for random softmax features, where nothing bounds parameters (ours)",
                growing == 0,
                f"in {growing} of {len(free)} problems parameters still grow and assumptions 5 and 8 fail; ‖ḡ‖ is"
                f" {max(each.course.gradient[-1] for each in free):.1e} or less in the end",
            )
        ),
        _claim(
            "The point is stationary for the multitask objective (3)",
            max(objective) < STATIONARY,
            f"‖∇J̄‖ is {min(objective):.1e} to {max(objective):.1e} there, {min(start):.2g} to {max(start):.2g} at the"
            " start: an approximation",
        ),
        _claim(
            "Compatible features (58) leave the policy gradient unbiased",
            max(bias) < GRADIENT,
            f"relative bias {min(bias):.1e} to {max(bias):.2g} with the critic at its equilibrium",
        ),
    ]


def _asynchrony(found: Study) -> list[Claim]:
    late = one_late_contraction()
    distance, exact, printed = (float(each(late)[-1]) for each in (distances, exact_bounds, printed_bounds))
    contracts = found.contracting_length
    longest = f"{found.examined} iterations"
    lengths = f"no length up to {longest}" if contracts is None else f"{contracts} to {longest}"
    return [
        _claim(
            "GALA, proposition 1 with norms of the products that there were (its proof)",
            stays_within_exact_bounds(found, distance, exact),
            f"{found.beyond_exact} of {found.moments} distances beyond it, median of distance / bound"
            f" {found.ratio:.3f}",
        ),
        _claim(
            "GALA, proposition 1 as printed, λ^(k+1−s)",
            stays_within_printed_bounds(found, distance, printed),
            f"nobody talks until a last step of norm 0.7: distance {distance:.2f}, printed bound {printed:.2f}; where"
            f" λ > 1 it holds and says nothing (median of distance / bound {found.printed_ratio:.0e})",
        ),
        _claim(
            "GALA, proposition 2: products over τ + B iterations are ergodic",
            is_ergodic(found),
            f"{found.ergodic:.0%} in {_RECORDS} records of 4 learners on a ring, delay up to {_DELAY}",
        ),
        _claim(
            "GALA, proposition 2: and so their norm λ is below 1",
            contracts_at_once(found),
            f"it is up to {found.norm:.2f}, for τ + B up to {found.length}",
        ),
        unpublished(
            _claim(
                "GALA, longer products contract (ours)",
                contracts is not None,
                f"all norms are below 1 for {lengths}",
            )
        ),
    ]


def _claim(text: str, condition: bool | np.bool_, evidence: str) -> Claim:
    return Claim(text, verdict(condition), evidence)


def _data(computed: _Computed) -> dict[str, Any]:
    thinned = slice(0, None, 20)
    return {
        "families": [
            {"gap": each.gap, "saddle_value": each.saddle_value, "saddle": each.saddle_objective}
            | {
                "best": each.best_objective,
                "highest": each.highest_objective,
                "exhaustive": each.best_is_exact,
            }
            for each in computed.families
        ],
        "theorem_1": [each._asdict() for each in computed.gradients],
        "lemma_1": [each._asdict() for each in (*computed.named, *computed.graphs)],
        "theorem_2": {
            name: {
                "rate": computed.comparison.rates[name],
                "start": course.start,
                "disagreement_every_20_rounds": course.combined[thinned].tolist(),
                "disagreement_before_combining_every_20_rounds": course.adapted[thinned].tolist(),
                "norm_every_20_rounds": course.norm[thinned].tolist(),
            }
            for name, course in computed.comparison.courses.items()
        },
        "theorem_3": {
            name: [_plain(each) for each in outcomes]
            for name, outcomes in (("bounded", computed.bounded), ("free", computed.free))
        },
        "asynchrony": computed.gossip._asdict(),
    }


def _plain(outcome: compatible.Outcome) -> dict[str, Any]:
    course = {name: values.tolist() for name, values in outcome.course._asdict().items()}
    return {**course, **outcome.stationarity._asdict(), "growing": outcome.growing}


def _picture(computed: _Computed) -> Figure:
    figure = Figure(figsize=(14, 8), dpi=150, layout="constrained")
    axes = figure.subplots(2, 3)
    _draw_gaps(axes[0, 0], computed.families)
    _draw_errors(axes[0, 1], computed.gradients)
    _draw_agreement(axes[0, 2], computed.comparison.courses)
    _draw_gradients(axes[1, 0], computed.bounded, computed.free)
    _draw_bounds(axes[1, 1])
    _draw_norms(axes[1, 2], computed.gossip)
    figure.suptitle("What the theorems of Diff-DAC and GALA say, by numbers")
    return figure


def _draw_gaps(axis: Axes, families: Sequence[Check]) -> None:
    gaps = np.array([100 * each.gap for each in families])
    beaten = np.array([each.beaten() for each in families])
    edges = np.linspace(0, max(gaps.max(), 1e-3), 31)
    label = f"beaten ({beaten.mean():.0%})"
    axis.hist(
        [gaps[beaten], gaps[~beaten]], edges, stacked=True, color=[_OTHER, _BLUE], label=[label, "not beaten"]
    )
    _label(
        axis, "Corollary 1: how much a better policy earns", "more than the saddle's policy (%)", "families"
    )


def _draw_errors(axis: Axes, checks: Sequence[GradientCheck]) -> None:
    own, other = (np.array(column) for column in zip(*checks, strict=True))
    edges = np.geomspace(min(own.min(), 1e-11), max(other.max(), 10), 45)
    axis.hist(own, edges, color=_BLUE, label="v = v^π")
    axis.hist(other, edges, color=_OTHER, label="another v")
    axis.axvline(GRADIENT, color=BOUND, linestyle=":", label="tolerance")
    axis.set_xscale("log")
    axis.set_ylim(0, 1.35 * axis.get_ylim()[1])  # room for the legend
    _label(axis, "Theorem 1: (37) against differences", "relative error", "families")


def _draw_agreement(axis: Axes, courses: Mapping[str, agreement.Course]) -> None:
    styles = {
        "isolated": (_GREEN, "-"),
        "permutations": (_ANOTHER, "--"),
        "failing links": (_BLUE, "--"),
        "ring": (_BLUE, "-"),
    }
    for name, (colour, style) in styles.items():
        course = courses[name]
        rounds = np.arange(1, len(course.combined) + 1)
        width = 3 if name == "isolated" else 1.5  # another line lies upon it
        axis.plot(rounds, course.combined / course.start, style, color=colour, linewidth=width, label=name)
    axis.axhline(AGREED, color=BOUND, linestyle=":", linewidth=1)
    axis.set_xscale("log")
    axis.set_yscale("log")
    _label(axis, "Theorem 2: 8 agents on cart-pole balance", "round", "disagreement (of the start)")


def _draw_gradients(
    axis: Axes, bounded: Sequence[compatible.Outcome], free: Sequence[compatible.Outcome]
) -> None:
    kinds = ((free, _OTHER, "nothing bounds parameters"), (bounded, _BLUE, "best parameters finite"))
    for outcomes, colour, name in kinds:
        for number, outcome in enumerate(outcomes):
            label = name if number == 0 else None
            axis.plot(
                outcome.course.round[1:], outcome.course.gradient[1:], color=colour, alpha=0.6, label=label
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    _label(axis, "Theorem 3: the averaged gradient", "round", "norm of ḡ at the mean parameters")


def _draw_bounds(axis: Axes) -> None:
    gossip = random_gossip(4, _ITERATIONS, _DELAY, seed=0)
    iterations = np.arange(1, _ITERATIONS + 1)
    lines: tuple[tuple[str, Float[np.ndarray, " iteration"], str, str], ...] = (
        ("as printed", printed_bounds(gossip), BOUND, ":"),
        ("exact", exact_bounds(gossip), BOUND, "--"),
        ("distance", distances(gossip), _BLUE, "-"),
    )
    for name, values, colour, style in lines:
        axis.plot(iterations, values, style, color=colour, label=name)
    axis.set_yscale("log")
    _label(
        axis,
        "GALA, proposition 1: distance and bounds",
        "iteration",
        "distance to the mean (Frobenius, all nodes)",
    )


def _draw_norms(axis: Axes, found: Study) -> None:
    gossips = [random_gossip(4, _ITERATIONS, _DELAY, seed) for seed in range(_RECORDS)]
    lengths = np.arange(1, 41)
    norms = [max(contraction_norms(gossip, int(length)).max() for gossip in gossips) for length in lengths]
    axis.plot(lengths, norms, color=_BLUE, label=f"largest of {_RECORDS} records")
    axis.axvline(found.length, color=BOUND, linestyle="--", label="largest τ + B")
    axis.axhline(1, color=BOUND, linestyle=":", linewidth=1)
    axis.set_ylim(0, None)
    _label(
        axis, "GALA, proposition 2: norms of products", "iterations of the product", "norm on disagreements"
    )


def _label(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.legend(fontsize="small")


def _none(scale: Scale, seeds: int) -> Trainings:
    """Nothing is trained, at either scale."""
    return {}


REPRODUCTIONS: Mapping[str, Reproduction] = {
    "diffdac-theory": Reproduction(
        "diffdac-theory",
        _none,
        theory,
        1,
    )
}
