"""The control families of Diff-DAC: 25 tasks learned by diffusion, by one centralised learner, and by Dist-MTPS.

The first two are one program: 25 agents with one task each on a graph, or one agent with 25 environments and no
neighbour. Agents, networks and optimisers are appendix A.1's, tasks appendices A.1 and A.2's.
"""

from dataclasses import replace
from typing import Any

from gossamer.algorithms.dist_mtps import DistMTPS, Search
from gossamer.algorithms.reinforce import Reinforce
from gossamer.algorithms.siac import SiAC
from gossamer.environments import CartPoleBalance, CartPoleSwingUp, Environment, Pendulum
from gossamer.experience.device import Episodes
from gossamer.experiment import Experiment
from gossamer.schedules import Schedule


def cartpole_balance() -> Experiment:
    """Diff-SiAC on cart-pole balance (section VI-B), one episode per update (E = 1).

    Example:
        >>> experiment = cartpole_balance()
        >>> experiment.agents, experiment.tasks, experiment.topology
        (25, 25, 'erdos_renyi:mean_neighbourhood=4.2')
    """
    return _diffusion(CartPoleBalance(), rounds=300)


def cartpole_swingup() -> Experiment:
    """Diff-SiAC on cart-pole swing-up (section VI-A), one episode per update (E = 1)."""
    return _diffusion(CartPoleSwingUp(), rounds=1500)


def pendulum() -> Experiment:
    """Diff-SiAC on the inverted pendulum (section VI-A), one episode per update (E = 1).

    The text has E = 5 and E = 1; docs/decisions/siac.md says what either learns.
    """
    return _diffusion(Pendulum(), rounds=1500)


def cartpole_balance_centralised() -> Experiment:
    """Centralised SiAC on cart-pole balance: one agent, 25 environments, pooled gradients."""
    return centralised(cartpole_balance())


def cartpole_swingup_centralised() -> Experiment:
    """Centralised SiAC on cart-pole swing-up: one agent, 25 environments, pooled gradients."""
    return centralised(cartpole_swingup())


def pendulum_centralised() -> Experiment:
    """Centralised SiAC on the inverted pendulum: one agent, 25 environments, pooled gradients."""
    return centralised(pendulum())


def centralised(experiment: Experiment) -> Experiment:
    """The same experiment with one agent, which has every task's environment and pools their transitions.

    Example:
        >>> experiment = centralised(cartpole_balance())
        >>> experiment.agents, experiment.tasks, experiment.topology
        (1, 25, 'isolated')
    """
    return replace(experiment, agents=1, topology="isolated")


def cartpole_balance_policy_gradient() -> Experiment:
    """Diffusion policy gradient (5a)-(5b) on cart-pole balance: no critic, five episodes per update."""
    return replace(cartpole_balance(), algorithm=Reinforce(), experience=Episodes(5), rounds=200)


def cartpole_balance_reinforce() -> Experiment:
    """Dist-MTPS with REINFORCE on cart-pole balance (section VI-B), five episodes per update."""
    return dist_mtps(cartpole_balance(), "reinforce")


def cartpole_balance_power() -> Experiment:
    """Dist-MTPS with PoWER on cart-pole balance (section VI-B), five episodes per update."""
    return dist_mtps(cartpole_balance(), "power")


def dist_mtps(experiment: Experiment, search: Search) -> Experiment:
    """The same tasks learned by Dist-MTPS: agents in a ring, visited one after the other.

    The paper gives no hyper-parameters of it; docs/decisions/dist-mtps.md says how these were tuned.

    Example:
        >>> experiment = dist_mtps(cartpole_balance(), "power")
        >>> experiment.agents, experiment.topology, experiment.schedule.rule
        (25, 'ring', 'cycle')
    """
    return replace(
        experiment,
        algorithm=DistMTPS(search, **_TUNED[search]),
        experience=Episodes(5),
        topology="ring",
        schedule=Schedule(rule="cycle"),
        rounds=max(experiment.rounds // 5, 1),
    )


_TUNED: dict[Search, dict[str, Any]] = {
    "reinforce": {
        "latent": 3,
        "penalty": 0.1,
        "coefficient_regulariser": 0.32,
        "step_size": 3.0,
        "exploration": 3.0,
    },
    "power": {
        "latent": 2,
        "penalty": 0.01,
        "coefficient_regulariser": 0.001,
        "exploration": 30.0,
        "ridge": 0.001,
    },
}


def _diffusion(environment: Environment, rounds: int) -> Experiment:
    return Experiment(
        environment=environment,
        algorithm=SiAC(),
        experience=Episodes(1),
        rounds=rounds,
    )
