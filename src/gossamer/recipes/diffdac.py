"""The trainings behind Diff-DAC's figures 2 to 8 and tables I to III, by name; those of one name are shared.

``quick`` fits two CPU cores; ``paper`` has the published number of seeds and a longer training, of which the paper does
not state the length. The number of agents is the paper's in both, except where a docstring says otherwise.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

from gossamer.environments import Acrobot, Environment, HopperMass, HopperWind, HostEnvironment
from gossamer.experiment import Experiment
from gossamer.recipes.a2c import PUBLISHED_ASYNCHRONY, centralised_a2c, diffusion, specialised_a2c
from gossamer.recipes.control import cartpole_balance, cartpole_swingup, centralised, dist_mtps, pendulum
from gossamer.schedules import Schedule

Scale: TypeAlias = Literal["quick", "paper"]
Trainings: TypeAlias = Mapping[str, Experiment]

FAILURES = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Probabilities of link failure in figure 7; the text gives the largest, the grid is read off the figure's legend."""

_ACROBOT_STEPS = {"quick": 384_000, "paper": 2_400_000}  # in each environment
_SINGLE_STEPS = {"quick": 600_000, "paper": 2_400_000}
_HOPPER_STEPS = {"quick": 60_000, "paper": 2_000_000}
_BALANCE_ROUNDS = {"quick": 200, "paper": 600}
_BALANCE_EPOCHS = {"quick": 60, "paper": 200}
# The paper gives no number; swing-up has fewer at quick scale, for time.
_STABILITY_EPOCHS = {
    "pendulum": {"quick": 300, "paper": 1000},
    "swingup": {"quick": 200, "paper": 1000},
}
_EPOCH = 5  # episodes in each environment

FAILED_AGENT = 12
"""Who leaves for ever in the trainings of figure 3 that ask what one failure does."""
FAILS_AFTER = 0.1
"""After which share of these trainings: while all agents still learn, so that one that stops is visible."""


def stability(scale: Scale, seeds: int) -> Trainings:
    """Figure 2: Diff-SiAC and centralised SiAC on 25 tasks of the inverted pendulum and of cart-pole swing-up.

    An update follows every episode; an epoch is five, and every tenth epoch is tested. Beside it, the centralised
    learner that starts from the mean of 25 networks.
    """
    published = _stability(scale, seeds, "", tasks=25)
    averaged = {
        f"{name}-averaged": replace(each, initial_parameters="averaged")
        for name, each in published.items()
        if name.endswith("centralised")
    }
    return {**published, **averaged}


def stability_of_one_task(scale: Scale, seeds: int) -> Trainings:
    """Figure 8: both published algorithms with 25 copies of the standard task."""
    return _stability(scale, seeds, "-single", tasks=1)


