"""Test that a replay buffer can be rearranged for another number of environments."""

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

from sb3_visual_td3 import FrameReplayBuffer
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer
from sb3_visual_td3.buffers.other_n_envs import for_n_envs
from sb3_visual_td3.buffers.valid_transitions import ValidReplayBuffer
from tests.buffers.naive_frame_buffer import n_frames_held

IMAGE = spaces.Box(0, 255, (2, 5, 5), np.uint8)
DICT = spaces.Dict({"camera": IMAGE, "state": spaces.Box(0, 255, (1,))})
ACTIONS = spaces.Box(-1, 1, (1,), np.float32)
N_STEPS = {"n_steps": 3, "gamma": 0.5}

BUFFERS = {
    "frames": lambda size, n: FrameReplayBuffer(size, IMAGE, ACTIONS, "cpu", n, frame_stack=2, **N_STEPS),
    "frames of a Dict": lambda size, n: FrameReplayBuffer(size, DICT, ACTIONS, "cpu", n, **N_STEPS),
    "stock": lambda size, n: ReplayBuffer(size, IMAGE, ACTIONS, "cpu", n),
    "stock dict": lambda size, n: DictReplayBuffer(size, DICT, ACTIONS, "cpu", n),
    "stock n-step": lambda size, n: NStepReplayBuffer(size, IMAGE, ACTIONS, "cpu", n, **N_STEPS),
    "n-step dict": lambda size, n: NStepDictReplayBuffer(size, DICT, ACTIONS, "cpu", n, **N_STEPS),
    "valid": lambda size, n: ValidReplayBuffer(size, IMAGE, ACTIONS, "cpu", n),
}


def observation(buffer, numbers):
    camera = np.stack([np.stack([np.full((5, 5), max(x + k - 1, 0), np.uint8) for k in range(2)]) for x in numbers])
    if isinstance(buffer.observation_space, spaces.Dict):
        return {"camera": camera, "state": np.array(numbers, np.float32)[:, None]}
    return camera


def filled(kind, size, n_envs, n_steps):
    """Return a buffer in which environment ``e`` stores the numbers 60 * e, 60 * e + 1, ... in episodes of 5 steps."""
    buffer = BUFFERS[kind](size, n_envs)
    for t in range(n_steps):
        numbers = [60 * env + t for env in range(n_envs)]
        done = np.full(n_envs, t % 5 == 4)
        infos = [{"TimeLimit.truncated": bool(t % 10 == 9)} for _ in numbers]
        action = np.array(numbers, np.float32)[:, None] / 255
        after = observation(buffer, [x + 1 for x in numbers])
        buffer.add(observation(buffer, numbers), after, action, np.array(numbers, np.float32), done, infos)
    return buffer


def transitions(buffer):
    """Return for each environment its transitions (observation, next observation, reward, done), oldest first."""
    n = buffer.size()
    order = (np.arange(n) + (buffer.pos if buffer.full else 0)) % buffer.buffer_size
    before, after = buffer.observations, buffer.next_observations
    if isinstance(before, dict):
        before, after = before["camera"], after["camera"]
    columns = [np.asarray(part)[order][..., 1, 0, 0].astype(int) for part in (before, after)]
    columns += [buffer.rewards[order].astype(int), buffer.dones[order].astype(bool)]
    return [list(zip(*(column[:, env].tolist() for column in columns), strict=True)) for env in range(buffer.n_envs)]


@pytest.mark.parametrize("kind", BUFFERS)
@pytest.mark.parametrize(("size", "n_steps"), [(60, 12), (60, 47), (60, 3), (60, 0)])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 1), (2, 3)])
def test_transitions_keep_the_order_of_their_environment(kind, size, n_steps, before, after):
    old = filled(kind, size, before, n_steps)
    new = for_n_envs(old, after)
    assert (type(new), new.n_envs, new.buffer_size) == (type(old), after, size // after)
    laid_out = [each for env in transitions(old) for each in env]
    n_kept = len(laid_out) // after * after
    assert [each for env in transitions(new) for each in env] == laid_out[len(laid_out) - n_kept :]
    numbers = [60 * env for env in range(after)]
    action, reward = np.zeros((after, 1), np.float32), np.zeros(after)
    for _ in range(3):
        args = observation(new, numbers), observation(new, numbers), action, reward
        new.add(*args, np.zeros(after, bool), [{}] * after)
    assert len(new.sample(32).rewards) == 32


@pytest.mark.parametrize("kind", ["frames", "frames of a Dict", "stock n-step", "n-step dict"])
def test_no_return_crosses_from_one_environment_into_another(kind):
    new = for_n_envs(filled(kind, 60, 3, 7), 1)
    for row in (6, 13, 20):  # the newest transition of each environment
        sample = new._get_samples(np.array([row]))
        assert float(sample.discounts[0, 0]) == 0.5
        assert float(sample.rewards[0, 0]) == new.rewards[row, 0]
        assert float(sample.dones[0, 0]) == 0
    assert float(new._get_samples(np.array([5])).discounts[0, 0]) == 0.25


def test_a_rearranged_frame_buffer_keeps_its_segments_and_stores_each_frame_once():
    old = filled("frames", 60, 2, 12)
    old.segment_ends[3, 0] = True
    new = for_n_envs(old, 1)
    assert new.segment_ends[3, 0]
    assert not new.segment_ends[2, 0]
    assert n_frames_held(new._stores["observation"].frames) < 2 * 12 + 8


def test_the_same_buffer_is_returned_if_the_number_of_environments_does_not_change():
    buffer = filled("stock", 20, 2, 3)
    assert for_n_envs(buffer, 2) is buffer


class OwnReplayBuffer(ReplayBuffer):
    pass


@pytest.mark.parametrize(
    "buffer",
    [
        ReplayBuffer(20, IMAGE, ACTIONS, "cpu", 2, optimize_memory_usage=True, handle_timeout_termination=False),
        OwnReplayBuffer(20, IMAGE, ACTIONS, "cpu", 2),
        HerReplayBuffer(20, DICT, ACTIONS, env=None, device="cpu", n_envs=2),
    ],
    ids=lambda buffer: type(buffer).__name__,
)
def test_the_error_for_a_buffer_that_cannot_be_rearranged_names_both_n_envs(buffer):
    words = f"^{type(buffer).__name__} was filled with n_envs=2, but n_envs is now 3, "
    with pytest.raises(ValueError, match=words):
        for_n_envs(buffer, 3)
