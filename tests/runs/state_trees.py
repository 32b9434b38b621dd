"""Generate random states, and compare states bit for bit."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

DTYPES = ["?", "i1", "<i2", ">i4", "<i8", "u1", "<u4", "<u8", "<f2", "<f4", "<f8", ">f8"]

numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(st.characters(exclude_categories=[])),
)
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)
keys = st.one_of(
    st.text(st.characters(exclude_categories=[])), st.sampled_from(["$array", "$dict", "$int", "$", "a.b"])
)
trees = st.dictionaries(
    keys,
    st.recursive(
        st.one_of(numbers, arrays),
        lambda parts: st.one_of(st.lists(parts, max_size=4), st.dictionaries(keys, parts, max_size=4)),
        max_leaves=15,
    ),
    max_size=4,
)


def is_same(a: Any, b: Any) -> bool:
    """Return whether two trees are equal in type and bit for bit; stored arrays are read."""
    if hasattr(a, "__array__") and hasattr(b, "__array__"):
        a, b = np.asarray(a), np.asarray(b)
        return bool(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(is_same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(is_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    return bool(a == b)
