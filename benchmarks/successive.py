"""SiAC that takes a step of Adam for each transition, as one sentence of the paper may be read; for ablations."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gossamer.algorithms.hyperparameters import traced
from gossamer.algorithms.siac import SiAC
from gossamer.types import Estimate, Info, Key, Learner, Trajectory


@traced
@dataclass(frozen=True)
class SuccessiveSiAC(SiAC):
    """SiAC with as many updates as transitions: one after the other, in the order of time.

    Advantages are those of the parameters that collected; agents combine once a round, after all their updates.
    """

    def adapt(self, learner: Learner, trajectory: Trajectory, key: Key) -> tuple[Learner, Info]:
        """The learner after a step of each Adam for every transition."""
        del key
        estimate = self.estimate(learner.params, trajectory)
        time, env = trajectory.mask.shape
        batch = (trajectory._replace(task=jnp.broadcast_to(trajectory.task, (time, env))), estimate)
        single = jax.tree.map(lambda leaf: leaf.reshape(time * env, 1, 1, *leaf.shape[2:]), batch)

        def step(now: Learner, transition: tuple[Trajectory, Estimate]) -> tuple[Learner, Info]:
            trajectory, estimate = transition
            gradient, info = self.gradient_of(now.params, trajectory, estimate)
            after = self.apply(now, gradient)
            # Beyond the end of an episode nothing was lived through, and momentum must not go on.
            real = trajectory.mask.any()
            info = jax.tree.map(lambda each: jnp.where(real, each, 0.0), info)
            return jax.tree.map(lambda new, old: jnp.where(real, new, old), after, now), info

        last, infos = jax.lax.scan(step, learner, single)
        real = jnp.maximum(trajectory.mask.sum(), 1)
        adapted = last._replace(updates=learner.updates + 1)
        return adapted, jax.tree.map(lambda each: each.sum() / real, infos)
