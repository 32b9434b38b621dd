"""Tests that saved and restored replay buffers equal those that were never interrupted."""

import itertools

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_visual_td3 import FrameReplayBuffer
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer
from sb3_visual_td3.common.segments import end_segments
from sb3_visual_td3.training_state.replay_state import check_replay, replay_state, set_replay_state
from tests.plain_data import OnDisk, read_back

ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
VECTOR = spaces.Box(-9, 9, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (4, 6, 6), np.uint8)
DICT = spaces.Dict({"camera": IMAGE, "state": VECTOR})
BUFFERS = {
    "plain": (ReplayBuffer, VECTOR, {}),
    "discrete": (ReplayBuffer, spaces.Discrete(5), {}),
    "images": (ReplayBuffer, IMAGE, {}),
    "one array": (ReplayBuffer, IMAGE, {"optimize_memory_usage": True, "handle_timeout_termination": False}),
    "dict": (DictReplayBuffer, DICT, {}),
    "n-step": (NStepReplayBuffer, VECTOR, {"n_steps": 3, "gamma": 0.9}),
    "n-step dict": (NStepDictReplayBuffer, DICT, {"n_steps": 3, "gamma": 0.9}),
    "frames": (FrameReplayBuffer, IMAGE, {"n_steps": 3, "gamma": 0.9, "frame_stack": 4}),
    "frames of one": (FrameReplayBuffer, IMAGE, {"n_steps": 3, "gamma": 0.9}),
}
SIZE = 11


def make(name, n_envs=1, **kwargs):
    cls, space, settings = BUFFERS[name]
    return cls(SIZE * n_envs, space, ACTIONS, "cpu", n_envs=n_envs, **{**settings, **kwargs})


def steps_for(buffer, n, seed=0, done_rate=0.2):
    """Return random steps; each next observation is the observation of the following step."""
    random = np.random.default_rng(seed)
    buffer.observation_space.seed(seed)

    def observe():
        drawn = [buffer.observation_space.sample() for _ in range(buffer.n_envs)]
        return (
            {k: np.stack([each[k] for each in drawn]) for k in drawn[0]} if type(drawn[0]) is dict else np.array(drawn)
        )

    steps, obs = [], observe()
    for _ in range(n):
        next_obs = observe()
        done = random.random(buffer.n_envs) < done_rate
        infos = [{"TimeLimit.truncated": bool(each and random.random() < 0.5)} for each in done]
        action = random.uniform(-1, 1, (buffer.n_envs, 2)).astype(np.float32)
        steps.append((obs, next_obs, action, random.normal(size=buffer.n_envs), done, infos))
        obs = next_obs
    return steps


def add(buffer, steps):
    for step in steps:
        buffer.add(*step)


def sampled(buffer, seed=0):
    """Return the arrays of a sample by name, and the next random number."""
    np.random.seed(seed)
    samples = buffer.sample(32)
    found = {"next draw": np.random.random()}
    for name in samples._fields:
        value = getattr(samples, name)
        parts = value if isinstance(value, dict) else {"": value}
        found |= {
            name + key: part if part is None else (part.dtype, part.shape, part.numpy().tobytes())
            for key, part in parts.items()
        }
    return found


def assert_same_arrays(one, other):
    """Compare all rows, even those that are not in use."""
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        parts = getattr(one, name, None)
        for key in parts if isinstance(parts, dict) else [...]:
            if one.size() and parts is not None:
                np.testing.assert_array_equal(getattr(other, name)[key], parts[key])


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    ("n_before", "is_used"), [(0, False), (1, False), (6, True), (10, False), (11, True), (27, True)]
)
@pytest.mark.parametrize("name", BUFFERS)
def test_a_restored_buffer_equals_the_uninterrupted_one(name, n_envs, n_before, is_used):
    one, other = make(name, n_envs), make(name, n_envs)
    steps = steps_for(one, n_before + 15)
    add(one, steps[:n_before])
    if is_used:
        add(other, steps_for(other, 9, seed=5))
    check_replay(one)
    set_replay_state(other, read_back(replay_state(one)))
    for step in (None, *steps[n_before:]):
        if step is not None:
            one.add(*step)
            other.add(*step)
        assert (one.pos, one.full, one.size()) == (other.pos, other.full, other.size())
        # An empty buffer cannot be sampled; "one array" is compared from two transitions on.
        if one.size() > (name == "one array"):
            assert sampled(one) == sampled(other)
        assert_same_arrays(one, other)


def test_only_used_rows_are_saved_and_without_a_copy():
    buffer = make("dict")
    add(buffer, steps_for(buffer, 4))
    state = replay_state(buffer)
    arrays = state["state"]["arrays"]
    assert {name: len(array) for name, array in arrays.items()} == dict.fromkeys(arrays, 4)
    assert np.shares_memory(arrays["next_observations.camera"], buffer.next_observations["camera"])
    stored = read_back(state)["state"]["arrays"]["observations.camera"]
    assert isinstance(stored, OnDisk)
    one_array = make("one array")
    add(one_array, steps_for(one_array, 4))
    arrays = replay_state(one_array)["state"]["arrays"]
    assert "next_observations" not in arrays
    assert (len(arrays["observations"]), len(arrays["rewards"])) == (5, 4)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("n-step", {"n_steps": 2}, "n_steps was 3 and is 2"),
        ("n-step", {"gamma": 0.8}, r"gamma was 0\.9 and is 0\.8"),
        ("plain", {"handle_timeout_termination": False}, "handle_timeout_termination was True and is False"),
        ("one array", {"optimize_memory_usage": False}, "optimize_memory_usage was True and is False"),
        ("plain", {"n_envs": 2}, "n_envs was 1 and is 2"),
    ],
)
def test_the_state_of_a_buffer_with_other_settings_is_refused(name, change, message):
    buffer, other = make(name), make(name, **change)
    add(buffer, steps_for(buffer, 4))
    with pytest.raises(ValueError, match=message):
        set_replay_state(other, read_back(replay_state(buffer)))
    assert other.size() == 0
    assert not other.rewards.any()


