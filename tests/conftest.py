"""Strictness for every test: silent broadcasting and silent dtype promotion are errors."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
