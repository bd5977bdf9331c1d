import math

import pytest

from gossamer.errors import (
    InputError,
    require_at_least,
    require_choice,
    require_non_negative,
    require_positive,
    require_within,
)


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_positive(value):
    with pytest.raises(InputError, match=rf"x is {value}; it must be a finite number above 0"):
        require_positive("x", value)
    require_positive("x", 1e-9)


@pytest.mark.parametrize("value", [-1e-9, math.inf, math.nan])
def test_non_negative(value):
    with pytest.raises(InputError, match="it must be a finite number, 0 or above"):
        require_non_negative("x", value)
    require_non_negative("x", 0)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_within(value):
    with pytest.raises(InputError, match="it must lie between 0 and 1"):
        require_within("x", value, 0, 1)
    require_within("x", 1.0, 0, 1)


def test_at_least():
    with pytest.raises(InputError, match="x is 2; it must be at least 3"):
        require_at_least("x", 2, 3)
    require_at_least("x", 3, 3)


def test_choice():
    with pytest.raises(
        InputError, match=r"x is 'varience'; it must be one of a, variance \(did you mean variance\?\)"
    ):
        require_choice("x", "varience", ("a", "variance"))
    with pytest.raises(InputError, match=r"x is 'zzz'; it must be one of a, b$"):
        require_choice("x", "zzz", ("a", "b"))
    require_choice("x", "a", ("a", "b"))


def test_is_a_value_error():
    assert issubclass(InputError, ValueError)
