from dataclasses import dataclass, replace

import numpy as np
import pytest

from gossamer.algorithms import A2C, DistMTPS, Reinforce, SiAC
from gossamer.algorithms.hyperparameters import traced
from gossamer.environments import Acrobot
from gossamer.errors import InputError
from gossamer.experience import Steps
from gossamer.recipes import RECIPES
from gossamer.runs.serialization import dumps, loads
from gossamer.runtimes.build import build, population_shape, require_memory, require_memory_of_one, tree_bytes
from gossamer.schedules import Schedule
from small import small_experiment
from stateful import ReplayedQ


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_round_trips(name):
    experiment = RECIPES[name]()
    parts = build(experiment)
    assert parts.tasks is not None
    assert loads(dumps(experiment)) == experiment
    assert hash(experiment) == hash(RECIPES[name]())
    per_agent = max(experiment.tasks // experiment.agents, 1) * experiment.copies
    assert parts.task_index.shape == (experiment.agents, per_agent)


TWINS = {name: f"{name}-centralised" for name in RECIPES if f"{name}-centralised" in RECIPES}


@pytest.mark.parametrize("name", TWINS)
def test_the_centralised_twin_differs_in_shape_only(name):
    experiment, twin = RECIPES[name](), RECIPES[TWINS[name]]()
    assert (twin.agents, twin.topology) == (1, "isolated")
    if isinstance(experiment.algorithm, A2C):
        # appendix A.3 tunes horizon and learning rate apart; the steps in each environment are the same
        steps = experiment.experience.steps
        assert twin.rounds * twin.experience.steps == experiment.rounds * steps
        algorithm = replace(twin.algorithm, learning_rate=experiment.algorithm.learning_rate)
        counts = {
            field: getattr(experiment, field) for field in ("rounds", "record_every", "checkpoint_every")
        }
        twin = replace(
            twin, algorithm=algorithm, experience=Steps(steps), schedule=experiment.schedule, **counts
        )
    assert replace(twin, agents=experiment.agents, topology=experiment.topology) == experiment


def test_the_papers_settings():
    experiment = RECIPES["cartpole-balance"]()
    siac = experiment.algorithm
    assert (siac.hidden, siac.activation, siac.spread) == ((400, 400), "relu", "variance")
    assert (siac.actor_learning_rate, siac.critic_learning_rate) == (0.001, 0.01)
    assert (siac.entropy_coefficient, siac.discount, siac.weighting) == (0.0005, 0.99, "transitions")
    assert experiment.initial_parameters == "independent"
    assert experiment.experience.episodes_per_environment == 1
    assert RECIPES["pendulum"]().experience.episodes_per_environment == 1
    assert abs(build(experiment).topology.mean_neighbourhood - 4.2) < 0.05


def test_spaces_follow_the_environment():
    from gossamer.environments import Pendulum

    parts = build(small_experiment(environment=Pendulum(max_torque=3.0)))
    assert parts.algorithm.spaces.action.bound == 3.0
    assert parts.algorithm.spaces.observation_size == 3


def test_the_shape_of_the_population_is_known_beforehand():
    experiment = small_experiment(seeds=2)
    shape = population_shape(build(experiment).algorithm, experiment)
    assert {leaf.shape[:2] for leaf in np.atleast_1d(shape.learner.updates)} == {(2, 5)}
    actor = 4 * 8 + 8 + 8 * 8 + 8 + 8 * 2 + 2
    critic = 4 * 8 + 8 + 8 * 8 + 8 + 8 * 1 + 1
    assert tree_bytes(shape.learner.params) == 4 * 2 * 5 * (actor + critic)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"agents": 0}, "agents is 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**31}, "seed is 2147483648"),
        ({"block": 0}, "block is 0"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"agents": 4}, "25 tasks cannot be dealt evenly to 4 agents"),
        ({"topology": "rong"}, "'rong' is not a topology.*did you mean ring"),
        ({"topology": "hypercube"}, "hypercube"),
        (
            {"weights": "metropolis"},
            "'metropolis' is not a weight rule, nor the path of a matrix file; did you mean metropolis_hastings",
        ),
        ({"environment": "pendulum"}, "environment is 'pendulum'"),
    ],
)
def test_refuses(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        build(small_experiment(**changes))


@traced
@dataclass(frozen=True)
class ManySteps(A2C):
    """Claims to take more than one step in a round."""

    optimiser_steps: int = 4


@pytest.mark.parametrize("algorithm", [SiAC, DistMTPS])
def test_refuses_actions_that_the_algorithm_has_no_policy_for(algorithm):
    experiment = small_experiment(environment=Acrobot(), algorithm=algorithm(), tasks=1)
    message = f"{algorithm.__name__} needs bounded actions and the environment has Discrete.*; use A2C"
    with pytest.raises(InputError, match=message):
        build(replace(experiment, agents=1, topology="isolated"))


@pytest.mark.parametrize("algorithm", [DistMTPS, Reinforce])
def test_refuses_pieces_of_episodes_where_whole_ones_are_needed(algorithm):
    experiment = small_experiment(experience=Steps(5))
    message = f"{algorithm.__name__} learns from whole episodes and experience is Steps.*; use Episodes"
    with pytest.raises(InputError, match=message):
        build(replace(experiment, algorithm=algorithm()))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"runtime": "a3c"},
            "runtime is 'a3c', which exchanges gradients; ReplayedQ lacks the methods gradient",
        ),
        ({"runtime": "all_reduce"}, "runtime is 'all_reduce', which exchanges gradients; ReplayedQ lacks"),
        (
            {"runtime": "threads", "correlate": True},
            "correlate is True, which compares gradients; ReplayedQ lacks",
        ),
        (
            {"runtime": "a3c", "algorithm": ManySteps()},
            "one for each round; ManySteps takes 4 optimiser steps",
        ),
    ],
)
def test_refuses_to_exchange_gradients_of_an_algorithm_without_one_a_round(changes, sentence):
    alone = {"agents": 1, "tasks": 1, "topology": "isolated", "experience": Steps(5)}
    experiment = small_experiment(environment=Acrobot(), algorithm=ReplayedQ(), **alone)
    build(experiment)
    with pytest.raises(InputError, match=sentence):
        build(replace(experiment, **changes))


