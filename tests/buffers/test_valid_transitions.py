import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_visual_td3 import FrameReplayBuffer, VisualTD3
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer
from sb3_visual_td3.buffers.valid_transitions import (
    ValidDictReplayBuffer,
    ValidNStepReplayBuffer,
    ValidReplayBuffer,
    ValidTransitions,
)
from sb3_visual_td3.common.segments import end_segments
from tests.image_env import ImageEnv

IMAGES = spaces.Box(0, 255, (2, 36, 36), np.uint8)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)


def frames(value, n_envs):
    return np.stack([np.full(IMAGES.shape, (value + 20 * index) % 256, np.uint8) for index in range(n_envs)])


def add(buffer, value, infos, done=False):
    """Add a step whose observation, action and reward are computed from ``value``."""
    n_envs = len(infos)
    buffer.add(
        frames(value, n_envs),
        frames(value + 1, n_envs),
        np.full((n_envs, 2), value / 100, np.float32),
        np.full(n_envs, float(value), np.float32),
        np.full(n_envs, done),
        [{"invalid_transition": True, "TimeLimit.truncated": True} if invalid else {} for invalid in infos],
    )


BUFFERS = {
    "ours": lambda n_envs: FrameReplayBuffer(20, IMAGES, ACTIONS, n_envs=n_envs, n_steps=3, gamma=0.5),
    "SB3's n-step": lambda n_envs: NStepReplayBuffer(20, IMAGES, ACTIONS, n_envs=n_envs, n_steps=3, gamma=0.5),
}


@pytest.mark.parametrize("kind", BUFFERS)
def test_an_invalid_step_of_a_single_environment_is_not_stored(kind):
    buffer = BUFFERS[kind](1)
    valid = ValidTransitions(buffer)
    for value, is_invalid in ((1, False), (2, False), (99, True), (10, False), (11, False)):
        add(valid, value, [is_invalid])
    assert buffer.size() == 4
    assert buffer.rewards[:4, 0].tolist() == [1.0, 2.0, 10.0, 11.0]


@pytest.mark.parametrize("kind", BUFFERS)
def test_no_n_step_window_crosses_an_invalid_step(kind):
    buffer = BUFFERS[kind](1)
    valid = ValidTransitions(buffer)
    for value, is_invalid in ((1, False), (2, False), (3, True), (3, False), (4, False), (5, False)):
        add(valid, value, [is_invalid])
    data = buffer._get_samples(np.array([0, 1, 2]))
    assert data.rewards.flatten().tolist() == [1 + 0.5 * 2, 2.0, 3 + 0.5 * 4 + 0.25 * 5]
    assert data.discounts.flatten().tolist() == [0.25, 0.5, 0.125]
    assert data.next_observations[:, 0, 0, 0].tolist() == [3, 3, 6]
    assert data.dones.flatten().tolist() == [0.0, 0.0, 0.0]  # the windows are cut short but still bootstrap


@pytest.mark.parametrize("kind", BUFFERS)
def test_a_copy_of_a_valid_step_replaces_an_invalid_one(kind):
    buffer = BUFFERS[kind](2)
    valid = ValidTransitions(buffer)
    add(valid, 1, [False, False])
    add(valid, 2, [True, False])
    add(valid, 3, [False, False])
    assert buffer.size() == 3
    assert (buffer.observations[1, 0] == buffer.observations[1, 1]).all()
    assert (buffer.next_observations[1, 0] == buffer.next_observations[1, 1]).all()
    assert buffer.observations[1, 0].max() == 22
    np.random.seed(0)
    for _ in range(20):
        data = buffer._get_samples(np.array([0, 1]))
        first, copied = data.rewards.flatten().tolist()
        assert first in {1.0, 1 + 0.5 * 2 + 0.25 * 3}  # the first environment's window ends before the invalid step
        assert copied in {2.0, 2 + 0.5 * 3}


