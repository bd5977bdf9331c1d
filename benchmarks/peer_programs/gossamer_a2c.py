"""Our A2C with 25 environments: Diff-A2C on a ring in lockstep or as published, or one centralised agent.

python benchmarks/peer_programs/gossamer_a2c.py acrobot|cartpole|hopper diffusion|asynchronous|centralised
    [--horizon 5] [--seconds 4]
"""

from dataclasses import replace

from rate import arguments, print_rate

from gossamer.environments import CartPoleBalance
from gossamer.experience import Steps
from gossamer.experiment import Experiment
from gossamer.recipes import acrobot, centralised_a2c, diffusion, hopper_mass
from gossamer.runtimes.build import build
from gossamer.runtimes.choice import runtime_of
from gossamer.schedules import Schedule

RECIPES = {
    "acrobot": acrobot,
    "cartpole": lambda: diffusion(CartPoleBalance()),
    "hopper": hopper_mass,
}
SHAPES = ("diffusion", "asynchronous", "centralised")


def main() -> None:
    chosen = arguments(environment=tuple(RECIPES), shape=SHAPES)
    experiment = shaped(RECIPES[chosen.environment](), chosen.shape, chosen.horizon)
    runtime = runtime_of(experiment, build(experiment))
    population, every = runtime.start(), experiment.record_every
    steps_per_round = 25 * chosen.horizon

    def advance(steps: int) -> int:
        nonlocal population
        done, wanted = 0, steps
        while done < wanted:
            rounds = -(-(wanted - done) // steps_per_round)
            population, reports = runtime.advance(population, min(rounds, runtime.most_rounds(every)), every)
            done += sum(int(report.record.agents.env_steps.sum()) for report in reports)
        return done

    print_rate(advance, chosen.seconds, ("gossamer", "jax", "mujoco", "numpy"))
    runtime.close()


def shaped(recipe: Experiment, shape: str, horizon: int) -> Experiment:
    """The recipe in lockstep, as it is, or with one agent; always with this horizon."""
    if shape == "centralised":
        recipe = centralised_a2c(recipe)
    if shape == "diffusion":
        recipe = replace(recipe, schedule=Schedule())
    return replace(recipe, experience=Steps(horizon))


if __name__ == "__main__":
    main()