def test_names_the_methods_that_an_algorithm_lacks():
    with pytest.raises(
        InputError, match="it must have the methods of Averaging or of Cyclic, and lacks absorb, act"
    ):
        small_experiment(algorithm="siac")


def test_refuses_a_disconnected_edge_list(tmp_path):
    path = tmp_path / "edges.txt"
    path.write_text("0 1\n2 3\n3 4\n")
    with pytest.raises(InputError, match=r"not (strongly )?connected|cannot"):
        build(small_experiment(topology=str(path)))


def test_refuses_a_matrix_that_is_not_stochastic(tmp_path):
    path = tmp_path / "weights.txt"
    path.write_text("\n".join(["0.5 0.4 0 0 0", "1 0 0 0 0", "0 0 1 0 0", "0 0 0 1 0", "0 0 0 0 1"]))
    with pytest.raises(InputError, match=r"row 0 sums to 0\.9"):
        build(small_experiment(weights=str(path)))


def test_refuses_weights_that_leave_agents_apart(tmp_path):
    path = tmp_path / "weights.txt"
    path.write_text("\n".join(" ".join("1" if i == j else "0" for j in range(5)) for i in range(5)))
    with pytest.raises(
        InputError, match="the weights leave the 5 agents of ring in parts that never hear each other"
    ):
        build(small_experiment(weights=str(path)))
    build(small_experiment(weights=str(path), topology="isolated"))


def test_a_rule_is_not_shadowed_by_a_file_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "uniform").write_text("nonsense")
    build(small_experiment(weights="uniform"))


def test_refuses_messages_that_memory_cannot_hold():
    experiment = small_experiment(schedule=Schedule(link_failure=0.1, in_flight=10**6))
    algorithm = replace(experiment.algorithm, hidden=(400, 400))
    with pytest.raises(
        InputError,
        match=r"GiB; .* GiB of it for messages in flight and inboxes: a smaller in_flight than 1000000",
    ):
        build(replace(experiment, algorithm=algorithm))


def test_refuses_what_memory_cannot_hold():
    big = small_experiment(agents=100_000, tasks=1, topology="isolated")
    with pytest.raises(InputError, match=r"the population would need .* GiB and this process may use"):
        build(replace(big, algorithm=replace(big.algorithm, hidden=(2000, 2000))))


def test_memory_that_a_container_does_not_give_counts_as_missing(monkeypatch):
    monkeypatch.setattr("gossamer.runtimes.build.usable_memory", lambda: 2**10)
    with pytest.raises(InputError, match=r"and this process may use 0\.0 GiB; fewer agents or seeds"):
        build(small_experiment())


def test_an_agent_that_is_a_process_needs_memory_for_itself_and_those_it_hears(monkeypatch):
    experiment = small_experiment(agents=50, tasks=1, topology="star", runtime="network")
    parts = build(experiment)
    alone = population_shape(parts.algorithm, experiment, None, parts.tasks, only=1)
    leaf = 2 * (tree_bytes(alone) + parts.message_bytes)
    monkeypatch.setattr("gossamer.runtimes.build.usable_memory", lambda: leaf)
    require_memory_of_one(experiment, build(experiment), 1)
    with pytest.raises(
        InputError,
        match=r"agent 0 with a message of each of 49 others would need .* a graph with fewer links",
    ):
        require_memory_of_one(experiment, parts, 0)
    with pytest.raises(InputError, match="the population would need"):
        require_memory(experiment, parts)
    monkeypatch.setattr("gossamer.runtimes.build.usable_memory", lambda: leaf - 1)
    with pytest.raises(InputError, match="agent 1 with a message of each of 1 others would need"):
        require_memory_of_one(experiment, parts, 1)
