"""Everything that has a name on the command line, and one line about it: data that imports nothing.

The module that implements each name builds its own table from the one here, so a name without an implementation
fails on import. ``gossamer list`` and misspelt names are answered from here alone, without jax or scipy.
"""

from collections.abc import Mapping

PROGRAM = "gossamer"

PUBLIC: Mapping[str, str] = {
    "A2C": "gossamer.algorithms.a2c",
    "Acrobot": "gossamer.environments.acrobot",
    "Atari": "gossamer.environments.atari",
    "Box": "gossamer.types",
    "CartPoleBalance": "gossamer.environments.cartpole",
    "CartPoleSwingUp": "gossamer.environments.cartpole",
    "Constant": "gossamer.schedules.durations",
    "DistMTPS": "gossamer.algorithms.dist_mtps",
    "Discrete": "gossamer.types",
    "Episodes": "gossamer.experience.device",
    "Evaluation": "gossamer.evaluation.evaluate",
    "Experiment": "gossamer.experiment",
    "Exponential": "gossamer.schedules.durations",
    "Frames": "gossamer.types",
    "GymnasiumEnvironment": "gossamer.environments.gymnasium",
    "HopperMass": "gossamer.environments.hopper",
    "HopperWind": "gossamer.environments.hopper",
    "Impala": "gossamer.algorithms.impala",
    "InputError": "gossamer.errors",
    "Integers": "gossamer.schedules.durations",
    "Interrupted": "gossamer.system.signals",
    "Lognormal": "gossamer.schedules.durations",
    "NonFiniteParameters": "gossamer.runs.log",
    "AdaptiveTimeout": "gossamer.schedules.adaptive_timeout",
    "Pendulum": "gossamer.environments.pendulum",
    "Policy": "gossamer.evaluation.policy",
    "Reinforce": "gossamer.algorithms.reinforce",
    "Schedule": "gossamer.schedules.schedule",
    "SiAC": "gossamer.algorithms.siac",
    "Spaces": "gossamer.types",
    "Steps": "gossamer.experience.device",
    "Uniform": "gossamer.schedules.durations",
    "Unrolls": "gossamer.experience.ahead",
    "build": "gossamer.runtimes.build",
    "evaluate": "gossamer.evaluation.evaluate",
    "load_policy": "gossamer.evaluation.policy",
    "plot": "gossamer.analysis",
    "resume": "gossamer.train",
    "train": "gossamer.train",
}
"""Names that the package exports, and the modules that define them. Run folders name our classes as here."""

RECIPES: Mapping[str, str] = {
    "a2c": "Diff-A2C on any Gymnasium task (--env-id)",
    "gala-pong": "GALA-A2C on Pong; 4 learners",
    "pong-a2c": "Synchronous A2C on Pong; 4 workers",
    "pong-a3c": "Large-batch A3C on Pong; 4 workers",
    "pong-impala": "IMPALA on Pong; 4 actors",
    "hopper-mass": "Asynchronous Diff-A2C on 25 Hopper masses",
    "hopper-mass-centralised": "One A2C agent on 25 Hopper masses",
    "hopper-wind": "Asynchronous Diff-A2C on 25 Hopper winds",
    "hopper-wind-centralised": "One A2C agent on 25 Hopper winds",
    "acrobot": "Asynchronous Diff-A2C on 25 Acrobots",
    "acrobot-centralised": "One A2C agent on 25 Acrobots",
    "acrobot-specialised": "25 isolated A2C agents on 25 Acrobots",
    "cartpole-balance": "Diff-SiAC on 25 balancing tasks",
    "cartpole-balance-centralised": "One SiAC agent on 25 balancing tasks",
    "cartpole-balance-policy-gradient": "Diffusion policy gradient, no critic",
    "cartpole-balance-reinforce": "Dist-MTPS with REINFORCE, same tasks",
    "cartpole-balance-power": "Dist-MTPS with PoWER, same tasks",
    "cartpole-swingup": "Diff-SiAC on 25 swing-up tasks",
    "cartpole-swingup-centralised": "One SiAC agent on 25 swing-up tasks",
    "pendulum": "Diff-SiAC on 25 inverted pendulums",
    "pendulum-centralised": "One SiAC agent on 25 inverted pendulums",
}
"""Recipes, which ``gossamer train``, ``launch`` and ``agent`` take."""

