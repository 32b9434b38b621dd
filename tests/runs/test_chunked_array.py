from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sb3_visual_td3.common.saved_state import StoredArray, fill
from sb3_visual_td3.runs.object_store import ChunkedArray, ObjectStore, chunk_bytes_for, cut
from sb3_visual_td3.runs.snapshot import SnapshotError


def stored(array: NDArray[np.float32], folder: Path, chunk_bytes: int = 16) -> ChunkedArray:
    store = ObjectStore(folder)
    chunks = [store.put(part).digest for part in cut(array, chunk_bytes)]
    return ChunkedArray(array.shape, array.dtype, chunk_bytes, chunks, store)


@given(
    hnp.arrays("<i4", hnp.array_shapes(min_dims=1, max_dims=3, max_side=6)),
    st.integers(1, 10),
    st.sampled_from(["C", "F", "every other", "reversed", "transposed"]),
)
def test_chunks_hold_the_values_in_c_order_for_every_layout(
    array: NDArray[np.int32], n_numbers: int, layout: str
) -> None:
    view = {
        "C": array,
        "F": np.asfortranarray(array),
        "every other": array[::2],
        "reversed": array[..., ::-1],
        "transposed": array.T,
    }[layout]
    parts = [bytes(part) for part in cut(view, 4 * n_numbers)]
    assert b"".join(parts) == view.tobytes()
    assert {len(part) for part in parts[:-1]} <= {4 * n_numbers}


def test_chunks_of_a_contiguous_array_are_its_own_memory() -> None:
    array = np.zeros(10, np.float32)
    parts = list(cut(array, 16))
    array[9] = 1
    assert bytes(parts[2])[4:] == np.float32(1).tobytes()


def test_a_chunked_array_is_read_into_its_target(tmp_path: Path) -> None:
    array = np.arange(11, dtype=np.float32).reshape(11, 1)
    source = stored(array, tmp_path)
    assert isinstance(source, StoredArray)
    target = np.zeros((11, 1), np.float32)
    fill(target, source)
    assert (target == array).all()
    room = np.zeros((20, 1), np.float32)
    fill(room[5:16], source)
    assert room[:, 0].tolist() == [0] * 5 + list(range(11)) + [0] * 4
    assert (np.asarray(source) == array).all()
    assert np.asarray(source, np.float64).dtype == np.float64
    assert source.nbytes == 44


def test_a_target_of_another_shape_or_dtype_is_refused(tmp_path: Path) -> None:
    source = stored(np.ones((4, 2), np.float32), tmp_path)
    read_only = np.zeros((4, 2), np.float32)
    read_only.flags.writeable = False
    wrong = [np.zeros((2, 4), np.float32), np.zeros((4, 2), np.int32), np.zeros((4, 2), np.float32, "F"), read_only]
    for target in wrong:
        with pytest.raises(ValueError, match="target is"):
            source.read_into(target)
        assert not target.any()


def test_reading_checks_every_chunk(tmp_path: Path) -> None:
    source = stored(np.arange(12, dtype=np.float32), tmp_path)
    path = sorted(tmp_path.glob("*/*"))[1]
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(SnapshotError, match=rf"/{path.name} is damaged \(its SHA-256 differs from the file name\)"):
        source.read_into(np.zeros(12, np.float32))


@pytest.mark.parametrize("n_bytes", [1, 10**6, 2**30 - 1, 2**30, 7 * 10**9])
def test_chunks_never_split_an_item_and_are_not_too_many(n_bytes: int) -> None:
    assert chunk_bytes_for(n_bytes) % 16 == 0
    assert n_bytes / chunk_bytes_for(n_bytes) <= 2048
