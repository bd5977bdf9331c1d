"""SiAC or A2C until agents do well in their own tasks: 25 on a graph, or one centralised that has all, as peers have.

python benchmarks/peer_programs/gossamer_until.py cartpole|acrobot diffusion|centralised --target 190 --every 10000
    --limit 300 [--seed 0]
"""

from dataclasses import replace

import jax
from until import EPISODES, Training, arguments, print_until

from gossamer.evaluation.rollouts import play_own_tasks
from gossamer.experience import Episodes, Steps
from gossamer.experiment import Experiment
from gossamer.recipes import acrobot, cartpole_balance, centralised, centralised_a2c
from gossamer.runtimes.build import build
from gossamer.runtimes.choice import runtime_of
from gossamer.schedules import Schedule
from gossamer.system.compilation_cache import persistent_cache


def main() -> None:
    chosen = arguments(environment=tuple(PRESETS), shape=("diffusion", "centralised"))
    experiment = replace(PRESETS[chosen.environment](chosen.shape), seed=chosen.seed)
    with persistent_cache():
        print_until(lambda: training(experiment), chosen, ("gossamer", "jax", "numpy"))


def balance(shape: str) -> Experiment:
    """SiAC of the recipe with smaller networks, a faster actor, and bootstrap where the time limit cut."""
    recipe = cartpole_balance()
    siac = replace(recipe.algorithm, hidden=(64, 64), actor_learning_rate=0.01, bootstrap_at_time_limit=True)
    diffusion = replace(recipe, algorithm=siac)
    return diffusion if shape == "diffusion" else centralised(diffusion)


def extreme_acrobot(shape: str) -> Experiment:
    """A2C of the recipe, in lockstep; the centralised one with its own learning rate and horizon."""
    diffusion = replace(acrobot(), schedule=Schedule())
    return diffusion if shape == "diffusion" else centralised_a2c(diffusion)


PRESETS = {"cartpole": balance, "acrobot": extreme_acrobot}


def training(experiment: Experiment) -> Training:
    """In steps of whole rounds."""
    every = 1
    experiment = replace(experiment, record_every=every)
    parts = build(experiment)
    runtime = runtime_of(experiment, parts)
    population = runtime.start()
    evaluations = 0

    def advance(steps: int) -> int:
        nonlocal population
        done = 0
        while done < steps:
            rounds = -(-(steps - done) // most_steps(experiment))
            population, reports = runtime.advance(population, min(rounds, runtime.most_rounds(every)), every)
            done += sum(int(report.record.agents.env_steps.sum()) for report in reports)
        return done

    def evaluate() -> float:
        nonlocal evaluations
        evaluations += 1
        keys = jax.random.split(jax.random.fold_in(jax.random.key(experiment.seed), evaluations), 1)
        params = population.learner.params
        returns = play_own_tasks(
            parts.algorithm, params, parts.tasks, keys, parts.environment, EPISODES, greedy=True
        )
        return float(returns.mean())

    return Training(advance, evaluate)


def most_steps(experiment: Experiment) -> int:
    """Of all agents in a round."""
    experience, environments = experiment.experience, experiment.tasks * experiment.copies
    if isinstance(experience, Episodes):
        return environments * experience.episodes_per_environment * experiment.environment.max_steps
    assert isinstance(experience, Steps)
    return environments * experience.steps


if __name__ == "__main__":
    main()