_ASYNCHRONOUS = "asynchronous runs of one seed are not the same to the bit"

REPRODUCTIONS: Mapping[str, str] = {
    "diffdac-fig2": "Figure 2: stability, 25 tasks",
    "diffdac-fig3": "Figure 3: cart-pole balance and Dist-MTPS",
    "diffdac-fig4": "Figure 4: Extreme Acrobot",
    "diffdac-fig5": "Figure 5: Hopper",
    "diffdac-fig6": "Figure 6: the network",
    "diffdac-fig7": "Figure 7: noisy links",
    "diffdac-fig8": "Figure 8: stability, one task",
    "diffdac-table1": "Table I: how alike agents are",
    "diffdac-table2": "Table II: zero-shot",
    "diffdac-table3": "Table III: zero-shot, relative",
    "diffdac-theory": "Diff-DAC's and GALA's propositions, lemma and theorems, by numbers (no training; --seeds has no "
    "effect)",
    "gala-fig1": "GALA, figure 1: success and returns (quick: cart-pole balance in place of Atari; "
    f"{_ASYNCHRONOUS})",
    "gala-fig2": f"GALA, figure 2: distance and its bound, gradients (quick: Acrobot and Pong; {_ASYNCHRONOUS})",
    "gala-fig3": f"GALA, figure 3: frames per second, utilisation, power (Pong; {_ASYNCHRONOUS})",
    "gala-fig4": "GALA, figure 4: large-batch A3C (quick: cart-pole balance in place of Atari; "
    f"{_ASYNCHRONOUS})",
    "gala-table1": f"GALA, table 1: best policies (quick: Pong, far too short; {_ASYNCHRONOUS})",
}
"""Published figures and tables, which ``gossamer reproduce`` takes; the lines are their titles in every report."""

TOPOLOGIES: Mapping[str, str] = {
    "isolated": "No links: specialised agents",
    "ring": "Agent i hears i - 1 and i + 1",
    "directed_ring": "Agent i hears i - 1 to i - peers (GALA's graph)",
    "line": "A ring cut open between the last agent and the first",
    "star": "Agent 0 and every other hear each other",
    "complete": "Every agent hears every other",
    "grid": "The most square grid; a line for a prime number",
    "torus": "The most square grid with its opposite sides joined",
    "hypercube": "Agents whose numbers differ in one binary digit",
    "exponential": "Agent i hears i - 2ᵏ for every k < ⌈log₂ agents⌉",
    "one_peer_exponential": "In round t agent i hears i - 2ᵏ, k = t mod ⌈log₂ agents⌉",
    "random_regular": "Random; every agent hears exactly degree others",
    "erdos_renyi": "Random, of a given mean_neighbourhood (Diff-DAC's graph)",
    "small_world": "Watts-Strogatz: a lattice of even degree, partly rewired",
    "edge_list": "A text file, one edge a line (edge_list:path=FILE)",
}
"""Topologies, which ``--topology`` takes."""

WEIGHT_RULES: Mapping[str, str] = {
    "metropolis_hastings": "W_ij = 1 / (1 + max(d_i, d_j)), the rest to oneself",
    "uniform": "W_ij = 1 / (1 + d_i) for oneself and every agent heard",
    "laplacian": "W = I - ε L with L = D - A",
    "lazy": "(I + M) / 2 with Metropolis-Hastings weights M",
}
"""Weight rules, which ``--weights`` takes."""
