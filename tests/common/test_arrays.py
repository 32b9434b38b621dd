import numpy as np
import pytest

from sb3_visual_td3.common.arrays import StoredArray, fill


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


def test_a_stored_array_is_read_straight_into_its_place():
    source, target = OnDisk(np.arange(6).reshape(2, 3)), np.zeros((2, 3), int)
    assert isinstance(source, StoredArray)
    fill(target, source)
    assert source.n_reads == 1
    np.testing.assert_array_equal(target, [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("other", [np.zeros((1, 3), int), np.zeros((2, 3), np.float32)])
def test_nothing_is_broadcast_or_cast(other):
    target = np.ones((2, 3), int)
    with pytest.raises(ValueError, match="as it is here"):
        fill(target, other)
    np.testing.assert_array_equal(target, np.ones((2, 3)))
