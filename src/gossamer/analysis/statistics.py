"""Statistics over seeds. Functions of arrays; they know no run."""

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student_t


def bootstrap_interval(
    values: Float[np.ndarray, "seed point"], level: float = 0.95, resamples: int = 2000
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """Percentile bootstrap interval of the mean over seeds, at each point: for pictures.

    With few seeds it is too narrow; differences are judged by ``difference_interval``.

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


def difference_interval(
    first: Float[np.ndarray, " seed"], second: Float[np.ndarray, " other_seed"], level: float = 0.95
) -> tuple[float, float, float]:
    """Difference of two means over independent seeds, and its interval by Welch's t.

    Where values are normal it is close to its level for few seeds too, also if one group scatters more, where a
    percentile bootstrap is too narrow.

    Args:
        first: one value per seed, two at least.
        second: one value per seed; seeds of the two are not paired.
        level: coverage in (0, 1).

    Returns:
        mean(first) − mean(second), and the interval's ends.

    Example:
        >>> estimate, low, high = difference_interval(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0]))
        >>> estimate, round(low, 2), round(high, 2)
        (2.0, -0.27, 4.27)
    """
    difference = float(first.mean() - second.mean())
    # Squared standard errors, and the degrees of freedom of their sum by Welch and Satterthwaite. SciPy's own interval
    # warns where the seeds of one group are alike, as those of who always reaches the maximum.
    errors = np.array([each.var(ddof=1) / len(each) for each in (first, second)])
    if not errors.any():
        return difference, difference, difference
    degrees = errors.sum() ** 2 / (errors**2 / (len(first) - 1, len(second) - 1)).sum()
    half = float(student_t.ppf((1 + level) / 2, degrees) * np.sqrt(errors.sum()))
    return difference, difference - half, difference + half


def relative_difference_interval(
    first: Float[np.ndarray, " seed"],
    second: Float[np.ndarray, " other"],
    resamples: int = 10_000,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """How far the first mean is above the second, in per cent of the second's size, and its bootstrap interval.

    Both groups are resampled: the second is as uncertain as the first.

    Example:
        >>> estimate, low, high = relative_difference_interval(np.array([3.0, 3.2]), np.array([2.0, 1.8]))
        >>> round(estimate), low < 63 < high
        (63, True)
    """
    generator = np.random.default_rng(0)
    ours, theirs = (_resampled_means(each, generator, resamples) for each in (first, second))
    tail = (1 - level) / 2
    low, high = np.quantile(100 * (ours - theirs) / np.abs(theirs), [tail, 1 - tail])
    return float(100 * (first.mean() - second.mean()) / abs(second.mean())), float(low), float(high)


def standard_error(values: Float[np.ndarray, "seed point"]) -> Float[np.ndarray, " point"]:
    """Of the mean over seeds; 0 for a single one.

    Example:
        >>> standard_error(np.array([[1.0, 4.0], [3.0, 4.0]])).tolist()
        [1.0, 0.0]
    """
    seeds = len(values)
    return values.std(0, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.zeros(values.shape[1:])


def _resampled_means(
    values: Float[np.ndarray, " seed"], generator: np.random.Generator, resamples: int
) -> Float[np.ndarray, " resample"]:
    counts = generator.multinomial(len(values), np.full(len(values), 1 / len(values)), size=resamples)
    return counts @ values / len(values)
