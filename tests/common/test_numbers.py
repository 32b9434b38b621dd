"""Test which values ``to_integer`` and ``to_float`` accept."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch as th

from sb3_visual_td3.common.numbers import to_float, to_integer

EIGHTS = [8, 8.0, np.int64(8), np.uint8(8), np.float32(8), np.array(8), th.tensor(8), "8", "8.0", "8e0", Fraction(8)]


@pytest.mark.parametrize("value", EIGHTS, ids=repr)
def test_an_integer_in_any_notation_becomes_an_int(value):
    found = to_integer("batch_size", value, 1)
    assert (found, type(found)) == (8, int)


def test_large_integers_stay_exact():
    assert to_integer("seed", 2**63 + 1) == 2**63 + 1
    assert to_integer("buffer_size", "1e6") == 1_000_000


NO_INTEGERS = [
    True,
    np.bool_(True),
    8.5,
    np.float64(8.5),
    "eight",
    "8.5",
    "",
    None,
    [8],
    np.array([8]),
    math.nan,
    math.inf,
]


@pytest.mark.parametrize("value", [*NO_INTEGERS, "inf", 1j, Decimal("8.5"), b"8"], ids=repr)
def test_a_value_that_is_not_an_integer_is_refused_with_its_name(value):
    with pytest.raises(ValueError, match="batch_size=") as caught:
        to_integer("batch_size", value, 1)
    assert f"batch_size={value!r}: expected an integer >= 1" in str(caught.value)


def test_an_integer_out_of_range_is_refused():
    with pytest.raises(ValueError, match="n_steps=0: expected an integer >= 1"):
        to_integer("n_steps", 0, 1)
    assert to_integer("gradient_steps", -1) == -1


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), "0.5", "5e-1", Fraction(1, 2)], ids=repr)
def test_a_number_in_any_notation_becomes_a_float(value):
    found = to_float("tau", value, 0.0, 1.0)
    assert (found, type(found)) == (0.5, float)


@pytest.mark.parametrize("value", [True, np.bool_(False), math.nan, "nan", math.inf, None, [0.5], "half", 1.5, -0.1])
def test_a_number_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"tau=.*: expected a finite number from 0 to 1"):
        to_float("tau", value, 0.0, 1.0)


def test_the_message_names_the_limits():
    with pytest.raises(ValueError, match=r"norm=0: expected a finite number above 0"):
        to_float("norm", 0, above=0)
    with pytest.raises(ValueError, match=r"noise=-1: expected a finite number >= 0"):
        to_float("noise", -1, 0.0)
    with pytest.raises(ValueError, match=r"decay=1: expected a finite number above 0 and below 1"):
        to_float("decay", 1, above=0, below=1)
