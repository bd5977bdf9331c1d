"""Small algorithms with a carry or a memory, and an environment that cannot be solved without a carry."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gossamer.algorithms import descend
from gossamer.algorithms.hyperparameters import bind_fields, traced
from gossamer.algorithms.weighting import transition_weights
from gossamer.distributions import Categorical
from gossamer.environments import Step, TaskSet
from gossamer.returns import leave_one_out, returns_to_go
from gossamer.types import Discrete, Learner, Spaces


@traced
@dataclass(frozen=True)
class Elman:
    """REINFORCE with an Elman network, whose hidden state is the carry."""

    spaces: Spaces = field(init=False, repr=False, compare=False)
    hidden: int = 6
    learning_rate: float = 0.03
    discount: float = 1.0

    def bind(self, spaces):
        return bind_fields(self, spaces=spaces)

    def init(self, key):
        shapes = {
            "inwards": (self.spaces.observation_size, self.hidden),
            "onwards": (self.hidden, self.hidden),
            "outwards": (self.hidden, self.spaces.action.size),
        }
        keys = jax.random.split(key, len(shapes))
        params = {
            name: jax.random.normal(each, shape) / jnp.sqrt(shape[0])
            for each, (name, shape) in zip(keys, shapes.items(), strict=True)
        }
        return Learner(params, self._optimiser.init(params), jnp.zeros((), jnp.int32))

    def initial_carry(self):
        return jnp.zeros(self.hidden)

    def act(self, params, key, observation, carry):
        policy, carry = self._policy(params, observation, carry)
        action = policy.sample(key)
        return action, policy.log_prob(action), carry

    def act_greedily(self, params, observation, carry):
        policy, carry = self._policy(params, observation, carry)
        return policy.mode(), carry

    def gradient(self, learner, trajectory, key):
        target = returns_to_go(trajectory, self.discount)
        weight = transition_weights(trajectory, "transitions") * (target - leave_one_out(target))
        ended = trajectory.terminated | trajectory.truncated

        def loss(params):
            def play(carry, now):
                observation, ended = now
                policy, carry = self._policy(params, observation, carry)
                return jnp.where(ended[:, None], self.initial_carry(), carry), policy

            _, policy = jax.lax.scan(play, trajectory.carry, (trajectory.observation, ended))
            loss = -jnp.sum(weight * policy.log_prob(trajectory.action))
            return loss, {"policy_loss": loss}

        return jax.grad(loss, has_aux=True)(learner.params)

    def apply(self, learner, gradient):
        change, optimiser = self._optimiser.update(gradient, learner.optimiser)
        params = optax.apply_updates(learner.params, change)
        return learner._replace(params=params, optimiser=optimiser, updates=learner.updates + 1)

    adapt = descend

    def message(self, learner):
        return learner.params

    def absorb(self, learner, mixed):
        return learner._replace(params=mixed)

    def _policy(self, params, observation, carry):
        carry = jnp.tanh(observation @ params["inwards"] + carry @ params["onwards"])
        return Categorical(carry @ params["outwards"]), carry

    @property
    def _optimiser(self):
        return optax.adam(self.learning_rate)


class Replay(NamedTuple):
    """A ring buffer of transitions, ``[capacity, ...]``; ``count`` have been written in all."""

    observation: Any
    action: Any
    reward: Any
    next_observation: Any
    terminated: Any
    mask: Any
    count: Any


@traced
@dataclass(frozen=True)
class ReplayedQ:
    """Q-learning with linear values, on batches drawn from a memory; explores by uniform actions."""

    spaces: Spaces = field(init=False, repr=False, compare=False)
    capacity: int = 64
    batch: int = 16
    optimiser_steps: int = 4
    exploration: float = 0.5
    learning_rate: float = 0.2
    discount: float = 0.9

    def bind(self, spaces):
        return bind_fields(self, spaces=spaces)

    def init(self, key):
        size = self.spaces.observation_size
        params = jax.random.normal(key, (size, self.spaces.action.size))
        seen, number = jnp.zeros((self.capacity, size)), jnp.zeros(self.capacity)
        no = jnp.zeros(self.capacity, bool)
        memory = Replay(seen, number.astype(jnp.int32), number, seen, no, no, jnp.zeros((), jnp.int32))
        return Learner(params, (), jnp.zeros((), jnp.int32), memory)

    def act(self, params, key, observation):
        explore_key, action_key = jax.random.split(key)
        actions = self.spaces.action.size
        explores = jax.random.bernoulli(explore_key, self.exploration)
        drawn = jax.random.randint(action_key, (), 0, actions)
        action = jnp.where(explores, drawn, self.act_greedily(params, observation))
        greedy = action == self.act_greedily(params, observation)
        return action, jnp.log(self.exploration / actions + jnp.where(greedy, 1 - self.exploration, 0.0))

    def act_greedily(self, params, observation):
        return jnp.argmax(observation @ params)

    def adapt(self, learner, trajectory, key):
        memory = self._remember(learner.memory, trajectory)
        drawn = jax.random.randint(key, (self.optimiser_steps, self.batch), 0, self.capacity)

        def step(params, places):
            rows = jax.tree.map(lambda leaf: leaf[places], memory._replace(count=()))
            following = jnp.where(rows.terminated, 0.0, (rows.next_observation @ params).max(-1))
            target = rows.reward + self.discount * following

            def loss(params):
                value = (rows.observation @ params)[jnp.arange(self.batch), rows.action]
                return jnp.mean(rows.mask * (value - target) ** 2)

            value_loss, gradient = jax.value_and_grad(loss)(params)
            return params - self.learning_rate * gradient, value_loss

        params, losses = jax.lax.scan(step, learner.params, drawn)
        adapted = learner._replace(params=params, updates=learner.updates + 1, memory=memory)
        return adapted, {"value_loss": losses.mean()}

    def message(self, learner):
        return learner.params

    def absorb(self, learner, mixed):
        return learner._replace(params=mixed)

    def _remember(self, memory, trajectory):
        new = trajectory.mask.size
        places = (memory.count + jnp.arange(new)) % self.capacity

        def written(name):
            leaf = getattr(trajectory, name)
            return getattr(memory, name).at[places].set(leaf.reshape(new, *leaf.shape[2:]))

        written = {name: written(name) for name in Replay._fields if name != "count"}
        return Replay(**written, count=memory.count + new)


class Cue(NamedTuple):
    """What is to be recalled, -1 or 1, and steps so far."""

    sign: Any
    elapsed: Any


class Still(NamedTuple):
    """Nothing varies between tasks."""

    number: Any


@dataclass(frozen=True)
class Recall:
    """Shows a sign in the first step only; the action of the last step pays 1 if it names that sign."""

    max_steps: int = 3
    observation_size: int = 1
    action_space: Discrete = field(default=Discrete(2))

    def task_set(self, count):
        return TaskSet((Still(0.0),) * count)

    def reset(self, key, task):
        return Cue(jax.random.rademacher(key, (), jnp.float32), jnp.zeros((), jnp.int32))

    def observe(self, state, task):
        return jnp.where(state.elapsed == 0, state.sign, 0.0)[None]

    def step(self, key, state, action, task):
        last = state.elapsed == self.max_steps - 1
        right = (action == 1) == (state.sign > 0)
        return Step(state._replace(elapsed=state.elapsed + 1), (last & right).astype(jnp.float32), last)
