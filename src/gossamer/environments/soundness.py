"""Whether an environment keeps its contract as far as shapes tell, before anything is compiled or written."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gossamer.environments.protocol import Environment, Step
from gossamer.errors import InputError, require_at_least
from gossamer.types import Box


def require_sound(environment: Environment, task: Any) -> None:
    """Refuse a device environment whose methods do not fit together; nothing is computed.

    Args:
        environment: a family of tasks.
        task: one of them, as it is dealt: a NamedTuple of scalar arrays.

    Raises:
        InputError: the time limit is below 1, the class is not frozen, a method raises while it is traced, or what it
            returns has another shape or type than the contract says.

    Example:
        >>> from gossamer.environments import Pendulum, PendulumTask
        >>> require_sound(Pendulum(), PendulumTask(jnp.array(1.0), jnp.array(1.0)))
    """
    name = type(environment).__name__
    require_at_least(f"max_steps of {name}", environment.max_steps, 1)
    try:
        hash(environment)
    except TypeError as error:
        raise InputError(
            f"{name} cannot be hashed ({error}); make it a dataclass with frozen=True, of numbers, strings and tuples"
        ) from error
    state = _traced(f"{name}.reset", environment.reset, jax.random.key(0), task)
    observation = _traced(f"{name}.observe", environment.observe, state, task)
    size = environment.observation_size
    if not _is_number(observation, (size,)):
        raise InputError(
            f"{name}.observe returns {_shown(observation)}; it must return {size} numbers, as observation_size says"
        )
    step = _traced(f"{name}.step", environment.step, jax.random.key(0), state, _action(environment), task)
    if not isinstance(step, Step):
        raise InputError(f"{name}.step returns a {type(step).__name__}; it must return a Step")
    if _forms(step.state) != _forms(state):
        raise InputError(
            f"{name}.step returns the state {_shown(step.state)}, and reset {_shown(state)}; both must have the same "
            "arrays in the same places"
        )
    if not _is_number(step.reward, ()):
        raise InputError(f"{name}.step returns the reward {_shown(step.reward)}; it must be one number")
    if not _is_bool(step.terminated):
        raise InputError(f"{name}.step returns the terminated {_shown(step.terminated)}; it must be one bool")
    if not (step.truncated is None or _is_bool(step.truncated)):
        raise InputError(
            f"{name}.step returns the truncated {_shown(step.truncated)}; it must be one bool, or None"
        )


def _action(environment: Environment) -> jax.ShapeDtypeStruct:
    space = environment.action_space
    return jax.ShapeDtypeStruct(
        *(((space.size,), jnp.float32) if isinstance(space, Box) else ((), jnp.int32))
    )


def _traced(name: str, method: Callable[..., Any], *arguments: Any) -> Any:
    """What a method returns, as shapes and types."""
    try:
        return jax.eval_shape(method, *arguments)
    except InputError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{name} cannot be traced by JAX ({type(error).__name__}: {first}); it must be a pure function of arrays"
        ) from error


def _forms(tree: Any) -> Any:
    return jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def _is_number(value: Any, shape: tuple[int, ...]) -> bool:
    kinds = (jnp.floating, jnp.integer)
    return getattr(value, "shape", None) == shape and any(jnp.issubdtype(value.dtype, kind) for kind in kinds)


def _is_bool(value: Any) -> bool:
    return getattr(value, "shape", None) == () and value.dtype == bool


def _shown(tree: Any) -> str:
    """Types and shapes in their places."""
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)).replace("'", "")
