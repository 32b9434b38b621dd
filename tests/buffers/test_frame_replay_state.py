"""A FrameReplayBuffer that was saved and restored continues like one that was never interrupted."""

import pickle
import tracemalloc

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_visual_td3 import FrameReplayBuffer
from sb3_visual_td3.buffers import frame_store
from sb3_visual_td3.common.types import HasState
from tests.buffers.naive_frame_buffer import GAMMA, Simulator, add_to
from tests.buffers.test_frame_replay_buffer import (
    ACTIONS,
    BOX,
    DICT,
    assert_same,
    check_nothing_is_lost,
    image_space,
    make,
    make_simulators,
    random_data,
    samples_at,
    stacks_in,
)
from tests.plain_data import read_back


def add(buffer, simulators, n):
    """Add ``n`` steps of the simulators to a buffer, and return these steps."""
    steps = [[simulator.step() for simulator in simulators] for _ in range(n)]
    for step in steps:
        add_to(buffer, step)
    return steps


def assert_same_arrays(one, other):
    """Check that two states are equal: arrays bit for bit, and keys in the same order."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same_arrays(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same_arrays(a, b)
    elif isinstance(one, np.ndarray):
        assert (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())
    else:
        assert one == other


def assert_same_buffers(one, other):
    assert (one.pos, one.full) == (other.pos, other.full)
    if other._is_allocated:
        assert_same_arrays(one.get_state(), other.get_state())
    if one.size():
        for env in range(one.n_envs):
            rows = range(one.size())
            assert_same(samples_at(one, rows, env), samples_at(other, rows, env))
        np.random.seed(1)
        expected, after = other.sample(16), np.random.random()
        np.random.seed(1)
        assert_same(one.sample(16), expected)
        assert np.random.random() == after


@settings(max_examples=120)
@given(
    space=st.sampled_from([BOX, DICT]),
    frame_stack=st.sampled_from([1, 2, 4]),
    size=st.integers(1, 9),
    n_envs=st.integers(1, 3),
    n_steps=st.integers(1, 4),
    handles_timeouts=st.booleans(),
    seed=st.integers(0, 2**32),
    n_added=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    is_reset=st.booleans(),
    is_used=st.booleans(),
)
def test_a_restored_buffer_continues_like_the_uninterrupted_one(
    space, frame_stack, size, n_envs, n_steps, handles_timeouts, seed, n_added, is_reset, is_used
):
    kwargs = {"handle_timeout_termination": handles_timeouts, "n_steps": n_steps, "frame_stack": frame_stack}
    stacks = stacks_in(space, frame_stack)
    never_interrupted = make(space, size * n_envs, n_envs, **kwargs)
    resumed = make(space, size * n_envs, n_envs, **kwargs)
    simulators = make_simulators(space, stacks, seed, n_envs, "any", death_rate=0.3, reset_rate=0.3)
    for number, n in enumerate(n_added):
        for step in add(never_interrupted, simulators, n):
            add_to(resumed, step)
        if is_reset and number == 1:
            never_interrupted.reset()
            resumed.reset()
        state = read_back(resumed.get_state())
        resumed = make(space, size * n_envs, n_envs, **kwargs)
        if is_used:  # what was in it before must be gone
            add(resumed, make_simulators(space, stacks, seed + 1, n_envs, "any"), 7)
        resumed.set_state(state)
        assert_same_buffers(resumed, never_interrupted)
        if resumed._is_allocated:
            check_nothing_is_lost(resumed)


@pytest.mark.parametrize("n_before", [150, 900])
def test_frames_beyond_the_expected_count_are_restored_with_the_same_ids(n_before):
    kwargs = {"frame_stack": 4}
    never_interrupted, resumed = make(BOX, 400, **kwargs), make(BOX, 400, **kwargs)
    simulators = make_simulators(BOX, {"observation": 4}, 0, 1, "noise", death_rate=0.6)
    add(never_interrupted, simulators, n_before)
    resumed.set_state(read_back(never_interrupted.get_state()))
    for _ in range(3):
        for step in add(never_interrupted, simulators, 250):
            add_to(resumed, step)
        assert_same_buffers(resumed, never_interrupted)
    assert len(resumed._stores["observation"].frames._blocks) > 4
    again = make(BOX, 400, **kwargs)
    for _ in range(2):  # the room of the first time is used again
        again.set_state(read_back(resumed.get_state()))
        assert_same_buffers(again, never_interrupted)
        assert len(again._stores["observation"].frames._blocks) == len(resumed._stores["observation"].frames._blocks)


def test_an_unpickled_buffer_is_saved_and_restored_with_its_own_block_size():
    buffer, resumed = make(BOX, 200, frame_stack=4), make(BOX, 200, frame_stack=4)
    simulators = make_simulators(BOX, {"observation": 4}, 0, 1, "noise", death_rate=0.0, reset_rate=0.0)
    add(buffer, simulators, 230)
    buffer = pickle.loads(pickle.dumps(buffer))
    assert buffer._stores["observation"].frames._n_main != resumed._stores["observation"].frames._n_main
    resumed.set_state(read_back(buffer.get_state()))
    for step in add(buffer, make_simulators(BOX, {"observation": 4}, 1, 1, "noise", death_rate=0.5), 300):
        add_to(resumed, step)
    assert_same_buffers(resumed, buffer)


def test_a_buffer_without_transitions_stays_unallocated():
    state = make(BOX, 10**12, frame_stack=4).get_state()
    fresh = make(BOX, 10**12, frame_stack=4)
    fresh.set_state(read_back(state))
    assert not fresh._is_allocated
    assert fresh.size() == 0


def test_the_state_holds_views_of_the_used_rows_in_the_order_of_filling():
    """Old rows keep their places, so that the next snapshot writes only what has changed."""
    buffer = make(DICT, 40, 2, frame_stack=4)
    steps = random_data(DICT, 2, 30)
    for step in steps[:10]:
        add_to(buffer, step)
    assert isinstance(buffer, HasState)
    first = flat(buffer.get_state())
    early = {name: array.copy() for name, array in first.items()}
    assert np.shares_memory(first["columns.rewards"], buffer.rewards)
    assert np.shares_memory(first["stores.state.after"], buffer._stores["state"]._pairs)
    for step in steps[10:19]:
        add_to(buffer, step)
    later = flat(buffer.get_state())
    grown = {name for name in early if not name.endswith(".free")}
    assert len(grown) == 5 + 4 + 4
    for name in grown:
        assert later[name].flags.c_contiguous
        assert len(later[name]) > len(early[name])
        n_same = len(early[name]) - (2 if name == "columns.segment_ends" else 0)  # its last row is decided by the next
        np.testing.assert_array_equal(later[name][:n_same], early[name][:n_same])
    assert len(later["columns.rewards"]) == 19
    frames = buffer._stores["camera"].frames
    assert len(later["stores.camera.frames.blocks.0"]) == frames._n_touched < frames._n_main
    assert np.shares_memory(later["stores.camera.frames.blocks.0"], frames._blocks[0])


def flat(state, path=""):
    if isinstance(state, np.ndarray):
        return {path: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    found = {}
    for key, value in items:
        found |= flat(value, f"{path}.{key}" if path else str(key))
    return found


OTHERS = [
    ({"buffer_size": 22}, r"buffer_size was 20 and is 22"),
    ({"n_envs": 1}, r"n_envs was 2 and is 1"),
    ({"frame_stack": 2}, r"frame_stack was 4 and is 2"),
    ({"n_steps": 3}, r"n_steps was 1 and is 3"),
    ({"gamma": 0.98}, r"gamma was 0\.9 and is 0\.98"),
    ({"handle_timeout_termination": False}, r"handle_timeout_termination was True and is False"),
    ({"action_space": spaces.Box(-1, 1, (3,), np.float32)}, r"action was '\(2,\) float32' and is '\(3,\) float32'"),
    ({"action_space": spaces.Box(-1, 1, (2,), np.float16)}, r"action was '\(2,\) float32' and is '\(2,\) float16'"),
    (
        {"observation_space": spaces.Dict({**DICT.spaces, "camera": image_space(4)})},
        r"observation\['camera'\] was '\(8, 12, 12\) uint8' and is '\(4, 12, 12\) uint8'",
    ),
    ({"observation_space": image_space(8)}, r"observation\['mirror'\] was '\(3, 12, 12\) uint8' and is not there"),
]


@pytest.mark.parametrize(("change", "message"), OTHERS, ids=[next(iter(change)) for change, _ in OTHERS])
def test_the_state_of_a_buffer_with_other_settings_is_refused_and_nothing_is_changed(change, message):
    buffer = make(DICT, 20, 2, frame_stack=4)
    for step in random_data(DICT, 2, 14):
        add_to(buffer, step)
    arguments = {
        "buffer_size": 20,
        "observation_space": DICT,
        "action_space": ACTIONS,
        "n_envs": 2,
        "frame_stack": 4,
        "gamma": GAMMA,
    }
    other = FrameReplayBuffer(**{**arguments, **change}, device="cpu")
    with pytest.raises(ValueError, match=message) as caught:
        other.set_state(read_back(buffer.get_state()))
    assert not other._is_allocated
    if "observation_space" not in change:
        assert str(caught.value).count(" was ") == 1
    used = make(DICT, 20, 2, frame_stack=4, n_steps=2)
    for step in random_data(DICT, 2, 5, seed=3):
        add_to(used, step)
    before = read_back(used.get_state())
    with pytest.raises(ValueError, match="n_steps was 1 and is 2"):
        used.set_state(read_back(buffer.get_state()))
    twin = make(DICT, 20, 2, frame_stack=4, n_steps=2)
    twin.set_state(before)
    assert_same_buffers(used, twin)


def test_the_state_of_another_object_is_refused():
    with pytest.raises(ValueError, match="buffer_size was not there and is 10"):
        make(BOX, 10).set_state({"pos": 3, "full": False})


def test_too_little_memory_is_reported_before_anything_is_read(monkeypatch):
    buffer = make(BOX, 1000, frame_stack=4)
    for step in random_data(BOX, 1, 5):
        add_to(buffer, step)
    state = read_back(buffer.get_state())
    fresh = make(BOX, 1000, frame_stack=4)
    monkeypatch.setattr(frame_store, "available_bytes", lambda: fresh.n_bytes - 1)
    with pytest.raises(MemoryError, match="smaller buffer_size"):
        fresh.set_state(state)
    assert not fresh._is_allocated
    assert state["stores"]["observation"]["frames"]["blocks"][0].n_reads == 0


@pytest.mark.parametrize("length", [3, 10**9])
def test_restoring_needs_no_second_copy_in_memory(length):
    """A run can be resumed on a machine whose memory cannot hold the buffer twice.

    The buffer is full. It holds episodes of three steps, or one long episode.
    """
    space = image_space(4)
    buffer = make(space, 4000, frame_stack=4)
    simulator = Simulator({"observation": space}, {"observation": 4}, 0, "noise", death_rate=0.0, reset_rate=0.0)
    for number in range(4300):
        transition = simulator.step()
        if number % length == length - 1:
            simulator.obs = simulator._reset()
        add_to(buffer, [transition])
    state = read_back(buffer.get_state())
    held = sum(array.nbytes for array in flat(buffer.get_state()).values())
    fresh = make(space, 4000, frame_stack=4)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        buffer.get_state()
        assert tracemalloc.get_traced_memory()[1] - before < 0.05 * held
        fresh.set_state(state)
        assert tracemalloc.get_traced_memory()[1] - before < 1.1 * max(held, fresh.n_bytes) + 200_000
    finally:
        tracemalloc.stop()
    assert_same_buffers(fresh, buffer)


def test_no_window_crosses_a_segment_end_even_if_the_observations_are_consecutive():
    buffer = make(BOX, 20, frame_stack=4, n_steps=3)
    steps = random_data(BOX, 1, 6, death_rate=0.0)
    for step in steps:
        step[0]["truncated"] = False
    for step in steps[:3]:
        add_to(buffer, step)
    buffer.end_segment()
    for step in steps[3:]:
        add_to(buffer, step)
    found = samples_at(buffer, range(6), 0)
    expected = [GAMMA**3, GAMMA**2, GAMMA, GAMMA**3, GAMMA**2, GAMMA]
    assert found.discounts[:, 0].tolist() == pytest.approx(expected)
    np.testing.assert_array_equal(found.next_observations[1], steps[2][0]["next_obs"]["observation"])
    assert found.dones.sum() == 0


@pytest.mark.parametrize("n_added", [0, 20, 25])
def test_end_segment_marks_only_the_newest_row(n_added):
    buffer = make(BOX, 20, frame_stack=4, n_steps=3)
    for step in random_data(BOX, 1, n_added, death_rate=0.0):
        add_to(buffer, step)
    before = np.flatnonzero(buffer.segment_ends)
    buffer.end_segment()
    expected = set(before) | ({(n_added - 1) % 20} if n_added else set())
    assert set(np.flatnonzero(buffer.segment_ends)) == expected