def test_without_invalid_steps_the_buffer_equals_the_stock_one():
    plain, watched = (ReplayBuffer(10, IMAGES, ACTIONS, n_envs=2) for _ in range(2))
    valid = ValidTransitions(watched)
    for value in range(15):
        add(plain, value, [False, False], done=value % 4 == 3)
        add(valid, value, [False, False], done=value % 4 == 3)
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        assert (getattr(plain, name) == getattr(watched, name)).all()
    assert (plain.pos, plain.full) == (watched.pos, watched.full)


def test_with_optimize_memory_usage_no_transition_bootstraps_from_a_foreign_frame():
    buffer = ReplayBuffer(10, IMAGES, ACTIONS, n_envs=1, optimize_memory_usage=True, handle_timeout_termination=False)
    valid = ValidTransitions(buffer)
    add(valid, 1, [False])
    add(valid, 2, [True])
    add(valid, 50, [False])
    assert buffer._get_samples(np.array([0])).dones.item() == 1.0


def test_an_invalid_first_step_leaves_the_buffer_empty():
    buffer = FrameReplayBuffer(10, IMAGES, ACTIONS)
    add(ValidTransitions(buffer), 1, [True])
    assert buffer.size() == 0


@pytest.mark.parametrize(
    ("ours", "stock"),
    [
        (ValidReplayBuffer, ReplayBuffer),
        (ValidDictReplayBuffer, DictReplayBuffer),
        (ValidNStepReplayBuffer, NStepReplayBuffer),
    ],
)
def test_the_classes_for_stock_algorithms_inherit_from_the_stock_buffers(ours, stock):
    assert issubclass(ours, stock)
    space = spaces.Dict({"camera": IMAGES}) if stock is DictReplayBuffer else IMAGES
    buffer = ours(10, space, ACTIONS, n_envs=1)
    obs = frames(1, 1)
    for is_invalid in (False, True, False):
        parts = {"camera": obs} if stock is DictReplayBuffer else obs
        info = {"invalid_transition": is_invalid}
        buffer.add(parts, parts, np.zeros((1, 2), np.float32), np.ones(1), np.zeros(1, bool), [info])
    assert buffer.size() == 2


class FailingEnv(ImageEnv):
    """Marks every fifth step as invalid, as CarlaDriving-v0 does when the simulator fails."""

    n_failed = 0
    n_made = 0

    def step(self, action):
        self.n_made += 1
        obs, reward, terminated, truncated, info = super().step(action)
        if self.n_made % 5 == 0:
            FailingEnv.n_failed += 1
            return obs, -1_000.0, False, True, {**info, "invalid_transition": True}
        return obs, reward, terminated, truncated, info


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("settings", [{}, {"preset": "td3"}, {"n_steps": 1}])
def test_visual_td3_stores_no_invalid_transition(settings, n_envs):
    FailingEnv.n_failed = 0
    env = DummyVecEnv([FailingEnv for _ in range(n_envs)])
    model = VisualTD3("CnnPolicy", env, buffer_size=200, learning_starts=1_000, **settings)
    model.learn(60)
    assert FailingEnv.n_failed == 60 // 5
    size = model.replay_buffer.size()
    assert (model.replay_buffer.rewards[:size] > -1_000.0).all()
    assert size == (48 if n_envs == 1 else 24)  # two environments fail in the same steps


def test_stock_sac_stores_no_invalid_transition_with_our_class():
    env = DummyVecEnv([FailingEnv])
    model = SAC("CnnPolicy", env, buffer_size=200, learning_starts=1_000, replay_buffer_class=ValidReplayBuffer)
    model.learn(20)
    assert model.replay_buffer.size() == 16
    assert (model.replay_buffer.rewards[:16] > -1_000.0).all()


def test_the_n_step_dict_buffer_stores_no_invalid_transition():
    buffer = NStepDictReplayBuffer(10, spaces.Dict({"camera": IMAGES}), ACTIONS, n_steps=2, gamma=0.5)
    valid = ValidTransitions(buffer)
    for reward, is_invalid in ((1.0, False), (9.0, True), (2.0, False), (3.0, False)):
        parts = {"camera": frames(1, 1)}
        valid.add(
            parts, parts, np.zeros((1, 2)), np.array([reward]), np.zeros(1, bool), [{"invalid_transition": is_invalid}]
        )
    assert buffer._get_samples(np.array([0])).rewards.item() == 1.0


