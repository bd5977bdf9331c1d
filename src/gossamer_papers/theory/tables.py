"""What ``gossamer theory`` prints: one function for each of its subjects, whose arguments are its flags."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rich.table import Table

from gossamer.analysis.consensus_bounds import (
    asynchronous_step,
    disagreement_norms,
    distances,
    exact_bounds,
    one_late_contraction,
    printed_bounds,
)
from gossamer.mixing import metropolis_hastings, weigh
from gossamer.topologies import ring
from gossamer_papers.theory import agreement, compatible
from gossamer_papers.theory.asynchrony import study
from gossamer_papers.theory.corollary_1 import Check, best_deterministic, check, check_random_families
from gossamer_papers.theory.families import objective, retrying
from gossamer_papers.theory.lemma_1 import Case, named_cases, one_norm, topology_cases
from gossamer_papers.theory.policy_gradient_theorem import check_theorem_1
from gossamer_papers.theory.verdicts import (
    contracts_at_once,
    ends_at_a_saddle,
    is_ergodic,
    is_never_beaten,
    is_the_gradient,
    is_within,
    reaches_the_value,
    values_the_maximum,
    verdict,
)

Rows = Sequence[tuple[str, str, str]]


def tabular(
    families: int = 200, states: int = 20, actions: int = 5, tasks: int = 8, seed: int = 0
) -> list[Table]:
    """Propositions 1 and 2 and corollary 1: the tabular primal-dual actor-critic on random families of tasks.

    Args:
        families: How many random families.
        states: Most states of a family (at least 2).
        actions: Most actions of a family (at least 2).
        tasks: Most tasks of a family (at least 2).
        seed: Seed of the first family; the others count up from it.
    """
    checks = check_random_families(families, states, actions, tasks, seed)
    return [_of_families(checks), _of_the_counterexample()]


def theorem_1(families: int = 100, parameters: int = 6, seed: int = 0) -> list[Table]:
    """Theorem 1: the gradient of the Lagrangian against finite differences, for softmax policies.

    Args:
        families: How many random families.
        parameters: Policy parameters of each.
        seed: Seed of the first family; the others count up from it.
    """
    checks = check_theorem_1(families, seed, parameters)
    own, other = (np.array(column) for column in zip(*checks, strict=True))
    rows = [
        ("v = v^π of the policy: largest relative error", f"{own.max():.1e}", verdict(is_the_gradient(own))),
        ("another v: median relative error", f"{np.median(other):.2f}", "no gradient"),
        ("another v: smallest relative error", f"{other.min():.1e}", ""),
    ]
    return [_table(f"Theorem 1 in {families} random families", rows)]


def lemma_1(agents: int = 16) -> list[Table]:
    """Lemma 1: the norm of C - J, as stated and as it is true, over all topologies and weight rules.

    Args:
        agents: Agents of every topology: 8, 16, 32, ... , since a hypercube is among them.
    """
    graphs = topology_cases(agents)
    ring_25 = one_norm(weigh(ring(25), metropolis_hastings)[0].toarray())
    worst = max(graphs, key=lambda case: case.rate)
    repaired = [case for case in graphs if case.repaired]
    rows = [
        *((case.name, f"{case.rate:.4f}", _promise(case)) for case in named_cases()),
        (
            f"{len(repaired)} connected topologies and rules, largest: {worst.name}",
            f"{worst.rate:.4f}",
            verdict(all(case.contracts for case in repaired)),
        ),
        ("ring of 25: ‖C − J‖₁, below 1 in the proof", f"{ring_25:.2f}", verdict(ring_25 < 1)),
    ]
    return [_table("Lemma 1: ‖C − J‖₂ < 1 for primitive, doubly stochastic C", rows)]


def theorem_2(agents: int = 8, rounds: int = 2000, seed: int = 0) -> list[Table]:
    """Theorem 2: agreement of agents that learn cart-pole balance by plain gradient steps, with and without mixing.

    Args:
        agents: Agents, on a ring.
        rounds: Rounds of each of the four runs.
        seed: Seed of parameters, episodes and failures.
    """
    comparison = agreement.compare(agents, rounds, seed)
    table = Table(title=f"Theorem 2: disagreement of {agents} agents after {rounds} rounds")
    for column in ("combinations", "of the start", "rate", "rounds above rate"):
        table.add_column(column)
    for name, course in comparison.courses.items():
        rate = comparison.rates[name]
        bounded = name in ("ring", "isolated")
        above = str(course.violations(rate)) if bounded else "no bound"
        table.add_row(name, f"{course.remaining:.2e}", f"{rate:.3f}", above)
    return [table]


def theorem_3(problems: int = 8, agents: int = 8, rounds: int = 20_000, seed: int = 0) -> list[Table]:
    """Theorem 3: where diffusion of exact gradients ends, with a linear critic on compatible features.

    Args:
        problems: Small families, of each of the two kinds.
        agents: Agents and tasks of each, on a ring.
        rounds: Rounds of each run.
        seed: Seed of the first problem; the others count up from it.
    """
    table = Table(title=f"Theorem 3: largest of {problems} problems after {rounds} rounds")
    for column in ("", "bounded parameters", "free parameters"):
        table.add_column(column)
    kinds = [
        compatible.outcomes(make, problems, agents, rounds, seed)
        for make in (compatible.contested, compatible.uncontested)
    ]
    for name, figure in _OF_OUTCOMES.items():
        table.add_row(name, *(figure(kind) for kind in kinds))
    return [table]


def certificates(
    agents: int = 4, iterations: int = 100, records: int = 10, delay: int = 2, seed: int = 0
) -> list[Table]:
    """GALA's propositions 1 and 2: bounds of the distance of gossiping agents, exact and as printed.

    Args:
        agents: Agents, on a directed ring.
        iterations: Iterations of each record.
        records: How many random records.
        delay: Oldest messages, in iterations.
        seed: Seed of the first record; the others count up from it.
    """
    found = study(agents, iterations, records, delay, seed)
    late = one_late_contraction()
    distance, exact, printed = (float(each(late)[-1]) for each in (distances, exact_bounds, printed_bounds))
    rows = [
        (
            "exact bound: iterations beyond it",
            f"{found.beyond_exact} of {found.moments}",
            verdict(not found.beyond_exact),
        ),
        ("exact bound: median of distance / bound", f"{found.ratio:.3f}", ""),
        ("printed bound: median of distance / bound", f"{found.printed_ratio:.1e}", ""),
        ("one late contraction: distance", f"{distance:.3f}", ""),
        ("one late contraction: exact bound", f"{exact:.3f}", verdict(is_within(distance, exact))),
        ("one late contraction: printed bound", f"{printed:.3f}", verdict(is_within(distance, printed))),
        ("norm of one step, ring of 4, delay 1", f"{float(disagreement_norms(asynchronous_step())):.2f}", ""),
        ("products over τ + B that are ergodic", f"{found.ergodic:.0%}", verdict(is_ergodic(found))),
        ("largest norm of products over τ + B", f"{found.norm:.2f}", verdict(contracts_at_once(found))),
        (
            f"length from which norms are below 1, of up to {found.examined}",
            _length(found.contracting_length),
            f"τ + B ≤ {found.length}",
        ),
    ]
    return [_table(f"GALA's propositions: {records} random records, {iterations} iterations each", rows)]


SUBJECTS: Mapping[str, Callable[..., list[Table]]] = {
    "tabular": tabular,
    "theorem-1": theorem_1,
    "lemma-1": lemma_1,
    "theorem-2": theorem_2,
    "theorem-3": theorem_3,
    "certificates": certificates,
}

_OF_OUTCOMES: Mapping[str, Callable[[Sequence[compatible.Outcome]], str]] = {
    "‖ḡ‖ at first": lambda kind: f"{max(each.course.gradient[0] for each in kind):.1e}",
    "‖ḡ‖ in the end": lambda kind: f"{max(each.course.gradient[-1] for each in kind):.1e}",
    "disagreement in the end": lambda kind: f"{max(each.course.disagreement[-1] for each in kind):.1e}",
    "‖∇J̄‖ at first": lambda kind: (
        f"{max(each.stationarity.objective_gradient_at_start for each in kind):.1e}"
    ),
    "‖∇J̄‖ in the end": lambda kind: f"{max(each.stationarity.objective_gradient for each in kind):.1e}",
    "relative bias of (58)": lambda kind: f"{max(each.stationarity.bias for each in kind):.2f}",
    "parameters still grow": lambda kind: f"{sum(each.growing for each in kind)} of {len(kind)}",
}


def _of_families(checks: Sequence[Check]) -> Table:
    beaten = sum(each.beaten() for each in checks)
    misvalued = sum(each.misvalued() for each in checks)
    count = len(checks)
    gap = max(each.gap for each in checks)
    error = max(each.value_error for each in checks)
    infeasible = max(each.infeasibility for each in checks)
    duality = max(each.duality_gap for each in checks)
    slack = max(each.slackness for each in checks)
    rows = [
        (
            "P̄ is row-stochastic (proposition 1)",
            _share(sum(each.row_stochastic for each in checks), count),
            "",
        ),
        ("largest |v* − value iteration on P̄|", f"{error:.1e}", verdict(reaches_the_value(checks))),
        ("largest infeasibility of v* or d* (14), (18)", f"{infeasible:.1e}", ""),
        ("largest |d A| (17)", f"{slack:.1e}", ""),
        ("largest duality gap (15), (25)", f"{duality:.1e}", verdict(ends_at_a_saddle(checks))),
        ("μᵀv* cannot be the maximum (2 i)", _share(misvalued, count), verdict(values_the_maximum(checks))),
        ("π* is beaten on (1/N) Σ J (2 ii)", _share(beaten, count), verdict(is_never_beaten(checks))),
        ("largest gap, of what π* earns", f"{gap:.1%}", ""),
        ("most steps of dual ascent", f"{max(each.steps for each in checks)}", ""),
        (
            "families in which all policies were tried",
            _share(sum(each.best_is_exact for each in checks), count),
            "",
        ),
    ]
    return _table(f"Primal-dual actor-critic in {count} random families", rows)


def _of_the_counterexample() -> Table:
    family = retrying()
    found = check(family)
    best, _ = best_deterministic(family)
    rows = [
        ("saddle: attempt until it succeeds; worth under P̄", f"{found.saddle_value:.3f}", "½ / (1 − ½ γ)"),
        ("the same policy on (1/N) Σ J", f"{found.saddle_objective:.3f}", "1 in one task, 0 in the other"),
        ("the safe action on (1/N) Σ J", f"{objective(family, best):.3f}", f"{found.gap:.0%} more"),
    ]
    return _table("Counterexample: 2 tasks, 2 states, 2 actions; an attempt always or never succeeds", rows)


def _table(title: str, rows: Rows) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*row)
    return table


def _promise(case: Case) -> str:
    if not case.premise:
        return "promised nothing"
    return verdict(case.contracts)


def _share(count: int, total: int) -> str:
    return f"{count} of {total} ({count / total:.0%})"


def _length(length: int | None) -> str:
    return "none seen" if length is None else str(length)
