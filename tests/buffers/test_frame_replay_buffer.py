"""FrameReplayBuffer, compared with a slow twin that stores whole observations, and with Stable-Baselines3's buffers."""

import itertools
import pickle
import warnings

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

from sb3_visual_td3 import FrameReplayBuffer
from sb3_visual_td3.buffers import frame_store
from sb3_visual_td3.common.pictures import parts_of
from tests.buffers.naive_frame_buffer import GAMMA, NaiveFrameBuffer, Simulator, add_to, n_frames_held

ACTIONS = spaces.Box(-1, 1, (2,), np.float32)


def image_space(channels):
    return spaces.Box(0, 255, (channels, 12, 12), np.uint8)


BOX = image_space(4)
DICT = spaces.Dict(
    {
        "camera": image_space(8),
        "mirror": image_space(3),
        "state": spaces.Box(-np.inf, np.inf, (3,), np.float32),
        "goal": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    }
)


def make(space, buffer_size, n_envs=1, **kwargs):
    return FrameReplayBuffer(buffer_size, space, ACTIONS, "cpu", n_envs, gamma=GAMMA, **kwargs)


def stacks_in(space, frame_stack):
    cameras = {key: part.shape[0] for key, part in parts_of(space).items() if part.dtype == np.uint8}
    return {key: frame_stack if channels % frame_stack == 0 else 1 for key, channels in cameras.items()}


def samples_at(buffer, rows, env):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "randint", lambda *_, size=None, **__: np.full(size, env))
        return buffer._get_samples(np.asarray(rows))


def by_key(observations):
    return observations if isinstance(observations, dict) else {"observation": observations}


def check_equal(buffer, naive):
    """Check that both buffers hold the same transitions. Rewards and discounts may differ by rounding."""
    oldest = buffer.pos if buffer.full else 0
    rows = (oldest + np.arange(buffer.size())) % buffer.buffer_size
    for env, held in enumerate(naive.transitions):
        assert len(held) == buffer.size()
        found = samples_at(buffer, rows, env)
        expected = [naive.sample(env, age) for age in range(len(held))]
        for name, tensors in (("obs", found.observations), ("next_obs", found.next_observations)):
            for key, tensor in by_key(tensors).items():
                np.testing.assert_array_equal(tensor.numpy(), np.stack([each[name][key] for each in expected]))
                assert tensor.numpy().dtype == expected[0][name][key].dtype
        np.testing.assert_array_equal(found.actions.numpy(), np.stack([each["action"] for each in expected]))
        columns = {"dones": "done", "rewards": "reward"} | ({"discounts": "discount"} if buffer.n_steps > 1 else {})
        for field, name in columns.items():
            values = getattr(found, field)
            assert values.dtype == th.float32
            assert values.shape == (len(held), 1)
            np.testing.assert_allclose(values[:, 0], [each[name] for each in expected], rtol=1e-6, atol=1e-6)
        if buffer.n_steps == 1:
            assert found.discounts is None


def check_nothing_is_lost(buffer):
    """A frame is held as long as a transition needs it, and no longer."""
    for key in stacks_in(buffer.observation_space, buffer.frame_stack):
        store = buffer._stores[key]
        used = set(store.ids[: buffer.size()].ravel().tolist())
        assert used.isdisjoint(store.frames._free)
        assert len(set(store.frames._free)) == len(store.frames._free)
        assert n_frames_held(store.frames) == len(used | {0})


def fill(buffer, naive, simulators, n):
    for _ in range(n):
        step = [simulator.step() for simulator in simulators]
        add_to(buffer, step)
        for env, transition in enumerate(step):
            naive.add(env, transition)


def make_simulators(space, frame_stacks, seed, n_envs, padding, **rates):
    parts = parts_of(space)
    return [Simulator(parts, frame_stacks, [seed, env], padding, **rates) for env in range(n_envs)]


