from __future__ import annotations

import json
import re
import sys
from collections import OrderedDict, deque
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings

from sb3_visual_td3.runs.snapshot import join, split
from tests.runs.state_trees import is_same, trees


def through_json(state: Any) -> Any:
    parts = split(state)
    text = json.dumps(parts.plain, allow_nan=False, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return join(json.loads(text.decode("utf-8", "surrogatepass")), [array for _, array in parts.arrays])


@settings(max_examples=300)
@given(trees)
def test_a_state_round_trips_through_json_bit_for_bit(state: dict[str, Any]) -> None:
    assert is_same(through_json(state), state)


def test_the_json_of_a_state_is_as_written_by_hand() -> None:
    state = {"n": 3, "big": 2**64, "inf": float("inf"), "w": np.zeros(2), "l": (1, None), "$a": {"b": True}}
    plain, arrays = split({"outer": state})
    assert plain == {
        "outer": {
            "$dict": {
                "n": 3,
                "big": {"$int": "0x10000000000000000"},
                "inf": {"$float": "7ff0000000000000"},
                "w": {"$array": 0},
                "l": [1, None],
                "$a": {"b": True},
            }
        }
    }
    assert [path for path, _ in arrays] == ["outer.w"]
    assert arrays[0].array is state["w"]


class Colour(IntEnum):
    RED = 1


def test_numpy_scalars_and_subclasses_become_python_values() -> None:
    state = {
        "bool": np.bool_(True),
        "int": np.uint64(2**64 - 1),
        "float32": np.float32(0.1),
        "float64": np.float64(-0.0),
        "str": np.str_("x"),
        "enum": Colour.RED,
        "tuple": (1, (2,)),
        "ordered": OrderedDict(b=1, a=2),
        np.str_("key"): None,
    }
    expected = {
        "bool": True,
        "int": 2**64 - 1,
        "float32": float(np.float32(0.1)),
        "float64": -0.0,
        "str": "x",
        "enum": 1,
        "tuple": [1, [2]],
        "ordered": {"b": 1, "a": 2},
        "key": None,
    }
    assert is_same(through_json(state), expected)


def test_very_long_integers_round_trip() -> None:
    number = -(7 ** (2 * getattr(sys, "get_int_max_str_digits", lambda: 5000)()))
    assert through_json({"n": number})["n"] == number


def test_the_state_of_a_generator_round_trips() -> None:
    generator = np.random.default_rng(5)
    state = through_json({"rng": generator.bit_generator.state})["rng"]
    expected = generator.random(3)
    generator.bit_generator.state = state
    assert (generator.random(3) == expected).all()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"callbacks": [{"schedule": lambda x: x}]}, r"^callbacks\.0\.schedule is a function <lambda>: a state holds"),
        ({"a": {"weights": th.zeros(2)}}, r"^a\.weights is a Tensor: "),
        ({"a": {1: 2}}, r"^a has the key 1 \(int\): "),
        ({None: 2}, r"^the state has the key None \(NoneType\): "),
        ({"a": np.array([object()])}, r"^a is an array of object: "),
        ({"a": np.zeros(2, "c8")}, r"^a is an array of complex64: "),
        ({"a": np.zeros(2, "i4,f4")}, r"^a is an array of \["),
        ({"a": np.array(["x"])}, r"^a is an array of <U1: "),
        ({"a": np.ma.masked_array([1, 2], [True, False])}, r"^a is a masked array: "),
        ({"a": [b"x"]}, r"^a\.0 is a bytes: "),
        ({"a": deque([1])}, r"^a is a deque: "),
        ({"a": {1, 2}}, r"^a is a set: "),
        ({"a": 1j}, r"^a is a complex: "),
        ({"a": np.timedelta64(3, "s")}, r"^a is a timedelta64: "),
        ({"a": np.longdouble(1) / 3}, r"^a is a longdouble: "),
        ([1], "^the state is of type list"),
    ],
)
def test_a_value_that_is_not_plain_data_is_refused_with_its_place(state: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(state)


def test_a_list_that_holds_itself_is_refused() -> None:
    state: dict[str, Any] = {"a": []}
    state["a"].append(state)
    with pytest.raises(ValueError, match=r"a\.0\.a\.0\.a\.\.\. is nested more than 100 levels deep"):
        split(state)


@pytest.mark.parametrize(
    "plain",
    [
        {"$array": 1},
        {"$array": -1},
        {"$array": True},
        {"$array": "0"},
        {"$code": "x"},
        {"$int": 7},
        {"$dict": []},
        {"$int": "0x1", "a": 2},
    ],
)
def test_an_unknown_marker_is_refused(plain: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a form that this version does not know"):
        join({"a": [plain]}, [np.zeros(1)])


@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        ({"$float": "00"}, "16 hexadecimal digits"),
        ({"$float": "xyz"}, "16 hexadecimal digits"),
        ({"$int": "seven"}, "hexadecimal digits"),
    ],
)
def test_a_saved_number_with_invalid_digits_is_reported_as_damage(plain: dict[str, Any], expected: str) -> None:
    said = re.escape(f"a saved number is {plain!r}: expected {expected}. The snapshot is damaged")
    with pytest.raises(ValueError, match=said):
        join({"a": [plain]}, [])