GOALS = spaces.Dict({key: spaces.Box(-1e4, 1e4, (1,)) for key in ("observation", "achieved_goal", "desired_goal")})


class GoalEnv(gym.Env):
    observation_space = GOALS
    action_space = ACTIONS

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -np.abs(achieved_goal - desired_goal)[:, 0]


def her_buffer(n_envs, strategy="future"):
    venv = DummyVecEnv([GoalEnv] * n_envs)
    return HerReplayBuffer(60 * n_envs, GOALS, ACTIONS, venv, "cpu", n_envs, goal_selection_strategy=strategy)


def add_goals(buffer, numbers, infos, done=False):
    """Add one step of each environment, with its entry in ``numbers`` as the achieved goal.

    The desired goal is this number, rounded down to a multiple of 100.
    """
    n_envs, goal = len(infos), np.array(numbers, np.float32)[:, None]
    before = {"observation": goal, "achieved_goal": goal, "desired_goal": goal // 100 * 100}
    after = {**before, "achieved_goal": goal + 1}
    infos = [{"invalid_transition": True, "TimeLimit.truncated": True} if invalid else {} for invalid in infos]
    dones = np.array([done or bool(info) for info in infos])
    ValidTransitions(buffer).add(before, after, np.zeros((n_envs, 2)), np.zeros(n_envs), dones, infos)


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_her_replay_buffer_draws_goals_within_an_episode_that_ends_with_an_invalid_step(strategy, n_envs):
    """Step s of episode k in environment e has the achieved goal 1000 * e + 100 * k + s.

    A goal from the same episode therefore lies in the same hundred as its transition.
    """
    buffer = her_buffer(n_envs, strategy)
    for episode in range(8):
        for step in range(4):
            numbers = [1000 * env + 100 * episode + step for env in range(n_envs)]
            fails = [step == 3 and (episode + env) % 2 == 0 for env in range(n_envs)]
            add_goals(buffer, numbers, fails, done=step == 3)
    sample = buffer.sample(400)
    origin = sample.observations["observation"] // 100
    goals = sample.observations["desired_goal"] // 100
    assert th.equal(origin, goals)
    assert (buffer.ep_length[: buffer.size()] > 0).all()


def test_an_invalid_first_step_does_not_end_an_episode_in_her_replay_buffer():
    buffer = her_buffer(1)
    for number, invalid, done in ((1, True, False), (2, False, False), (3, True, False), (100, False, True)):
        add_goals(buffer, [number], [invalid], done)
    assert buffer.ep_length[:2, 0].tolist() == [1, 1]
    assert buffer.ep_start[:2, 0].tolist() == [0, 1]


class OwnHerReplayBuffer(HerReplayBuffer):
    """A buffer of the user that ends its segments itself."""

    n_ended = 0

    def end_segment(self):
        self.n_ended += 1


def test_the_users_own_end_segment_is_called_in_every_kind_of_buffer():
    buffer = OwnHerReplayBuffer(60, GOALS, ACTIONS, DummyVecEnv([GoalEnv]), "cpu")
    add_goals(buffer, [1], [False])
    end_segments(buffer)
    assert buffer.n_ended == 1


def test_a_window_ends_at_an_invalid_step_if_time_outs_are_not_handled():
    buffer = NStepReplayBuffer(3, IMAGES, ACTIONS, n_steps=3, gamma=0.5, handle_timeout_termination=False)
    valid = ValidTransitions(buffer)
    for value, is_invalid in ((1, False), (2, True), (3, False), (4, False), (5, False), (6, False)):
        add(valid, value, [is_invalid])
    assert not buffer.timeouts.any()  # the buffer never clears a timeout, so none may be set
