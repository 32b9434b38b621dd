"""Arrays that do not fit a replay buffer are refused with both shapes, and nothing is stored."""

import numpy as np
import pytest
from gymnasium import spaces

from sb3_visual_td3 import FrameReplayBuffer
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer
from sb3_visual_td3.buffers.observation_store import PairStore, StackStore

IMAGES = spaces.Box(0, 255, (3, 10, 12), np.uint8)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
DICT = spaces.Dict({"observation": IMAGES, "goal": spaces.Box(-1, 1, (5,)), "gear": spaces.Discrete(3)})


def frame_buffer(space=IMAGES, actions=ACTIONS, **kwargs):
    return FrameReplayBuffer(20, space, actions, device="cpu", **kwargs)


def image(n_envs=1, shape=(3, 10, 12)):
    return np.random.default_rng(0).integers(0, 256, (n_envs, *shape), dtype=np.uint8)


def parts(n_envs=1):
    return {"observation": image(n_envs), "goal": np.zeros((n_envs, 5)), "gear": np.ones(n_envs, int)}


def step(n_envs=1, **changed):
    infos = [{} for _ in range(n_envs)]
    arguments = {"obs": image(n_envs), "next_obs": image(n_envs), "action": np.zeros((n_envs, 2))}
    return {**arguments, "reward": np.zeros(n_envs), "done": np.zeros(n_envs, bool), "infos": infos, **changed}


@pytest.mark.parametrize(
    ("n_envs", "changed", "words"),
    [
        (
            1,
            {"obs": image(shape=(10, 12, 3))},
            r"obs is \(1, 10, 12, 3\): expected \(1, 3, 10, 12\).*VecTransposeImage",
        ),
        (1, {"next_obs": image(shape=(12, 10, 3))}, r"next_obs is \(1, 12, 10, 3\): expected \(1, 3, 10, 12\)"),
        (1, {"obs": image(shape=(3, 12, 10))}, r"obs is \(1, 3, 12, 10\)"),
        (1, {"obs": image(shape=(360,))}, r"obs is \(1, 360\)"),
        (2, {"obs": image(1)}, r"obs is \(1, 3, 10, 12\): expected \(2, 3, 10, 12\)"),
        (2, {"action": np.zeros((1, 4))}, r"action is \(1, 4\): expected \(2, 2\)"),
        (1, {"action": np.zeros((1, 3))}, r"action is \(1, 3\): expected \(1, 2\)"),
        (2, {"reward": np.zeros(1)}, r"reward is \(1,\): expected \(2, 1\)"),
        (2, {"done": np.zeros((2, 2))}, r"done is \(2, 2\): expected \(2, 1\)"),
        (2, {"infos": [{}]}, "1 infos: expected 2"),
        (1, {"obs": image() / 255.0}, r"obs \(float64\) holds numbers that the buffer's dtype uint8 cannot store"),
        (
            1,
            {"obs": image().astype(int) - 300},
            r"obs \(int64\) holds numbers that the buffer's dtype uint8 cannot store",
        ),
        (1, {"obs": parts()}, "obs is a dict of gear, goal, observation: expected one array"),
    ],
)
def test_a_frame_buffer_refuses_arrays_of_another_shape(n_envs, changed, words):
    buffer = frame_buffer(n_envs=n_envs)
    buffer.add(**step(n_envs))
    before = np.array(buffer.observations[0])
    with pytest.raises(ValueError, match=words):
        buffer.add(**step(n_envs, **changed))
    assert buffer.size() == 1
    np.testing.assert_array_equal(buffer.observations[0], before)


@pytest.mark.parametrize("make", [frame_buffer, lambda space: NStepDictReplayBuffer(20, space, ACTIONS, device="cpu")])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"goal": np.zeros((1, 1))}, r"obs\['goal'\] is \(1, 1\): expected \(1, 5\)"),
        ({"observation": image(shape=(10, 12, 3))}, r"obs\['observation'\] is \(1, 10, 12, 3\)"),
        ({"gear": np.zeros((1, 2))}, r"obs\['gear'\] is \(1, 2\): expected \(1, 1\)"),
        ({"goal": None}, "obs is a dict of gear, observation: expected a dict of"),
    ],
)
def test_the_error_for_a_wrong_or_missing_part_of_a_dict_names_the_keys(make, changed, words):
    buffer = make(DICT)
    wrong = {key: value for key, value in {**parts(), **changed}.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        buffer.add(**step(obs=wrong, next_obs=parts()))
    assert buffer.size() == 0
    buffer.add(**step(obs=parts(), next_obs=parts()))
    assert buffer.size() == 1


def test_a_dict_of_one_part_stays_a_dict():
    space = spaces.Dict({"observation": IMAGES})
    buffer = frame_buffer(space)
    with pytest.raises(ValueError, match=r"obs is an array .*: expected a dict of observation"):
        buffer.add(**step())
    buffer.add(**step(obs={"observation": image()}, next_obs={"observation": image()}))
    np.testing.assert_array_equal(buffer.observations["observation"][0], image())


def test_a_buffer_for_one_environment_accepts_arrays_without_the_environment_axis():
    buffer = frame_buffer()
    buffer.add(**step(obs=image()[0], next_obs=image()[0], action=np.zeros(2), reward=1.5, done=True))
    assert (buffer.rewards[0, 0], buffer.dones[0, 0]) == (1.5, True)
    np.testing.assert_array_equal(buffer.observations[0], image())


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_whole_numbers_of_another_dtype_are_accepted_as_pixels(dtype):
    buffer = frame_buffer()
    buffer.add(**step(obs=image().astype(dtype)))
    np.testing.assert_array_equal(buffer.observations[0], image())


def test_actions_with_two_axes_are_accepted_as_they_are_or_flat():
    buffer = frame_buffer(actions=spaces.Box(-1, 1, (2, 3)), n_envs=2)
    action = np.arange(12.0).reshape(2, 2, 3)
    buffer.add(**step(2, action=action))
    buffer.add(**step(2, action=action.reshape(2, 6)))
    np.testing.assert_array_equal(buffer.actions[0], buffer.actions[1])
    with pytest.raises(ValueError, match=r"action is \(2, 3, 2\): expected \(2, 6\)"):
        buffer.add(**step(2, action=action.reshape(2, 3, 2)))


@pytest.mark.parametrize("store", [StackStore((3, 10, 12), 1, 5, 1), PairStore(spaces.Box(-1, 1, (3, 10, 12)), 5, 1)])
def test_stack_store_and_pair_store_refuse_arrays_of_a_wrong_shape(store):
    from sb3_visual_td3.buffers.observation_store import Place

    store.allocate()
    with pytest.raises(ValueError, match=r"next_obs is \(1, 10, 12, 3\): expected \(1, 3, 10, 12\)"):
        store.write(Place(0, None, replaces=False), image(), image(shape=(10, 12, 3)))
