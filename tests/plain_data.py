"""Imitate a state that comes back from disk: plain data, lists for tuples, and large arrays still on disk."""

import numpy as np

N_LAZY_BYTES = 64


class OnDisk:
    """Imitate an array on disk: ``read_into`` copies it into a given array, and ``n_reads`` counts these calls."""

    def __init__(self, array):
        self._bytes = array.tobytes()
        self.shape, self.dtype = array.shape, array.dtype
        self.n_reads = 0

    def read_into(self, target):
        assert target.flags.c_contiguous
        assert (target.shape, target.dtype) == (self.shape, self.dtype)
        self.n_reads += 1
        flat = target.reshape(-1).view(np.uint8)
        for begin in range(0, len(flat), 100_000):
            part = self._bytes[begin : begin + 100_000]
            flat[begin : begin + len(part)] = np.frombuffer(part, np.uint8)

    def __array__(self, dtype=None, copy=None):
        return np.frombuffer(self._bytes, self.dtype).reshape(self.shape).copy()


def read_back(state):
    """Return the state as it comes back from disk, and fail if the state is not plain data."""
    if isinstance(state, dict):
        assert all(type(key) is str for key in state)
        return {key: read_back(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return [read_back(value) for value in state]
    if isinstance(state, np.ndarray):
        assert state.dtype != object
        assert state.flags.c_contiguous
        return OnDisk(state) if state.nbytes > N_LAZY_BYTES else state.copy()
    assert state is None or type(state) in (bool, int, float, str), repr(state)
    return state
