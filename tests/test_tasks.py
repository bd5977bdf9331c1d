"""Task sets: their grids, how they are dealt, and what they refuse."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.environments import CartPoleTask, PendulumTask, TaskSet
from gossamer.errors import InputError

SINGLE = PendulumTask(mass=1.0, length=1.0)


class Wind(NamedTuple):
    speed: float


def grid(count):
    return TaskSet.grid(PendulumTask, count, SINGLE, mass=(0.8, 1.2), length=(0.5, 2.5))


def values(tasks, name):
    return sorted({getattr(task, name) for task in tasks.tasks})


def test_25_tasks_are_the_product_of_five_round_values_each():
    expected = [
        PendulumTask(mass, length) for mass in (0.8, 0.9, 1.0, 1.1, 1.2) for length in (0.5, 1, 1.5, 2, 2.5)
    ]
    assert list(grid(25).tasks) == expected


def test_one_task_is_the_single_one():
    assert grid(1) == TaskSet((SINGLE,))


@pytest.mark.parametrize(
    ("count", "masses", "lengths"),
    [
        (2, [1.0], [0.5, 2.5]),
        (3, [1.0], [0.5, 1.5, 2.5]),
        (4, [0.8, 1.2], [0.5, 2.5]),
        (6, [0.8, 1.2], [0.5, 1.5, 2.5]),
        (12, [0.8, 1.0, 1.2], [0.5, 1.166666667, 1.833333333, 2.5]),
    ],
)
def test_other_counts_are_the_most_nearly_square_grid(count, masses, lengths):
    tasks = grid(count)
    assert len(tasks) == count == len(set(tasks.tasks))
    assert (values(tasks, "mass"), values(tasks, "length")) == (masses, lengths)


@given(count=st.integers(2, 200))
@settings(deadline=None, max_examples=50)
def test_a_grid_has_distinct_tasks_within_the_ranges_and_centred_on_them(count):
    tasks = np.asarray(grid(count).tasks)
    assert len({tuple(task) for task in tasks}) == count
    assert np.all(tasks >= [0.8, 0.5])
    assert np.all(tasks <= [1.2, 2.5])
    # 1e-9: values are rounded to ten significant digits.
    np.testing.assert_allclose(tasks.mean(0), [1.0, 1.5], atol=1e-9)


def test_ranges_go_to_their_fields_by_name():
    assert TaskSet.grid(PendulumTask, 6, SINGLE, length=(0.5, 2.5), mass=(0.8, 1.2)) == grid(6)


@given(tasks=st.integers(1, 40), factor=st.integers(1, 5), copies=st.integers(1, 4), data=st.data())
@settings(deadline=None, max_examples=40)
def test_every_task_is_dealt_equally_often_into_a_rectangle(tasks, factor, copies, data):
    divisors = [divisor for divisor in range(1, tasks + 1) if tasks % divisor == 0]
    agents = data.draw(st.sampled_from([*divisors, tasks * factor]))
    task_set = TaskSet(tuple(Wind(float(speed)) for speed in range(tasks)))
    number, dealt = task_set.index(agents, copies), task_set.deal(agents, copies)
    assert number.shape == dealt.speed.shape == (agents, max(1, tasks // agents) * copies)
    np.testing.assert_array_equal(dealt.speed, number)  # task i of this set has the value i
    assert len(set(np.bincount(np.ravel(number), minlength=tasks))) == 1


@given(tasks=st.integers(1, 60), agents=st.integers(1, 120))
@settings(deadline=None, max_examples=60)
def test_a_deal_is_refused_exactly_where_neither_number_divides_the_other(tasks, agents):
    task_set = TaskSet(tuple(Wind(float(speed)) for speed in range(tasks)))
    if tasks % agents == 0 or agents % tasks == 0:
        task_set.index(agents)
    else:
        with pytest.raises(InputError, match="cannot be dealt evenly"):
            task_set.index(agents)


@pytest.mark.parametrize(
    ("agents", "copies", "expected"),
    [
        (1, 1, [[0, 1, 2, 3]]),
        (2, 1, [[0, 1], [2, 3]]),
        (4, 1, [[0], [1], [2], [3]]),
        (8, 1, [[0], [1], [2], [3], [0], [1], [2], [3]]),
        (2, 2, [[0, 0, 1, 1], [2, 2, 3, 3]]),
        (4, 3, [[0] * 3, [1] * 3, [2] * 3, [3] * 3]),
    ],
)
def test_who_gets_which_task(agents, copies, expected):
    assert grid(4).index(agents, copies).tolist() == expected


def test_the_papers_three_shapes_and_two_agents_a_task():
    tasks = grid(25)
    assert tasks.deal(25).mass.shape == (25, 1)
    assert tasks.deal(1).mass.shape == (1, 25)
    assert tasks.deal(25, copies=25).mass.shape == (25, 25)
    assert tasks.deal(5).mass.shape == (5, 5)
    assert tasks.deal(50).mass.shape == (50, 1)


def test_a_deal_has_the_type_of_its_tasks_and_single_precision_arrays():
    dealt = grid(4).deal(2)
    assert isinstance(dealt, PendulumTask)
    assert {leaf.dtype for leaf in jax.tree.leaves(dealt)} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(dealt.mass, np.array([[0.8, 0.8], [1.2, 1.2]], np.float32))
    np.testing.assert_array_equal(dealt.length, np.array([[0.5, 2.5], [0.5, 2.5]], np.float32))
    assert grid(4).index(2).dtype == jnp.int32


def test_a_set_is_hashable_comparable_and_prints_plainly():
    assert grid(4) == grid(4) != grid(6)
    assert hash(grid(4)) == hash(grid(4))
    assert repr(grid(2)).startswith("TaskSet(tasks=(PendulumTask(mass=1.0, length=0.5), ")


def test_a_row_of_a_table():
    tasks = TaskSet.grid(
        CartPoleTask, 9, CartPoleTask(0.1, 0.5), pole_mass=(0.1, 0.5), half_length=(0.2, 1.0)
    )
    assert tasks.names == ("pole_mass", "half_length")
    assert tasks.describe(5) == "pole_mass 0.3, half_length 1.0"


@pytest.mark.parametrize(
    ("tasks", "agents", "sentence"),
    [
        (25, 4, "25 tasks cannot be dealt evenly to 4 agents; 1, 5, 25 or a multiple of 25 agents would fit"),
        (6, 9, "6 tasks cannot be dealt evenly to 9 agents; 1, 2, 3, 6 or a multiple of 6 agents would fit"),
    ],
)
def test_an_uneven_deal_is_refused_and_the_numbers_that_fit_are_named(tasks, agents, sentence):
    for deal in (grid(tasks).deal, grid(tasks).index):
        with pytest.raises(InputError, match=f"^{sentence}$"):
            deal(agents)


@pytest.mark.parametrize(
    ("attempt", "sentence"),
    [
        (lambda: TaskSet(()), "a task set was given no task"),
        (lambda: TaskSet((1.0,)), r"a task is 1\.0"),
        (lambda: TaskSet((SINGLE, CartPoleTask(1.0, 1.0))), r"of the same type, here PendulumTask"),
        (lambda: TaskSet((PendulumTask(1.0, float("nan")),)), "length is nan"),
        (lambda: TaskSet((PendulumTask(float("inf"), 1.0),)), "mass is inf"),
        (
            lambda: TaskSet((PendulumTask(jnp.ones(()), 1.0),)),
            r"mass is Array\(1.*it must be a finite number",
        ),
        (lambda: grid(0), "the number of tasks is 0"),
        (lambda: grid(4).deal(0), "agents is 0"),
        (lambda: grid(4).index(-2), "agents is -2"),
        (lambda: grid(4).deal(4, copies=0), "copies is 0"),
        (lambda: TaskSet.grid(PendulumTask, 4, SINGLE, mass=(0.8, 1.2)), r"ranges were given for \['mass'\]"),
        (
            lambda: TaskSet.grid(PendulumTask, 4, SINGLE, mass=(1.2, 0.8), length=(1.0, 2.0)),
            r"the range of mass is \(1\.2, 0\.8\)",
        ),
        (
            lambda: TaskSet.grid(PendulumTask, 4, SINGLE, mass=(0.8, float("nan")), length=(1.0, 2.0)),
            r"the range of mass is \(0\.8, nan\)",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(attempt, sentence):
    with pytest.raises(InputError, match=sentence):
        attempt()