@pytest.mark.parametrize(
    ("space", "frame_stack", "n_steps", "n_envs", "padding"),
    itertools.product([BOX, DICT], [1, 2, 4], [1, 3], [1, 2, 3], ["zeros", "repeat", "any"]),
    ids=lambda value: type(value).__name__ if isinstance(value, spaces.Space) else str(value),
)
def test_all_transitions_always_equal_those_of_the_naive_reference_buffer(space, frame_stack, n_steps, n_envs, padding):
    stacks = stacks_in(space, frame_stack)
    buffer = make(space, 13 * n_envs + n_envs - 1, n_envs, frame_stack=frame_stack, n_steps=n_steps)
    naive = NaiveFrameBuffer(13 * n_envs, n_envs, n_steps, stacks)
    simulators = make_simulators(space, stacks, 0, n_envs, padding)
    for n in (1, 4, 7, 1, 1, 12, 13, 20):
        fill(buffer, naive, simulators, n)
        check_equal(buffer, naive)
        check_nothing_is_lost(buffer)


@settings(max_examples=80)
@given(
    space=st.sampled_from([BOX, DICT]),
    frame_stack=st.sampled_from([1, 2, 4]),
    size=st.integers(1, 9),
    n_envs=st.integers(1, 3),
    n_steps=st.integers(1, 5),
    handles_timeouts=st.booleans(),
    seed=st.integers(0, 2**32),
    n_added=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    is_pickled=st.booleans(),
)
def test_random_buffers_equal_the_naive_reference_buffer(
    space, frame_stack, size, n_envs, n_steps, handles_timeouts, seed, n_added, is_pickled
):
    stacks = stacks_in(space, frame_stack)
    kwargs = {"handle_timeout_termination": handles_timeouts, "n_steps": n_steps}
    buffer = make(space, size * n_envs, n_envs, frame_stack=frame_stack, **kwargs)
    naive = NaiveFrameBuffer(size * n_envs, n_envs, n_steps, stacks, handles_timeouts)
    simulators = make_simulators(space, stacks, seed, n_envs, "any", death_rate=0.3, reset_rate=0.3)
    for n in n_added:
        fill(buffer, naive, simulators, n)
        if is_pickled:
            buffer = pickle.loads(pickle.dumps(buffer))
        check_equal(buffer, naive)
        check_nothing_is_lost(buffer)


def test_an_unpickled_full_buffer_allocates_more_frames_for_shorter_episodes():
    buffer, naive = make(BOX, 200, frame_stack=4), NaiveFrameBuffer(200, 1, 1, {"observation": 4})
    fill(buffer, naive, make_simulators(BOX, {"observation": 4}, 0, 1, "noise", death_rate=0.0, reset_rate=0.0), 230)
    buffer = pickle.loads(pickle.dumps(buffer))
    frames = buffer._stores["observation"].frames
    assert frames._n_main == len(frames._blocks[0]) == frames._n_touched
    fill(buffer, naive, make_simulators(BOX, {"observation": 4}, 1, 1, "noise", death_rate=0.5), 230)
    assert len(frames._blocks) > 4
    check_equal(buffer, naive)
    again = pickle.loads(pickle.dumps(buffer))
    check_equal(again, naive)
    check_nothing_is_lost(again)


def test_a_stack_never_crosses_the_end_of_an_episode():
    buffer = make(BOX, 10, frame_stack=4)

    def stack(*values):
        return np.stack([np.full((12, 12), value, np.uint8) for value in values])[None]

    def add(obs, next_obs, done=False):
        buffer.add(obs, next_obs, np.zeros((1, 2)), np.zeros(1), np.array([done]), [{}])

    add(stack(0, 0, 0, 1), stack(0, 0, 1, 2))
    add(stack(0, 0, 1, 2), stack(0, 1, 2, 3), done=True)
    add(stack(7, 7, 7, 7), stack(7, 7, 7, 8))
    found = samples_at(buffer, [0, 1, 2], 0)
    assert found.observations[:, :, 0, 0].tolist() == [[0, 0, 0, 1], [0, 0, 1, 2], [7, 7, 7, 7]]
    assert found.next_observations[:, :, 0, 0].tolist() == [[0, 0, 1, 2], [0, 1, 2, 3], [7, 7, 7, 8]]
    assert n_frames_held(buffer._stores["observation"].frames) == 1 + 3 + 2


