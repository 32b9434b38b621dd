"""Tests for the conversion of values to plain data and back."""

from collections import deque
from enum import IntEnum

import numpy as np
import pytest
from stable_baselines3.common.logger import Figure, Logger

from sb3_visual_td3.training_state.plain_data import as_given, as_plain, observation_from, observation_state
from sb3_visual_td3.training_state.training import logger_state, set_logger_state
from tests.training_state.snapshots import through_json


@pytest.mark.parametrize(
    "value", [np.float32(0.1), np.float64(0.1), np.int64(3), np.bool_(True), 2**127 + 1, float("inf"), None, True, "x"]
)
def test_a_number_keeps_its_type(value):
    back = as_given(through_json(as_plain(value, "it")))
    assert type(back) is type(value)
    assert back == value


def test_plain_data_round_trips_with_lists_for_tuples_and_copied_arrays():
    large = np.arange(100.0)
    back = as_given(through_json(as_plain({"a": [1, (2, 3)], "b": {"c": large}}, "it")))
    assert back["a"] == [1, [2, 3]]
    np.testing.assert_array_equal(back["b"]["c"], large)
    back["b"]["c"][0] = 1  # the restored array is writable and not shared
    assert large[0] == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [{1, 2}]}, r"it\.a\[0\] is of type set: expected plain data"),
        ({"a": {1: 2}}, r"it\.a has the key 1: expected a string"),
        (deque([1]), "it is of type deque"),
        (np.array([None]), "it is of type ndarray"),
        (IntEnum("Kind", "ONE").ONE, "it is of type Kind"),
    ],
)
def test_a_value_that_is_not_plain_is_named(value, text):
    with pytest.raises(ValueError, match=text):
        as_plain(value, "it")


LAYOUTS = {
    "as it is": lambda a: a,
    "turned": lambda a: a.transpose(0, 3, 1, 2),
    "turned, of one environment": lambda a: a[:1].transpose(0, 3, 1, 2),
    "turned, one channel": lambda a: np.ascontiguousarray(a[..., :1]).transpose(0, 3, 1, 2),
    "turned, one of one": lambda a: np.ascontiguousarray(a[:1, ..., :1]).transpose(0, 3, 1, 2),
    "Fortran's": np.asfortranarray,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_observation_keeps_its_memory_layout(layout):
    array = LAYOUTS[layout](np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8))
    back = observation_from(through_json(observation_state({"camera": array, "more": np.zeros((2, 0))})))
    np.testing.assert_array_equal(back["camera"], array)
    assert back["camera"].strides == array.strides
    assert back["camera"].flags.writeable
    assert back["more"].shape == (2, 0)


@pytest.mark.parametrize("array", [np.arange(6)[::-1], np.arange(12)[::2], np.broadcast_to(1.0, (2, 3)), np.array(5.0)])
def test_an_observation_with_gaps_in_memory_becomes_contiguous(array):
    back = observation_from(through_json(observation_state((array,))))
    np.testing.assert_array_equal(back[0], array)
    back[0][...] = 7
    assert (back[0] == 7).all()


def test_a_missing_observation_stays_none():
    assert observation_from(through_json(observation_state(None))) is None


def test_restored_means_of_the_sb3_logger_include_earlier_values():
    def record(logger, first):
        logger.record("a", np.float32(first))
        logger.record("words", "x", exclude=("csv", "json"))
        logger.record_mean("mean", first)
        logger.record_mean("mean", 2.0)

    logger, other = Logger(None, []), Logger(None, [])
    record(logger, 1.0)
    logger.record("figure", Figure(None, True))
    state = through_json(logger_state(logger))
    record(other, 5.0)
    other.record("other", 1)
    other.record_mean("mean", 9.0)
    set_logger_state(other, state)
    assert set(other.name_to_value) == {"a", "words", "mean"}
    assert type(other.name_to_value["a"]) is np.float32
    assert other.name_to_excluded["words"] == ("csv", "json")
    other.record_mean("mean", 6.0)
    assert other.name_to_value["mean"] == 3.0  # (1 + 2 + 6) / 3
    other.record_mean("new", 4.0)  # the mean of a new name starts without values
    assert other.name_to_value["new"] == 4.0