def _stability(scale: Scale, seeds: int, suffix: str, tasks: int) -> Trainings:
    trainings: dict[str, Experiment] = {}
    for name, recipe in (("pendulum", pendulum), ("swingup", cartpole_swingup)):
        diff = replace(
            recipe(),
            tasks=tasks,
            rounds=_STABILITY_EPOCHS[name][scale] * _EPOCH,
            seeds=seeds,
            test_every=10 * _EPOCH,
            record_every=_EPOCH,
        )
        trainings[f"{name}{suffix}-diffusion"] = diff
        trainings[f"{name}{suffix}-centralised"] = replace(centralised(diff), copies=25 // tasks)
    return trainings


def balance_comparison(scale: Scale, seeds: int) -> Trainings:
    """Figure 3: Diff-SiAC, centralised SiAC and both Dist-MTPS on 25 tasks of balance, tested every second epoch.

    Beside it ablations: where agents start from, what counts alike in the centralised gradient, and one agent that
    fails early.
    """
    epochs, tested = _BALANCE_EPOCHS[scale], 2
    diff = replace(
        cartpole_balance(), rounds=epochs * _EPOCH, seeds=seeds, test_every=tested * _EPOCH, record_every=5
    )
    central = centralised(diff)
    by_task = replace(central, algorithm=replace(central.algorithm, weighting="tasks"))
    reinforce, power = (
        replace(dist_mtps(diff, search), test_every=tested, record_every=1)
        for search in ("reinforce", "power")
    )
    return {
        "balance-diffusion": diff,
        "balance-centralised": central,
        "balance-reinforce": reinforce,
        "balance-power": power,
        "balance-diffusion-shared": replace(diff, initial_parameters="shared"),
        "balance-diffusion-averaged": replace(diff, initial_parameters="averaged"),
        "balance-centralised-averaged": replace(central, initial_parameters="averaged"),
        "balance-centralised-tasks": by_task,
        "balance-diffusion-failure": _failing(diff),
        "balance-reinforce-failure": _failing(reinforce),
    }


def _failing(experiment: Experiment) -> Experiment:
    """One agent leaves early and never returns."""
    absence = (FAILED_AGENT, float(int(FAILS_AFTER * experiment.rounds)), None)
    return replace(experiment, schedule=replace(experiment.schedule, absences=(absence,)))


def acrobot_comparison(scale: Scale, seeds: int) -> Trainings:
    """Figure 4: 25 tasks of Extreme Acrobot, Diff-A2C on a ring, centralised and specialised A2C; RMSProp and Adam.

    The paper tuned the centralised learning rate and Diff-A2C's, and gives the specialised agents the centralised
    one's (appendix A); in ``acrobot-specialised-slower`` they have Diff-A2C's (ours). Quick: two seeds of that at most.
    """
    diff = replace(diffusion(Acrobot(), _ACROBOT_STEPS[scale]), seeds=seeds)
    central, slower = centralised_a2c(diff), specialised_a2c(diff, learning_rate=7e-4)
    return {
        "acrobot-diffusion": diff,
        "acrobot-diffusion-synchronous": replace(diff, schedule=Schedule()),
        "acrobot-centralised": central,
        "acrobot-specialised": specialised_a2c(diff),
        "acrobot-specialised-slower": replace(slower, seeds=_few(scale, seeds, 2)),
        "acrobot-diffusion-adam": _with_adam(diff),
        "acrobot-centralised-adam": _with_adam(central),
    }


def acrobot_initialisation(scale: Scale, seeds: int) -> Trainings:
    """Table I's ablation: the same from shared initial parameters. Quick: two seeds of the specialised at most."""
    known = acrobot_comparison(scale, seeds)
    special = replace(known["acrobot-specialised"], seeds=_few(scale, seeds, 2))
    return {
        "acrobot-diffusion-shared": replace(known["acrobot-diffusion"], initial_parameters="shared"),
        "acrobot-specialised-shared": replace(special, initial_parameters="shared"),
    }


def hopper_comparison(scale: Scale, seeds: int) -> Trainings:
    """Figure 5: Hopper with 25 masses and with 25 winds; Diff-A2C, centralised and specialised A2C; RMSProp and Adam.

    Quick: three seeds at most; the specialised agents have two seeds, and 5 copies of their mass or 2 of their wind,
    not 25; Adam is left out.
    """
    trainings: dict[str, Experiment] = {}
    for name, environment, copies in (("mass", HopperMass(), 5), ("wind", HopperWind(), 2)):
        diff = replace(diffusion(environment, _HOPPER_STEPS[scale]), seeds=_few(scale, seeds, 3))
        central, special = centralised_a2c(diff), specialised_a2c(diff)
        trainings[f"hopper-{name}-diffusion"] = diff
        trainings[f"hopper-{name}-centralised"] = central
        trainings[f"hopper-{name}-specialised"] = (
            special if scale == "paper" else replace(special, copies=copies, seeds=_few(scale, seeds, 2))
        )
        if scale == "paper":
            trainings[f"hopper-{name}-diffusion-adam"] = _with_adam(diff)
            trainings[f"hopper-{name}-centralised-adam"] = _with_adam(central)
    return trainings


def balance_networks(scale: Scale, seeds: int) -> Trainings:
    """Figure 6: Diff-SiAC on single-task balance; 25 agents with sparse and dense neighbourhoods, 100 agents.

    Neighbourhoods count the agent itself: N/6 and N/3 on average. That of 100 agents is not stated; it is N/6 here.
    """
    single = replace(cartpole_balance(), tasks=1, seeds=seeds, rounds=_BALANCE_ROUNDS[scale])
    return {
        "balance-25-sparse": replace(single, topology="erdos_renyi:mean_neighbourhood=4.1667"),
        "balance-25-dense": replace(single, topology="erdos_renyi:mean_neighbourhood=8.3333"),
        "balance-100": replace(single, agents=100, topology="erdos_renyi:mean_neighbourhood=16.6667"),
    }


def noisy_links(environment: Environment | HostEnvironment, prefix: str, steps: int, seeds: int) -> Trainings:
    """Figure 7: 14 agents in a ring on a single task whose links fail with probability p, both directions at once.

    No agent waits: messages may have any age (``most_recent``), or count once and are then gone
    (``whatever_arrived``). Without failures both are run too, since messages take time.
    """
    base = replace(diffusion(environment, steps), tasks=1, agents=14, seeds=seeds)
    rules = {"most-recent": "most_recent", "whatever-arrived": "whatever_arrived"}
    return {
        f"{prefix}-{name}-{failure:g}": replace(
            base,
            schedule=replace(PUBLISHED_ASYNCHRONY, rule=rule, staleness=None, link_failure=failure),
        )
        for failure in FAILURES
        for name, rule in rules.items()
    }


def noisy_acrobot(scale: Scale, seeds: int) -> Trainings:
    """The Acrobot half of figure 7."""
    return noisy_links(Acrobot(), "noisy-acrobot", _SINGLE_STEPS[scale], seeds)


def noisy_hopper(scale: Scale, seeds: int) -> Trainings:
    """The Hopper half of figure 7.

    Quick: three seeds at most, no failure and the most frequent one, under ``most_recent`` only.
    """
    every = noisy_links(HopperMass(), "noisy-hopper", _HOPPER_STEPS[scale], _few(scale, seeds, 3))
    if scale == "paper":
        return every
    chosen = ("noisy-hopper-most-recent-0", "noisy-hopper-most-recent-0.8")
    return {name: every[name] for name in chosen}


def _few(scale: Scale, seeds: int, most: int) -> int:
    """Seeds of a training that quick would take too long with all of them."""
    return min(seeds, most) if scale == "quick" else seeds


def _with_adam(experiment: Experiment) -> Experiment:
    return replace(experiment, algorithm=replace(experiment.algorithm, optimiser="adam"))


def zero_shot(scale: Scale, seeds: int) -> Trainings:
    """Tables II and III: figure 4's three methods, the specialised with both learning rates."""
    names = ("diffusion", "centralised", "specialised", "specialised-slower")
    return _chosen(acrobot_comparison(scale, seeds), "acrobot-", names)


def table_1_acrobot(scale: Scale, seeds: int) -> Trainings:
    """Table I, Acrobot: figure 4's agents, and the same from shared initial parameters."""
    known = acrobot_comparison(scale, seeds)
    return {
        **_chosen(known, "acrobot-", ("diffusion", "specialised")),
        **acrobot_initialisation(scale, seeds),
    }


def table_1_hopper(scale: Scale, seeds: int) -> Trainings:
    """Table I, Hopper: figure 5's agents."""
    known = hopper_comparison(scale, seeds)
    return {
        **_chosen(known, "hopper-mass-", ("diffusion", "specialised")),
        **_chosen(known, "hopper-wind-", ("diffusion", "specialised")),
    }


def _chosen(trainings: Trainings, prefix: str, names: tuple[str, ...]) -> Trainings:
    return {prefix + name: trainings[prefix + name] for name in names}
