"""Actors ahead of their learner: how many unrolls exist, how old they are, and that nothing ever waits for ever."""

import random
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.environments import Pendulum
from gossamer.errors import InputError
from gossamer.experience import Steps
from gossamer.experience.ahead import ActorError, ActorsAhead
from gossamer.types import Collected, Finished, Trajectory

PATIENCE = 30.0  # seconds; only a defect waits that long
EMPTY = Trajectory(*(np.zeros((1, 1)) for _ in range(8)), task=np.zeros(1))
NOTHING = Finished(*(np.zeros(1) for _ in range(3)))


class Watch:
    """Counts what the collectors of one test begin; tests wait for a number of beginnings."""

    def __init__(self, limit=None):
        self.changed, self.begun, self.learned, self.limit = threading.Condition(), 0, 0, limit
        self.excess = 0

    def begin(self):
        with self.changed:
            self.begun += 1
            if self.limit is not None:
                self.excess = max(self.excess, self.begun - self.learned - self.limit)
            self.changed.notify_all()

    def learn(self, unrolls):
        with self.changed:
            self.learned += unrolls

    def wait(self, begun):
        with self.changed:
            assert self.changed.wait_for(lambda: self.begun >= begun, PATIENCE), self.begun
            return self.begun


class Marking:
    """An unroll whose reward is its actor, its number and the parameters that it was given."""

    def __init__(self, actor=0, watch=None, gate=None):
        self.actor, self.number, self.watch, self.gate = actor, 0, watch or Watch(), gate

    def collect(self, act):
        self.watch.begin()
        if self.gate is not None:
            assert self.gate.wait(PATIENCE)
        self.number += 1
        reward = np.array([[self.actor, self.number, act]])
        return Collected((), EMPTY._replace(reward=reward), NOTHING)


def same(params):
    return params


