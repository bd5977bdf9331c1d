"""Strictness for every test: silent broadcasting is an error.

Strict dtype promotion is not on: optax's Adam raises a float to its integer count, which strictness refuses.
"""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
