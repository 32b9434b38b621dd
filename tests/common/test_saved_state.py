import numpy as np
import pytest

from sb3_visual_td3.common.saved_state import StoredArray, fill, require_same_settings


class OnDisk:
    """An array that counts how often it is read."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.n_reads = 0

    def read_into(self, target):
        self.n_reads += 1
        target[...] = self._array

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("read as a whole")


def test_a_stored_array_is_read_directly_into_the_target_array():
    source, target = OnDisk(np.arange(6).reshape(2, 3)), np.zeros((2, 3), int)
    assert isinstance(source, StoredArray)
    fill(target, source)
    assert source.n_reads == 1
    np.testing.assert_array_equal(target, [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("other", [np.zeros((1, 3), int), np.zeros((2, 3), np.float32)])
def test_nothing_is_broadcast_or_cast(other):
    target = np.ones((2, 3), int)
    with pytest.raises(ValueError, match=r"expected \(2, 3\) int64"):
        fill(target, other)
    np.testing.assert_array_equal(target, np.ones((2, 3)))


def test_equal_settings_pass_in_any_order():
    require_same_settings({"size": 3, "gamma": 0.99}, {"gamma": 0.99, "size": 3}, "The buffer")


def test_every_difference_is_named_and_nothing_else():
    kept = {"size": 3, "gamma": 0.99, "shape": [1, 2], "old": 1, "flag": True}
    here = {"size": 4, "gamma": 0.99, "shape": [1, 2], "new": "a", "flag": 1}
    with pytest.raises(ValueError, match="The buffer cannot") as caught:
        require_same_settings(kept, here, "The buffer")
    text = str(caught.value)
    for part in (
        "size was 3 and is 4",
        "old was 1 and is not there",
        "new was not there and is 'a'",
        "flag was True and is 1",
    ):
        assert part in text
    assert "gamma" not in text
    assert "shape" not in text
