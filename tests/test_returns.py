import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.returns import discounted_returns, episode_discounts, generalised_advantages, vtrace


def naive_returns(reward, terminated, truncated, gamma, bootstrap):
    """Sum forwards, one step at a time, until the episode or the sequence ends."""
    returns = []
    for start in range(len(reward)):
        total, weight = 0.0, 1.0
        for t in range(start, len(reward)):
            total += weight * (reward[t] + bootstrap[t])
            if terminated[t] or truncated[t]:
                break
            weight *= gamma
        returns.append(total)
    return np.array(returns)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), gamma=st.floats(0, 1))
def test_equals_a_naive_loop(data, gamma):
    length = data.draw(st.sampled_from([1, 2, 7, 30]))
    floats = st.lists(st.floats(-10, 10), min_size=length, max_size=length)
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    reward, bootstrap = data.draw(floats), data.draw(floats)
    terminated, truncated = np.array(data.draw(flags)), np.array(data.draw(flags))
    discounts = episode_discounts(jnp.array(terminated), jnp.array(truncated), gamma)
    ours = discounted_returns(jnp.array(reward, jnp.float32), discounts, jnp.array(bootstrap, jnp.float32))
    # float32 sums of up to 30 terms of size 20: a few hundred units in the last place
    np.testing.assert_allclose(
        ours, naive_returns(reward, terminated, truncated, gamma, bootstrap), rtol=2e-5, atol=1e-3
    )


def test_no_discount_is_the_reward():
    reward = jnp.arange(4.0)
    assert discounted_returns(reward, jnp.zeros(4), jnp.zeros(4)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("terminated", "truncated"), [(True, False), (False, True), (True, True)])
def test_either_end_stops_what_follows(terminated, truncated):
    discounts = episode_discounts(jnp.array([terminated]), jnp.array([truncated]), 0.9)
    assert discounts.tolist() == [0.0]


def naive_vtrace(reward, value, next_value, terminated, truncated, ratio, gamma, rho_bar, c_bar):
    """Equation (1) as it is printed: a sum over t of products over i, up to the episode's end; then the advantages."""
    rho, c = np.minimum(rho_bar, ratio), np.minimum(c_bar, ratio)
    ended = terminated | truncated
    lasts = [
        next((t for t in range(s, len(reward)) if ended[t]), len(reward) - 1) for s in range(len(reward))
    ]

    def delta(t):
        return rho[t] * (reward[t] + (0.0 if terminated[t] else gamma * next_value[t]) - value[t])

    targets = [
        value[s] + sum(gamma ** (t - s) * np.prod(c[s:t]) * delta(t) for t in range(s, last + 1))
        for s, last in enumerate(lasts)
    ]
    advantages = []
    for s, last in enumerate(lasts):
        beyond = 0.0 if terminated[s] else next_value[s] if s == last else targets[s + 1]
        advantages.append(rho[s] * (reward[s] + gamma * beyond - value[s]))
    return np.array(targets), np.array(advantages)


@st.composite
def sequences(draw):
    """Rewards, values, following values of one critic, ends of both kinds, ratios of probabilities."""
    length = draw(st.sampled_from([1, 2, 9]))
    numbers = st.lists(st.floats(-10, 10, width=32), min_size=length, max_size=length)
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    reward, value, last = (np.array(draw(numbers)) for _ in range(3))
    terminated, truncated = (np.array(draw(flags)) for _ in range(2))
    # values follow each other inside an episode, as those of one critic do
    next_value = np.where(terminated | truncated, last, np.append(value[1:], last[-1]))
    log_ratio = np.array(draw(st.lists(st.floats(-3, 3, width=32), min_size=length, max_size=length)))
    return reward, value, next_value, terminated, truncated, log_ratio


def of(sequence):
    return [jnp.asarray(each, bool if each.dtype == bool else jnp.float32) for each in sequence]


@settings(max_examples=80, deadline=None)
@given(sequences(), st.floats(0, 1), st.floats(0.1, 3), st.floats(0.1, 3))
def test_vtrace_equals_the_double_sum_of_its_definition(sequence, gamma, rho_bar, c_bar):
    *facts, log_ratio = sequence
    targets, advantages = naive_vtrace(*facts, np.exp(log_ratio), gamma, rho_bar, c_bar)
    ours = vtrace(*of(sequence), gamma, rho_bar, c_bar)
    # float32; factors c up to 3 make nine terms of size 30 grow to 30 · 3⁹, and cancel
    scale = max(1.0, c_bar) ** len(log_ratio)
    np.testing.assert_allclose(ours.target, targets, rtol=1e-4, atol=1e-4 * scale)
    np.testing.assert_allclose(ours.advantage, advantages, rtol=1e-4, atol=3e-4 * scale)


@settings(max_examples=40, deadline=None)
@given(sequences(), st.floats(0, 1), st.floats(1, 3), st.floats(1, 3))
def test_on_policy_vtrace_is_n_step_returns(sequence, gamma, rho_bar, c_bar):
    *facts, ratio = of(sequence)
    expected = generalised_advantages(*facts, gamma, 1.0)
    ours = vtrace(*facts, jnp.zeros_like(ratio), gamma, rho_bar, c_bar)
    # the same sums in another order
    np.testing.assert_allclose(ours.advantage, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(ours.target, facts[1] + expected, rtol=1e-5, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(sequences(), st.floats(0, 1))
def test_vtrace_does_not_see_by_how_much_a_ratio_exceeds_its_thresholds(sequence, gamma):
    *facts, ratio = of(sequence)
    clipped = vtrace(*facts, jnp.minimum(ratio, 0.0), gamma)
    further = vtrace(*facts, jnp.where(ratio > 0, 1e3 * ratio, ratio), gamma)
    jax.tree.map(np.testing.assert_array_equal, further, clipped)


@settings(max_examples=40, deadline=None)
@given(sequences(), st.data(), st.floats(0, 1))
def test_vtrace_knows_nothing_across_the_end_of_an_episode(sequence, data, gamma):
    """What comes later changes nothing before; at a termination not even the final observation's value counts."""
    time = data.draw(st.integers(0, len(sequence[0]) - 1))
    reward, value, next_value, terminated, truncated, ratio = of(sequence)
    terminated = terminated.at[time].set(True)
    later = jnp.arange(len(reward)) > time
    noisy = [jnp.where(later, 7.0 - 3.0 * each, each) for each in (reward, value, next_value, ratio)]
    noisy[2] = noisy[2].at[time].set(99.0)
    ours = vtrace(reward, value, next_value, terminated, truncated, ratio, gamma)
    theirs = vtrace(*noisy[:3], terminated, truncated, noisy[3], gamma)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[: time + 1], y[: time + 1]), ours, theirs)


@settings(max_examples=40, deadline=None)
@given(sequences(), st.floats(0, 1), st.floats(-5, 5))
def test_vtrace_of_a_perfect_critic_leaves_it_alone_whatever_the_ratios(sequence, gamma, scale):
    """Where every surprise is zero nothing is to be learned: the targets are the values."""
    _, value, next_value, terminated, truncated, ratio = of(sequence)
    reward = value - gamma * jnp.where(terminated, 0.0, next_value)
    ours = vtrace(reward, value, next_value, terminated, truncated, ratio + scale, gamma, 2.0, 1.0)
    # rounding of one sum of three terms of size 10
    np.testing.assert_allclose(ours.target, value, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(ours.advantage, jnp.zeros_like(value), atol=1e-4)
