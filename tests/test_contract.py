"""What every algorithm must keep, whatever it learns; a new one joins by a line in ``ALGORITHMS``."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.algorithms import (
    A2C,
    Algorithm,
    Averaging,
    Cyclic,
    DistMTPS,
    GradientAlgorithm,
    Impala,
    Reinforce,
    SiAC,
    acting,
    combine,
    initial_carry,
)
from gossamer.algorithms.hyperparameters import traced
from gossamer.runs.serialization import dumps, loads
from gossamer.types import Box, Discrete, Frames, Spaces, Trajectory
from stateful import Elman, ReplayedQ

SPACES = Spaces(observation_size=3, action=Box(size=2, bound=4.0))
DISCRETE = Spaces(3, Discrete(4))
FRAMES = Frames(stack=1, height=36, width=36)
SIAC, SMALL_A2C = SiAC(hidden=(8, 8)), A2C(hidden=(8, 8))
A2C_FRAMES = A2C((8,), "relu", "nature", convolution_widths=(2, 3, 4), reward_clip=1.0)
ALGORITHMS = {
    "siac": SIAC.bind(SPACES),
    "siac-tasks": replace(SIAC, weighting="tasks").bind(SPACES),
    "siac-deviation": replace(SIAC, spread="standard_deviation", activation="tanh").bind(SPACES),
    "siac-bootstrap": replace(SIAC, bootstrap_at_time_limit=True).bind(SPACES),
    "a2c": SMALL_A2C.bind(DISCRETE),
    "a2c-gaussian": SMALL_A2C.bind(SPACES),
    "a2c-shared-adam": replace(SMALL_A2C, network="shared", optimiser="adam", trace_decay=0.9).bind(DISCRETE),
    "a2c-normalised": replace(SMALL_A2C, normalise="observations_and_rewards").bind(DISCRETE),
    "a2c-frames": A2C_FRAMES.bind(Spaces(FRAMES.size, Discrete(4), FRAMES)),
    "a2c-mixed-statistics": replace(SMALL_A2C, normalise="observations", statistics="mixed").bind(DISCRETE),
    "impala": Impala(hidden=(8, 8)).bind(DISCRETE),
    "impala-gaussian": Impala(hidden=(8, 8), reduction="mean", decay_updates=9).bind(SPACES),
    "reinforce": Reinforce(hidden=(8, 8)).bind(SPACES),
    "reinforce-discrete": Reinforce(hidden=(8,), baseline="none", optimiser="sgd").bind(DISCRETE),
    "dist-mtps": DistMTPS().bind(SPACES, neighbours=2),
    "dist-mtps-power": DistMTPS("power", latent=3).bind(SPACES, neighbours=2),
    "recurrent": Elman().bind(DISCRETE),
    "replay": ReplayedQ().bind(DISCRETE),
}
KEY = jax.random.key(0)
MARK = 1234.5678  # in a memory or a carry; no parameter has this value

over_algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
AVERAGING = {name: each for name, each in ALGORITHMS.items() if isinstance(each, Averaging)}
over_averaging = pytest.mark.parametrize("algorithm", AVERAGING.values(), ids=AVERAGING)


# One program each. Called without jit, these functions compile a hundred small ones for every algorithm.
adapt = jax.jit(lambda algorithm, *arguments: algorithm.adapt(*arguments))
gradient_of = jax.jit(lambda algorithm, *arguments: algorithm.gradient(*arguments)[0])


def observations(algorithm, key, *batch):
    shape = (*batch, algorithm.spaces.observation_size)
    if algorithm.spaces.frames is None:
        return jax.random.normal(key, shape)
    return jax.random.randint(key, shape, 0, 256, dtype=jnp.uint8)


def trajectory(algorithm, time=5, env=3):
    keys = jax.random.split(jax.random.key(1), 3)
    last = jnp.arange(time)[:, None] == time - 1
    if isinstance(algorithm.spaces.action, Discrete):
        action = jax.random.randint(keys[1], (time, env), 0, algorithm.spaces.action.size)
    else:
        action = jax.random.normal(keys[1], (time, env, algorithm.spaces.action.size))
    seen = observations(algorithm, keys[0], time, env)
    return Trajectory.padding(time, env)._replace(
        observation=seen,
        next_observation=jnp.zeros_like(seen),
        action=action,
        reward=jax.random.normal(keys[2], (time, env)),
        truncated=jnp.broadcast_to(last, (time, env)),
        mask=jnp.ones((time, env), bool),
        carry=initial_carry(algorithm, env),
    )


def sent(algorithm, learner):
    """The bytes of a message, and of nothing else that its wire format adds."""
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(algorithm.message(learner)))


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@over_algorithms
def test_is_an_algorithm_that_prints_compares_and_round_trips(algorithm):
    assert isinstance(algorithm, Algorithm)
    assert isinstance(algorithm, Averaging) != isinstance(algorithm, Cyclic)  # one way to combine
    assert loads(dumps(algorithm)) == replace(algorithm)  # both without what ``bind`` set
    assert loads(dumps(algorithm)).bind(algorithm.spaces) == replace(algorithm).bind(algorithm.spaces)
    assert hash(replace(algorithm)) == hash(replace(algorithm))
    assert type(algorithm).__name__ in repr(algorithm)


@over_algorithms
def test_keys_decide_everything(algorithm):
    learner, same, other = (algorithm.init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, learner, same)
    assert any(
        not np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(learner.params), jax.tree.leaves(other.params), strict=True)
    )
    # of a few choices, twenty in a row would hardly be the same
    ones, carries = jnp.ones((20, algorithm.spaces.observation_size)), initial_carry(algorithm, 20)

    @jax.jit
    def act(key):
        return jax.vmap(acting(algorithm, learner.params))(jax.random.split(key, 20), ones, carries)[0]

    np.testing.assert_array_equal(act(KEY), act(KEY))
    assert not np.array_equal(act(KEY), act(jax.random.key(9)))


@over_algorithms
def test_adapting_keeps_shapes_and_dtypes_and_counts(algorithm):
    learner = algorithm.init(KEY)
    adapted, info = adapt(algorithm, learner, trajectory(algorithm), KEY)
    assert shapes(adapted) == shapes(learner)
    assert adapted.updates == learner.updates + 1
    assert all(value.shape == () and jnp.isfinite(value) for value in info.values())
    assert any(
        not np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(adapted.params), jax.tree.leaves(learner.params), strict=True)
    )


@over_algorithms
def test_vmap_adds_agents(algorithm):
    """A population is its agents one by one: nothing crosses the agent axis."""
    learners = jax.vmap(algorithm.init)(jax.random.split(KEY, 4))
    # Adaptive optimisers would turn a difference between gradients next to zero into one of a whole step.
    one = gradient_of if isinstance(algorithm, GradientAlgorithm) else adapt
    of_all = jax.vmap(one, in_axes=(None, 0, None, None))(algorithm, learners, trajectory(algorithm), KEY)
    of_one = one(algorithm, jax.tree.map(lambda leaf: leaf[2], learners), trajectory(algorithm), KEY)
    # float32, batched and single matrix products sum in another order
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[2], y, rtol=1e-4, atol=1e-5), of_all, of_one)


@over_averaging
def test_combining_with_oneself_alone_changes_nothing(algorithm):
    learner = algorithm.init(KEY)
    messages = jax.tree.map(lambda leaf: leaf[None], algorithm.message(learner))
    jax.tree.map(np.testing.assert_array_equal, combine(algorithm, learner, messages, jnp.ones(1)), learner)


@over_averaging
def test_combining_is_the_weighted_mean_of_messages_and_touches_nothing_else(algorithm):
    learners = [algorithm.init(jax.random.key(seed)) for seed in range(3)]
    adapted, _ = adapt(algorithm, learners[0], trajectory(algorithm), KEY)
    messages = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(algorithm.message(each) for each in learners)
    )
    combined = combine(algorithm, adapted, messages, jnp.array([0.5, 0.3, 0.2]))
    jax.tree.map(
        lambda result, leaves: np.testing.assert_allclose(
            result, np.tensordot([0.5, 0.3, 0.2], leaves, 1), rtol=1e-5, atol=1e-6
        ),
        algorithm.message(combined),
        messages,
    )
    jax.tree.map(np.testing.assert_array_equal, combined.optimiser, adapted.optimiser)
    jax.tree.map(np.testing.assert_array_equal, combined.memory, adapted.memory)


@over_algorithms
def test_messages_hold_nothing_of_memory_or_carry(algorithm):
    """Byte for byte, before and after learning from both."""
    marked = partial(jax.tree.map, lambda leaf: jnp.full_like(leaf, MARK))
    learner, played = algorithm.init(KEY), trajectory(algorithm)
    learner = learner._replace(memory=marked(learner.memory))
    adapted, _ = adapt(algorithm, learner, played._replace(carry=marked(played.carry)), KEY)
    for each in (learner, adapted):
        assert np.float32(MARK).tobytes() not in sent(algorithm, each)
        assert sent(algorithm, each) == sent(algorithm, each._replace(memory=()))


@over_algorithms
def test_nothing_is_mutated(algorithm):
    """The learner is closed over: as an argument of a traced function it would be copied."""
    learner = algorithm.init(KEY)
    before = jax.tree.map(np.array, learner)
    jax.make_jaxpr(partial(algorithm.adapt, learner, trajectory(algorithm)))(KEY)
    jax.tree.map(np.testing.assert_array_equal, before, learner)


@over_algorithms
def test_numbers_are_leaves_and_traces_are_not_checked(algorithm):
    doubled = jax.jit(lambda each: jax.tree.map(lambda leaf: 2 * leaf, each))(algorithm)
    assert doubled.discount == pytest.approx(2 * algorithm.discount)
    # negative numbers inside a trace pass unseen: only what people give is checked
    assert jax.tree.map(lambda leaf: -leaf, algorithm).discount < 0


def test_traced_keeps_structure_static():
    from dataclasses import dataclass

    @traced
    @dataclass(frozen=True)
    class Some:
        width: int = 3
        rate: float = 0.5

    assert jax.tree.leaves(Some()) == [0.5]
    assert jax.tree.structure(Some(width=4)) != jax.tree.structure(Some())
