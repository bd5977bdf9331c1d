"""Configurations survive JSON exactly, and data that does not describe one is refused in one sentence."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.environments import GymnasiumEnvironment
from gossamer.errors import InputError
from gossamer.runs.serialization import dumps, from_data, loads, to_data
from gossamer.types import Box


@dataclass(frozen=True)
class Rate:
    value: float
    decay: float = 1.0

    def __post_init__(self):
        if self.value < 0:
            raise InputError(f"rate is {self.value}; it must be at least 0")


class Layers(NamedTuple):
    sizes: Any
    name: Any = "mlp"


@dataclass(frozen=True)
class Run:
    rate: Any
    layers: Any
    out: Any = None
    derived: int = field(init=False, default=3)

    @dataclass(frozen=True)
    class Nested:
        flag: Any


class Plain:
    pass


class Text(str):
    pass


NAME = __name__

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.lists(st.sampled_from(["a", "b c", ".."]), min_size=1).map(lambda parts: Path(*parts))
)


def records(inner):
    return (
        st.lists(inner, max_size=3).map(tuple)
        | st.builds(Layers, inner, inner)
        | st.builds(Run, inner, inner, inner)
        | st.builds(Run.Nested, inner)
    )


def alike(a, b):
    """Equality that also tells 1 from True and 1.0, 0.0 from -0.0, and a tuple from a NamedTuple."""
    return a == b and repr(a) == repr(b)


@given(st.recursive(scalars, records, max_leaves=12))
def test_any_value_survives_json(value):
    assert alike(loads(dumps(value)), value)


def test_data_is_plain_and_names_the_class():
    data = to_data(Run(Rate(1e-3), Layers((64, 64)), Path("runs/a")))
    assert data == {
        "class": f"{NAME}:Run",
        "rate": {"class": f"{NAME}:Rate", "value": 1e-3, "decay": 1.0},
        "layers": {"class": f"{NAME}:Layers", "sizes": [64, 64], "name": "mlp"},
        "out": {"class": "pathlib:Path", "path": "runs/a"},
    }
    assert json.loads(json.dumps(data)) == data


def test_nested_classes_are_found():
    assert loads(dumps(Run.Nested(True))) == Run.Nested(True)


def test_our_classes_go_by_public_names_which_earlier_names_by_module_still_mean():
    data = to_data(Box(1, 2.0))
    assert data == {"class": "gossamer.Box", "size": 1, "bound": 2.0}
    for name in ("gossamer.Box", "gossamer.types:Box", "gossamer.a.module.that.has.moved:Box"):
        assert from_data({**data, "class": name}) == Box(1, 2.0)


def test_no_module_is_imported_because_data_names_it(tmp_path, monkeypatch):
    (tmp_path / "hostile_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="if you trust it, add --import hostile_module"):
        from_data({"class": "hostile_module:Anything"})


@pytest.mark.parametrize("value", [5e-324, 1.7976931348623157e308, 0.1 + 0.2, -0.0, 2**80, math.pi])
def test_numbers_are_exact(value):
    assert alike(loads(dumps(value)), value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Run(Rate(math.inf), ()), r"Run\.rate\.value is inf"),
        (Run(0.1, (1.0, math.nan)), r"Run\.layers\[1\] is nan"),
        (Run(Plain(), ()), rf"Run\.rate is of type {NAME}\.Plain; a configuration holds"),
        (np.float64(0.5), r"value is of type numpy\.float64"),
        (np.zeros(2), r"value is of type numpy\.ndarray"),
        ([1, 2], r"value is of type builtins\.list"),
        ({"a": 1}, r"value is of type builtins\.dict"),
        (Text("a"), rf"value is of type {NAME}\.Text"),
        (Rate, r"value is of type builtins\.type"),
    ],
)
def test_unsupported_values_are_refused(value, message):
    with pytest.raises(InputError, match=message):
        to_data(value)


def test_a_class_inside_a_function_is_refused():
    @dataclass(frozen=True)
    class Local:
        size: int

    with pytest.raises(InputError, match=r"Local is of class .*<locals>\.Local, which cannot be found again"):
        to_data(Local(1))


def test_a_class_hidden_by_another_of_its_name_is_refused():
    impostor = dataclass(frozen=True)(
        type("Rate", (), {"__module__": NAME, "__annotations__": {"value": float}})
    )
    with pytest.raises(InputError, match="which cannot be found again"):
        to_data(impostor(1.0))


def test_a_derived_field_that_earlier_data_holds_is_ignored():
    data = {"class": f"{NAME}:Run", "rate": 1, "layers": 2, "derived": {"class": "nowhere:Nothing"}}
    assert from_data(data) == Run(1, 2)


def test_a_renamed_field_is_read_by_its_earlier_name():
    data = {"class": "gossamer.environments.gymnasium:GymnasiumEnvironment", "id": "CartPole-v1"}
    assert from_data(data) == GymnasiumEnvironment("CartPole-v1")


def test_a_field_that_came_later_than_the_data_has_its_default():
    assert from_data({"class": f"{NAME}:Rate", "value": 1.0}) == Rate(1.0, decay=1.0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"class": f"{NAME}:Rate", "decay": 1.0}, "Rate lacks the field 'value'"),
        ({"class": f"{NAME}:Rate", "value": 1.0, "decay": 1.0, "size": 2}, "Rate has no field 'size'"),
        ({"class": f"{NAME}:Run.Nested", "flag": 1, "derived": 3}, "no field 'derived'"),
        ({"class": f"{NAME}:Missing"}, "neither a dataclass nor a NamedTuple"),
        ({"class": "no.such.module:Rate"}, "add --import no.such.module"),
        ({"class": "Rate"}, r"must be 'gossamer\.Name' or 'module:Name'"),
        ({"class": ""}, r"must be 'gossamer\.Name' or 'module:Name'"),
        ({"class": "..relative:Rate"}, r"add --import \.\.relative"),
        ({"class": "gossamer.Nothing"}, "not a public class of gossamer"),
        ({"class": "gossamer.cli.entry:main"}, "not a public class of gossamer"),
        ({"class": "gossamer.train"}, "neither a dataclass nor a NamedTuple"),
        ({"class": f"{NAME}:Plain"}, "neither a dataclass nor a NamedTuple"),
        ({"class": "subprocess:run"}, "neither a dataclass nor a NamedTuple"),
        ({"class": "pathlib:Path"}, "pathlib:Path lacks the field 'path'"),
        ({"class": "pathlib:Path", "path": 3}, "pathlib:Path refuses the given fields"),
        ({"class": 3}, r"data is \{'class': 3\}"),
        ({"size": 3}, r"data is \{'size': 3\}"),
        ([1.0, math.nan], r"data\[1\] is nan"),
        ({"class": f"{NAME}:Rate", "value": math.inf, "decay": 1.0}, r"Rate\.value is inf"),
        ({"class": f"{NAME}:Rate", "value": -1.0, "decay": 1.0}, r"rate is -1\.0"),
        ({"class": f"{NAME}:Rate", "value": "a", "decay": 1.0}, "Rate refuses the given fields"),
        ((1, 2), r"data is \(1, 2\)"),
    ],
)
def test_data_that_describes_no_value_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        from_data(data)


def test_text_that_is_not_json_is_refused():
    with pytest.raises(InputError, match="the text is not JSON"):
        loads("{")
