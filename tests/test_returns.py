import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.returns import discounted_returns, episode_discounts


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
