"""Importing this registers gossamer's environments with Gymnasium; gossamer and JAX are loaded when one is made.

It is a package of its own because ``gossamer`` is not light to import, and because Gymnasium looks for no plugins: it
imports what stands before a colon in an id.

Example:
    >>> import gymnasium
    >>> environment = gymnasium.make("gossamer_gymnasium:gossamer/CartPoleBalance-v0", task=3)
    >>> environment.action_space
    Box(-10.0, 10.0, (1,), float32)
"""

try:
    import gymnasium
except ImportError as error:
    from gossamer.errors import InputError

    raise InputError(
        f"gossamer_gymnasium needs the package gymnasium, and Python says: {error}; "
        "the extra gymnasium has it: pip install -e '.[gymnasium]' in the clone"
    ) from error

FAMILIES = ("Pendulum", "CartPoleSwingUp", "CartPoleBalance", "Acrobot", "HopperMass", "HopperWind")
"""Names of the classes in ``gossamer.environments`` that are registered, each as gossamer/NAME-v0."""

for _family in FAMILIES:
    gymnasium.register(
        id=f"gossamer/{_family}-v0",
        entry_point="gossamer_gymnasium.environments:TaskEnv",
        vector_entry_point="gossamer_gymnasium.environments:TasksVectorEnv",
        kwargs={"family": _family},
    )

__all__ = ["FAMILIES"]
