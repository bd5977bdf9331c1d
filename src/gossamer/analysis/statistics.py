"""Statistics over seeds. Functions of arrays; they know no run."""

import numpy as np
from jaxtyping import Float


def bootstrap_interval(
    values: Float[np.ndarray, "seed point"], level: float = 0.95, resamples: int = 2000
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """Percentile bootstrap interval of the mean over seeds, at each point.

    Args:
        values: one row per seed.
        level: coverage in (0, 1).
        resamples: how many times seeds are drawn with replacement; from a fixed generator, so that a picture
            is the same each time.

    Returns:
        Lower and upper ends.

    Example:
        >>> low, high = bootstrap_interval(np.array([[1.0], [2.0], [3.0]]))
        >>> bool(low[0] < 2.0 < high[0])
        True
    """
    generator = np.random.default_rng(0)
    seeds = values.shape[0]
    # How often each seed is drawn, so that a resampled mean is one matrix product.
    counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    means = counts @ values / seeds
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high