@pytest.mark.parametrize("padding", ["zeros", "repeat"])
@pytest.mark.parametrize("length", [1, 10])
def test_an_episode_stores_one_frame_more_than_it_has_steps(padding, length):
    size = 3000
    buffer = make(BOX, size, frame_stack=4)
    simulator = Simulator({"observation": BOX}, {"observation": 4}, 0, padding, death_rate=0.0, reset_rate=0.0)
    simulator._frame = lambda _: simulator.random.integers(1, 256, (1, 12, 12), dtype=np.uint8)
    for step in range(2 * size):
        transition = simulator.step()
        transition["done"] = step % length == length - 1
        if transition["done"]:
            simulator.obs = simulator._reset()
        add_to(buffer, [transition])
    frames = buffer._stores["observation"].frames
    assert buffer.size() == size
    assert n_frames_held(frames) == pytest.approx(size * (1 + 1 / length), abs=3)
    assert frames._n_touched <= n_frames_held(frames) + 8
    assert len(frames._blocks) == (17 if length == 1 else 2)


def test_memory_grows_by_a_frame_per_transition_and_released_frames_are_reused():
    buffer = make(BOX, 40, frame_stack=4)
    simulator = Simulator({"observation": BOX}, {"observation": 4}, 0, "zeros", death_rate=0.0, reset_rate=0.0)
    frames = buffer._stores["observation"].frames
    for n_added in range(1, 200):
        add_to(buffer, [simulator.step()])
        assert n_frames_held(frames) <= min(n_added, 40) + 5
    assert frames._n_touched <= 46


def random_data(space, n_envs, n, frame_stack=4, seed=0, **rates):
    stacks = stacks_in(space, frame_stack)
    simulators = make_simulators(space, stacks, seed, n_envs, "repeat", **{"reset_rate": 0.0, **rates})
    for each in simulators:
        for key in stacks:  # an episode whose stack is black all over would go on as the one before it ended
            assert each.obs[key].any() or key
    return [[simulator.step() for simulator in simulators] for _ in range(n)]


def assert_same(found, expected):
    assert type(found) is type(expected)
    for name in found._fields:
        one, other = getattr(found, name), getattr(expected, name)
        if isinstance(one, dict):
            for key in other:
                assert th.equal(one[key], other[key])
                assert one[key].dtype == other[key].dtype
        elif other is None:
            assert one is None
        else:
            assert th.equal(one, other), name
            assert one.dtype == other.dtype, name


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("n_added", [7, 20, 53])
@pytest.mark.parametrize("handles_timeouts", [True, False])
def test_samples_equal_those_of_stable_baselines3_draw_for_draw(n_envs, n_added, handles_timeouts):
    args = {"handle_timeout_termination": handles_timeouts}
    stock = ReplayBuffer(20 * n_envs, BOX, ACTIONS, "cpu", n_envs, **args)
    stock_n_step = NStepReplayBuffer(20 * n_envs, BOX, ACTIONS, "cpu", n_envs, n_steps=3, gamma=GAMMA, **args)
    stock_dict = DictReplayBuffer(20 * n_envs, DICT, ACTIONS, "cpu", n_envs, **args)
    for reference, kwargs in ((stock, {}), (stock_n_step, {"n_steps": 3}), (stock_dict, {})):
        space = reference.observation_space
        ours = make(space, 20 * n_envs, n_envs, frame_stack=4, **kwargs, **args)
        for step in random_data(space, n_envs, n_added):
            add_to(reference, step)
            add_to(ours, step)
        for seed in range(3):
            np.random.seed(seed)
            expected = reference.sample(64)
            after = np.random.random()
            np.random.seed(seed)
            assert_same(ours.sample(64), expected)
            assert np.random.random() == after
        assert (ours.size(), ours.pos, ours.full) == (reference.size(), reference.pos, reference.full)


