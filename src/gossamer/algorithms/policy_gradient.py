"""What actor-critics share: the loss of policy gradient, critic and entropy, and limits.

It knows neither networks nor where advantages and targets come from.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from gossamer.distributions import Categorical, DiagonalGaussian
from gossamer.types import Estimate, Info


def actor_critic_loss(
    policy: Categorical | DiagonalGaussian,
    value: Float[Array, "time env"],
    action: Num[Array, "time env *action"],
    estimate: Estimate,
    weight: Float[Array, "time env"],
    value_coefficient: float | Float[Array, ""],
    entropy_coefficient: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Info]:
    """Weighted sum over a batch, and its three parts before they are multiplied by their coefficients.

        Σ weight · [ −ln π(a_t|s_t) Â_t + c_v (v(s_t) − target_t)² − c_e H(π(·|s_t)) ]

    The estimate is meant to be held fixed: stop its gradient where it is computed inside of what is differentiated.

    Args:
        policy: π(·|s_t), whose parameters are to be learned.
        value: v(s_t), likewise.
        action: a_t, what was done.
        estimate: Â_t and target_t.
        weight: how much each transition counts; 0 for padding.
        value_coefficient: c_v.
        entropy_coefficient: c_e, per nat.

    Example:
        >>> one, policy = jnp.ones((1, 1)), Categorical(jnp.zeros((1, 1, 2)))
        >>> estimate = Estimate(advantage=0 * one, target=3 * one)
        >>> loss, info = actor_critic_loss(policy, one, jnp.array([[0]]), estimate, one, 0.5, 0.0)
        >>> float(loss), float(info["value_loss"])
        (2.0, 4.0)
    """
    policy_loss = -jnp.sum(weight * policy.log_prob(action) * estimate.advantage)
    value_loss = jnp.sum(weight * (value - estimate.target) ** 2)
    entropy = jnp.sum(weight * policy.entropy())
    total = policy_loss + value_coefficient * value_loss - entropy_coefficient * entropy
    return total, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}


def clipped(reward: Float[Array, "*batch"], limit: float | Float[Array, ""]) -> Float[Array, "*batch"]:
    """Rewards as a learner sees them, within ± ``limit``; 0 is no limit.

    Example:
        >>> clipped(jnp.array([-5.0, 0.5, 2.0]), 1.0).tolist(), clipped(jnp.array([-5.0]), 0.0).tolist()
        ([-1.0, 0.5, 1.0], [-5.0])
    """
    return jnp.clip(reward, -limit_of(limit), limit_of(limit))


def limit_of(value: float | Float[Array, ""]) -> Float[Array, ""]:
    """A limit for which 0 stands for none.

    Example:
        >>> float(limit_of(0.5)), float(limit_of(0.0))
        (0.5, inf)
    """
    return jnp.where(value > 0, value, jnp.inf)