@pytest.mark.parametrize(("name", "other"), list(itertools.permutations(["images", "one array", "frames", "plain"], 2)))
def test_the_state_of_another_kind_is_refused(name, other):
    with pytest.raises(
        ValueError, match=r"cannot continue from this state: (class|optimize_memory_usage|.*observations)"
    ):
        set_replay_state(make(other), read_back(replay_state(make(name))))


class WithPriorities(ReplayBuffer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.priorities = np.zeros(self.buffer_size)


class WithState(WithPriorities):
    def get_state(self):
        return {"priorities": self.priorities}

    def set_state(self, state):
        self.priorities[:] = np.asarray(state["priorities"])


class OtherwiseSampled(ReplayBuffer):
    """This subclass adds no state to ReplayBuffer."""


def test_a_buffer_that_would_lose_data_is_refused_before_training():
    arguments = (10, VECTOR, ACTIONS, "cpu")
    with pytest.raises(
        ValueError, match=r"SnapshotCallback cannot save WithPriorities: it holds priorities, .*get_state"
    ):
        check_replay(WithPriorities(*arguments))
    with pytest.raises(ValueError, match="it is not a ReplayBuffer"):
        check_replay([])
    goals = spaces.Dict(dict.fromkeys(("observation", "desired_goal", "achieved_goal"), VECTOR))
    with pytest.raises(ValueError, match="cannot save HerReplayBuffer"):
        replay_state(HerReplayBuffer(10, goals, ACTIONS, env=None))
    check_replay(OtherwiseSampled(*arguments))
    with pytest.raises(ValueError, match=r"class was '.*\.ReplayBuffer' and is '.*\.OtherwiseSampled'"):
        set_replay_state(OtherwiseSampled(*arguments), replay_state(ReplayBuffer(*arguments)))
    one, other = WithState(*arguments), WithState(*arguments)
    one.priorities[3] = 7
    set_replay_state(other, read_back(replay_state(one)))
    assert other.priorities[3] == 7


def window_lengths(buffer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "randint", lambda *_, size=None, **__: np.zeros(size, int))
        samples = buffer._get_samples(np.arange(buffer.size()))
    return np.rint(np.log(samples.discounts[:, 0].numpy()) / np.log(0.9)).astype(int).tolist(), samples


@pytest.mark.parametrize("name", ["n-step", "n-step dict", "frames of one"])
@pytest.mark.parametrize("is_one_reset_later", [False, True])
def test_after_end_segments_no_n_step_return_includes_rewards_of_the_next_episode(name, is_one_reset_later):
    """No transition has ``done=True``, so only ``end_segments`` separates the two episodes."""
    buffer = make(name)
    steps = steps_for(buffer, 6, done_rate=0.0)
    if is_one_reset_later:  # the saved state must contain the end of the segment
        add(buffer, steps[:3])
        end_segments(buffer)
        fresh = make(name)
        set_replay_state(fresh, read_back(replay_state(buffer)))
        buffer = fresh
    else:
        add(buffer, steps[:3])
        end_segments(buffer)
    add(buffer, steps[3:])
    lengths, samples = window_lengths(buffer)
    assert lengths == [3, 2, 1, 3, 2, 1]
    assert samples.dones.sum() == 0, "the last transition bootstraps from its own next observation"
    rewards = [float(step[3][0]) for step in steps]
    assert samples.rewards[1].item() == pytest.approx(rewards[1] + 0.9 * rewards[2], rel=1e-5)


def test_a_terminal_transition_stays_terminal():
    buffer = make("n-step", 3)
    ((obs, next_obs, action, reward, _, _),) = steps_for(buffer, 1)
    done, truncated = np.array([True, True, False]), [False, True, False]
    buffer.add(obs, next_obs, action, reward, done, [{"TimeLimit.truncated": each} for each in truncated])
    end_segments(buffer)
    assert buffer.dones[0].tolist() == [1, 1, 0]
    assert buffer.timeouts[0].tolist() == [0, 1, 1]


def test_the_end_set_by_end_segments_disappears_when_its_row_is_overwritten():
    """Without ``handle_timeout_termination``, only ``dones`` is set, because nothing would clear ``timeouts``."""
    buffer = make("n-step", handle_timeout_termination=False)
    add(buffer, steps_for(buffer, 3, done_rate=0.0))
    end_segments(buffer)
    assert window_lengths(buffer)[0] == [3, 2, 1]
    add(buffer, steps_for(buffer, SIZE, done_rate=0.0))
    assert not buffer.dones.any()
    assert not buffer.timeouts.any()


def test_a_memory_optimized_buffer_ends_an_episode_as_stable_baselines3_does():
    buffer = make("one array")
    end_segments(buffer)
    assert not buffer.dones.any()
    steps = steps_for(buffer, SIZE + 1, done_rate=0.0)
    add(buffer, steps)
    end_segments(buffer)
    assert np.flatnonzero(buffer.dones).tolist() == [0]


def test_end_segments_does_not_change_samples_of_a_one_step_buffer():
    buffer = make("plain")
    add(buffer, steps_for(buffer, 3, done_rate=0.0))
    before = sampled(buffer)
    end_segments(buffer)
    assert sampled(buffer) == before