def test_a_window_ends_if_the_following_observation_does_not_repeat_the_stored_frames():
    """Without a done transition, Stable-Baselines3 would sum rewards over both sequences of data."""
    buffer = make(BOX, 20, frame_stack=4, n_steps=3)
    first, second = random_data(BOX, 1, 3, death_rate=0.0), random_data(BOX, 1, 3, seed=1, death_rate=0.0)
    for step in [*first, *second]:
        step[0]["truncated"] = False
        add_to(buffer, step)
    found = samples_at(buffer, [0, 1, 2, 3], 0)
    assert found.discounts[:, 0].tolist() == pytest.approx([GAMMA**3, GAMMA**2, GAMMA, GAMMA**3])
    assert found.rewards[2].item() == first[2][0]["reward"]
    np.testing.assert_array_equal(found.next_observations[1], first[2][0]["next_obs"]["observation"])
    assert found.dones.sum() == 0


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    ("newest_first", "length", "kwargs", "n_expected"),
    [
        (True, 12, {"frame_stack": 4, "n_steps": 3}, 1),
        (True, 12, {"frame_stack": 4}, 0),
        (True, 12, {"frame_stack": 1, "n_steps": 3}, 0),
        (False, 12, {"frame_stack": 4, "n_steps": 3}, 0),
        (False, 1, {"frame_stack": 4, "n_steps": 3}, 0),
    ],
)
def test_a_warning_says_that_the_newest_frame_must_be_the_last(newest_first, length, kwargs, n_expected, n_envs):
    frames = np.random.default_rng(0).integers(0, 256, (500, n_envs, 12, 12), dtype=np.uint8)
    order = slice(None, None, -1) if newest_first else slice(None)
    buffer = make(BOX, 1_000, n_envs, **kwargs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(400 // n_envs):
            obs, next_obs = (frames[at : at + 4].swapaxes(0, 1)[:, order] for at in (step, step + 1))
            done = np.full(n_envs, float(step % length == length - 1))
            buffer.add(obs, next_obs, np.zeros((n_envs, 2)), np.zeros(n_envs), done, [{}] * n_envs)
    assert len([each for each in caught if "n_steps=3 has no effect" in str(each.message)]) == n_expected


def test_the_observation_views_equal_the_arrays_of_stable_baselines3():
    stock, ours = DictReplayBuffer(15, DICT, ACTIONS, "cpu"), make(DICT, 15, frame_stack=4)
    for step in random_data(DICT, 1, 22):
        add_to(stock, step)
        add_to(ours, step)
    for name in ("observations", "next_observations"):
        for key, expected in getattr(stock, name).items():
            view = getattr(ours, name)[key]
            assert (view.shape, view.dtype, len(view)) == (expected.shape, expected.dtype, len(expected))
            np.testing.assert_array_equal(view, expected)
            np.testing.assert_array_equal(view[3:7, 0], expected[3:7, 0])
            np.testing.assert_array_equal(view[-1], expected[-1])
    for name in ("actions", "rewards", "dones", "timeouts"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(stock, name))
    one, other = make(BOX, 5, frame_stack=2), ReplayBuffer(5, BOX, ACTIONS, "cpu")
    for step in random_data(BOX, 1, 3):
        add_to(one, step)
        add_to(other, step)
    np.testing.assert_array_equal(one.next_observations, other.next_observations)


@pytest.mark.parametrize(
    "index",
    [
        np.s_[3],
        np.s_[2:9, 1],
        np.s_[:9, 0, :, 0, 0],
        np.s_[:, :, 1:3],
        np.s_[..., 0],
        np.s_[4, ..., 5, 5],
        np.s_[[3, 1, 4], [0, 1, 1], :],
        np.s_[np.array([True, False] * 5)],
    ],
    ids=str,
)
def test_a_view_is_indexed_like_an_array(index):
    stock, ours = ReplayBuffer(20, BOX, ACTIONS, "cpu", 2), make(BOX, 20, 2, frame_stack=4)
    for step in random_data(BOX, 2, 13):
        add_to(stock, step)
        add_to(ours, step)
    np.testing.assert_array_equal(ours.observations[index], stock.observations[index])


def test_adding_and_sampling_keep_no_reference_to_the_arrays():
    buffer = make(DICT, 10, frame_stack=4)
    steps = random_data(DICT, 1, 4)
    for step in steps:
        add_to(buffer, step)
    before = pickle.dumps(buffer)
    samples = buffer.sample(16)
    for part in (*samples.observations.values(), *samples.next_observations.values(), samples.actions):
        part.zero_()
    for step in steps:
        step[0]["obs"]["camera"][:] = 7
        step[0]["next_obs"]["state"][:] = 7
    assert pickle.dumps(buffer) == before


@pytest.mark.parametrize("n_before", [0, 4, 30])
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_an_unpickled_buffer_gives_the_same_samples_and_accepts_transitions(n_before, protocol):
    buffer = make(DICT, 20, 2, frame_stack=4, n_steps=3)
    steps = random_data(DICT, 2, 60, death_rate=0.9)
    for step in steps[:n_before]:
        add_to(buffer, step)
    pickled = pickle.dumps(buffer, protocol)
    held = samples_at(buffer, range(buffer.size()), 1) if n_before else None
    buffer.reset()  # room that is got again may still hold what was there
    copy = pickle.loads(pickled)
    if held is not None:
        assert_same(samples_at(copy, range(copy.size()), 1), held)
    buffer = pickle.loads(pickled)
    for step in steps[n_before : n_before + 15]:
        add_to(buffer, step)
        add_to(copy, step)
    np.random.seed(0)
    expected = buffer.sample(64)
    np.random.seed(0)
    assert_same(copy.sample(64), expected)
    check_nothing_is_lost(copy)


def test_a_pickle_holds_the_frames_without_the_unused_memory():
    buffer = make(BOX, 100_000, frame_stack=4)
    for step in random_data(BOX, 1, 3):
        add_to(buffer, step)
    room = buffer._stores["observation"].frames.n_bytes
    columns = buffer.n_bytes - room
    assert len(pickle.dumps(buffer)) < columns + 30_000 < columns + room / 100


def test_a_reset_forgets_everything():
    buffer, naive = make(BOX, 10, 2, frame_stack=4, n_steps=3), NaiveFrameBuffer(10, 2, 3, {"observation": 4})
    for step in random_data(BOX, 2, 13):
        add_to(buffer, step)
    buffer.reset()
    assert (buffer.size(), buffer.pos, buffer.full) == (0, 0, False)
    fill(buffer, naive, make_simulators(BOX, {"observation": 4}, 3, 2, "any"), 3)
    check_equal(buffer, naive)
    check_nothing_is_lost(buffer)
    fill(buffer, naive, make_simulators(BOX, {"observation": 4}, 4, 2, "any"), 30)
    check_equal(buffer, naive)


def test_a_reset_of_a_buffer_without_transitions_is_fine():
    make(BOX, 10).reset()


def test_several_steps_are_added_by_extend():
    one, other = make(BOX, 10, frame_stack=4), make(BOX, 10, frame_stack=4)
    columns = []
    for step in random_data(BOX, 1, 6):
        add_to(one, step)
        (each,) = step
        columns.append(
            (
                each["obs"]["observation"][None],
                each["next_obs"]["observation"][None],
                each["action"][None],
                np.array([each["reward"]]),
                np.array([each["done"]]),
                [{"TimeLimit.truncated": each["truncated"]}],
            )
        )
    other.extend(*zip(*columns, strict=True))
    assert_same(samples_at(other, range(6), 0), samples_at(one, range(6), 0))


def test_optimize_memory_usage_changes_nothing():
    one, other = (make(BOX, 10, frame_stack=4, optimize_memory_usage=given) for given in (False, True))
    for step in random_data(BOX, 1, 14):
        add_to(one, step)
        add_to(other, step)
    np.random.seed(0)
    expected = one.sample(32)
    np.random.seed(0)
    assert_same(other.sample(32), expected)


def test_a_nan_in_a_vector_observation_does_not_end_a_window():
    space = spaces.Dict({"camera": BOX, "state": spaces.Box(-9, 9, (2,), np.float32)})
    buffer = make(space, 10, frame_stack=4, n_steps=3)
    steps = random_data(space, 1, 3, death_rate=0.0)
    for before, after in itertools.pairwise(steps):
        after[0]["obs"]["state"] = before[0]["next_obs"]["state"] = np.array([np.nan, 1.0], np.float32)
    for step in steps:
        step[0]["truncated"] = False
        add_to(buffer, step)
    assert samples_at(buffer, [0], 0).discounts.item() == pytest.approx(GAMMA**3)


def test_memory_is_allocated_when_the_first_transition_is_added():
    """A buffer that does not fit into memory raises no error before its first transition.

    A model with a large buffer can thus be loaded and watched on a machine with little memory.
    """
    buffer = FrameReplayBuffer(10**12, BOX, ACTIONS, "cpu", frame_stack=4)
    assert (buffer.size(), buffer.rewards.shape) == (0, (0, 1))
    with pytest.raises(MemoryError, match=r"1,000,000,000,000 transitions needs \d+\.\d\d GB.*smaller buffer_size"):
        add_to(buffer, random_data(BOX, 1, 1)[0])


def test_too_little_memory_is_an_error_before_any_is_used(monkeypatch):
    steps = random_data(BOX, 1, 2)
    needed = make(BOX, 1000, frame_stack=4).n_bytes
    assert 1000 * 144 < needed < 1000 * 144 * 1.4
    monkeypatch.setattr(frame_store, "available_bytes", lambda: needed - 1)
    with pytest.raises(
        MemoryError, match=r"needs 0\.00 GB, but only 0\.00 GB are available\. Use a smaller buffer_size than 1,000"
    ):
        add_to(make(BOX, 1000, frame_stack=4), steps[0])
    for available in (needed, None):
        monkeypatch.setattr(frame_store, "available_bytes", lambda available=available: available)
        buffer = make(BOX, 1000, frame_stack=4)
        add_to(buffer, steps[0])
        assert buffer.size() == 1


def test_the_available_memory_respects_the_memory_limit_of_a_container(monkeypatch, tmp_path):
    monkeypatch.setattr(frame_store, "CGROUP", tmp_path)
    whole = frame_store.available_bytes()
    for name, text in (("memory.max", "5000\n"), ("memory.current", "2000\n"), ("memory.stat", "anon 9\n")):
        (tmp_path / name).write_text(text)
    assert frame_store.available_bytes() == 3000
    (tmp_path / "memory.stat").write_text("anon 9\ninactive_file 700\n")
    assert frame_store.available_bytes() == 3700
    (tmp_path / "memory.max").write_text("max\n")
    assert whole is None or frame_store.available_bytes() > 3700


@pytest.mark.parametrize(
    ("space", "kwargs", "message"),
    [
        (BOX, {"frame_stack": 3}, r"frame_stack=3.*\(observation: 4\)"),
        (BOX, {"frame_stack": 0}, "frame_stack=0"),
        (BOX, {"n_steps": 0}, "n_steps=0"),
        (BOX, {"gamma": 1.1}, "gamma=1.1"),
        (BOX, {"gamma": -0.1}, "gamma=-0.1"),
        (BOX, {"n_envs": 11}, "buffer_size=10 for n_envs=11"),
        (DICT, {"frame_stack": 5}, r"frame_stack=5.*\(camera: 8, mirror: 3\)"),
        (spaces.Box(0, 255, (12, 12, 4), np.uint8), {}, "VecTransposeImage"),
        (spaces.Dict({"camera": spaces.Box(0, 255, (12, 12, 4), np.uint8)}), {}, "camera.*VecTransposeImage"),
        (spaces.Box(0, 1, (4, 12, 12), np.float32), {}, "Stable-Baselines3's ReplayBuffer"),
        (spaces.Box(-1, 1, (3,), np.float32), {}, "Stable-Baselines3's ReplayBuffer"),
        (spaces.Dict({"state": spaces.Box(-1, 1, (3,), np.float32)}), {}, "Stable-Baselines3's DictReplayBuffer"),
    ],
)
def test_arguments_that_cannot_work_are_refused(space, kwargs, message):
    with pytest.raises(ValueError, match=message):
        FrameReplayBuffer(10, space, ACTIONS, "cpu", **kwargs)
