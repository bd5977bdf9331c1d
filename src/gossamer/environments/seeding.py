"""Seeds of simulators that have generators of their own, from the numbers that name a simulator."""

import numpy as np
from jaxtyping import Int


def stream_seed(stream: Int[np.ndarray, " 3"]) -> int:
    """A seed for the simulator (seed, agent, env): 31 bits, as some simulators keep theirs in C's int.

    Example:
        >>> stream_seed(np.array([0, 0, 1])) != stream_seed(np.array([0, 1, 0]))
        True
    """
    seed, agent, env = stream.tolist()
    return int(np.random.SeedSequence(seed, spawn_key=(agent, env)).generate_state(1)[0]) >> 1