def in_time(call, *arguments):
    """The call's result or error, from a thread that is given up after a while."""
    outcome = []

    def run():
        try:
            outcome.append((call(*arguments), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert outcome, f"{call} still waits"
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def marks(batch):
    return np.asarray(batch.trajectory.reward).reshape(-1, 3)


@pytest.mark.parametrize(("actors", "batch"), [(1, 1), (3, 3), (4, 2)])
def test_in_lockstep_nothing_lags_and_everything_repeats(actors, batch):
    """With batches of one unroll of everybody; smaller ones share what was collected at once."""
    with ActorsAhead([Marking(actor) for actor in range(actors)], same, 0, capacity=0, batch=batch) as ahead:
        for update in range(20):
            taken = in_time(ahead.take)
            actor, number, params = marks(taken).T
            np.testing.assert_array_equal(update - params, taken.lag)
            assert list(actor) == sorted(actor)
            if batch == actors:
                assert taken.lag.max() == 0
                assert (actor == np.arange(actors)).all()
                assert (number == update + 1).all()
            ahead.publish(update + 1)


@pytest.mark.parametrize(("capacity", "batch"), [(0, 1), (1, 1), (5, 1), (5, 2), (4, 5), (7, 3)])
def test_one_actor_is_at_most_capacity_over_batch_updates_behind_and_gets_there(capacity, batch):
    watch = Watch()
    with ActorsAhead([Marking(watch=watch)], same, 0, capacity, batch) as ahead:
        lags = []
        for update in range(30):
            watch.wait(capacity + 1 + update * batch)  # as far ahead as it may run
            taken = in_time(ahead.take)
            lags.extend(taken.lag)
            np.testing.assert_array_equal(update - marks(taken)[:, 2], taken.lag)
            ahead.publish(update + 1)
    assert max(lags) == capacity // batch


@pytest.mark.parametrize("seed", range(25))
def test_never_more_than_capacity_and_actors_exist_and_none_is_lost_or_doubled(seed):
    choose = random.Random(seed)
    actors, capacity = choose.randint(1, 5), choose.randint(0, 6)
    batch = choose.randint(1, actors + capacity)
    watch = Watch(limit=capacity + actors)
    seen = []
    with ActorsAhead([Marking(actor, watch) for actor in range(actors)], same, 0, capacity, batch) as ahead:
        assert watch.wait(capacity + actors) == capacity + actors
        for update in range(15):
            if choose.random() < 0.3:
                watch.wait(capacity + actors + update * batch)
            seen.extend(marks(in_time(ahead.take))[:, :2].astype(int).tolist())
            watch.learn(batch)
            ahead.publish(update + 1)
    assert watch.excess == 0
    for actor in range(actors):
        own = [number for of, number in seen if of == actor]
        assert sorted(own) == list(range(1, len(own) + 1))


def test_what_is_taken_and_not_published_counts_as_learned_when_more_is_asked_for():
    with ActorsAhead([Marking()], same, 0, capacity=0, batch=1) as ahead:
        assert [in_time(ahead.take).lag.tolist() for _ in range(5)] == 5 * [[0]]


@pytest.mark.parametrize("seed", range(60))
def test_closing_in_any_state_ends_every_thread(seed):
    choose = random.Random(seed)
    before = set(threading.enumerate())
    actors, capacity = choose.randint(1, 4), choose.randint(0, 4)
    batch = choose.randint(1, actors + capacity)
    gate = threading.Event()  # shut, it holds actors in the middle of an unroll
    if choose.random() < 0.7:
        gate.set()
    ahead = ActorsAhead([Marking(gate=gate) for _ in range(actors)], same, 0, capacity, batch)
    for update in range(choose.randint(0, 4) if gate.is_set() else 0):
        in_time(ahead.take)
        if choose.random() < 0.5:
            ahead.publish(update)
    learner = None
    if choose.random() < 0.5:  # a learner that may be waiting for a batch
        learner = threading.Thread(
            target=pytest.raises, args=(RuntimeError, take_for_ever, ahead), daemon=True
        )
        learner.start()
    closers = [threading.Thread(target=ahead.close, daemon=True) for _ in range(choose.randint(1, 2))]
    for closer in closers:
        closer.start()
    gate.set()
    for thread in [*closers, *([learner] if learner else [])]:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError, match="the actors are closed; take batches before that"):
        in_time(ahead.take)


def take_for_ever(ahead):
    while True:
        ahead.take()


class Failing(Marking):
    """Raises an error in place of a further unroll."""

    def __init__(self, error, after, gate=None):
        super().__init__(gate=gate)
        self.error, self.after = error, after

    def collect(self, act):
        collected = super().collect(act)
        if self.number > self.after:
            raise self.error
        return collected


@pytest.mark.parametrize("error", [ValueError("no simulator"), SystemExit("no simulator")])
def test_an_actors_error_reaches_the_learner_with_its_number(error):
    collectors = [Marking(0), Failing(error, after=2), Marking(2)]
    sentence = rf"^actor 1 ended with {type(error).__name__}: no simulator$"
    with ActorsAhead(collectors, same, 0, capacity=2, batch=2) as ahead:
        with pytest.raises(ActorError, match=sentence) as caught:
            in_time(take_and_publish_for_ever, ahead)
        assert caught.value.__cause__ is error
        with pytest.raises(ActorError, match=sentence):
            in_time(ahead.take)


def test_an_error_wakes_a_learner_that_waits_already():
    gate, waiting = threading.Event(), threading.Event()
    with ActorsAhead(
        [Failing(ValueError("late"), after=0, gate=gate)], same, 0, capacity=3, batch=4
    ) as ahead:

        def take():
            waiting.set()
            return ahead.take()

        opener = threading.Thread(target=lambda: (waiting.wait(PATIENCE), gate.set()))
        opener.start()
        with pytest.raises(ActorError, match="actor 0 ended with ValueError: late"):
            in_time(take)
        opener.join()


def take_and_publish_for_ever(ahead):
    while True:
        ahead.take()
        ahead.publish(0)


class PendulumActor:
    """An actor with environments on the device; one program serves all parameters and all actors."""

    collect_jitted = staticmethod(jax.jit(Steps(4).collect, static_argnums=0))

    def __init__(self, actor):
        self.pendulum, self.key = Pendulum(max_steps=3), jax.random.key(actor)
        self.tasks = jax.tree.map(lambda leaf: leaf[0], self.pendulum.task_set(2).deal(agents=1))
        self.state = Steps(4).init(self.pendulum, self.key, self.tasks)

    def collect(self, act):
        self.key, key = jax.random.split(self.key)
        collected = self.collect_jitted(self.pendulum, act, key, self.tasks, self.state)
        self.state = collected.state
        return collected


def push(params, key, observation, carry):
    return params * jnp.ones(1), jnp.zeros(()), carry


def test_environments_on_the_device_stand_side_by_side():
    def act_with(params):
        return jax.tree_util.Partial(push, params)

    actors = [PendulumActor(actor) for actor in range(3)]
    with ActorsAhead(actors, act_with, jnp.zeros(()), capacity=0, batch=3) as ahead:
        for update in range(3):
            batch = in_time(ahead.take)
            assert batch.trajectory.reward.shape == (4, 6)
            assert batch.trajectory.observation.shape == (4, 6, 3)
            assert batch.trajectory.task.tolist() == 3 * [0, 1]
            assert batch.finished.episodes.sum() == batch.trajectory.truncated.sum()
            assert (batch.trajectory.action == update).all()
            ahead.publish(jnp.asarray(update + 1.0))
    # continued from where they stood: an episode's third step is its last
    np.testing.assert_array_equal(batch.trajectory.truncated[:, 0], [True, False, False, True])


@pytest.mark.parametrize(
    ("actors", "capacity", "batch", "sentence"),
    [
        (0, 1, 1, "actors is 0"),
        (1, -1, 1, "capacity is -1"),
        (1, 1, 0, "batch is 0"),
        (2, 3, 6, "batch is 6"),
    ],
)
def test_refuses(actors, capacity, batch, sentence):
    with pytest.raises(InputError, match=sentence):
        ActorsAhead([Marking() for _ in range(actors)], same, 0, capacity, batch)
