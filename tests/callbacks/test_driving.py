"""DrivingMetricsCallback and DrivingEvalCallback on LiteDriving-v0."""

import gymnasium as gym
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor

from sb3_visual_td3 import DrivingEvalCallback, DrivingMetricsCallback
from sb3_visual_td3.callbacks.driving_trips import drive, full_brake_driver, random_driver
from sb3_visual_td3.common import tags
from tests.callbacks.event_files import scalars_in


@pytest.fixture
def lite_model(make_model, tmp_path):
    env = Monitor(gym.make("LiteDriving-v0", max_episode_steps=30))
    # No updates: what is logged here does not depend on them.
    return make_model(env=env, learning_starts=10_000, tensorboard_log=str(tmp_path / "tb"))


def test_episodes_are_counted_and_the_reward_is_the_sum_of_its_terms(lite_model, tmp_path):
    lite_model.learn(100, callback=DrivingMetricsCallback(log_freq=10))
    scalars = scalars_in(tmp_path)
    lengths = scalars[tags.EPISODE_LENGTH]
    assert [episode for episode, _ in lengths] == list(range(len(lengths)))
    assert 90 - 30 < sum(length for _, length in lengths) <= 100
    assert [step for step, _ in scalars[tags.PROGRESS_SPEED]] == list(range(10, 101, 10))
    assert len(scalars[tags.EPISODE_COLLISIONS]) == len(scalars[tags.EPISODE_LANE_INVASIONS]) == len(lengths)
    # Means over ten steps each, so ten times their sum is all the reward there was.
    total = 10 * sum(value for term in tags.REWARD_TERMS for _, value in scalars[tags.REWARD_TERM[term]])
    rewards = lite_model.replay_buffer.rewards[:100]
    assert total == pytest.approx(rewards.sum(), rel=1e-4)
    assert set(scalars[tags.PROGRESS_BUFFER_SIZE]) >= {(100, 99.0)}


def test_the_policy_is_evaluated_on_time_and_at_the_end(lite_model, tmp_path, capsys):
    callback = DrivingEvalCallback(
        eval_env_kwargs={"maps": "held_out", "max_episode_steps": 20},
        eval_freq=30,
        n_eval_episodes=2,
        best_model_save_path=tmp_path,
    )
    lite_model.learn(70, callback=callback)
    scalars = scalars_in(tmp_path)
    assert [step for step, _ in scalars[tags.EVAL_DISTANCE]] == [30, 60, 70]
    assert {step for step, _ in scalars[tags.EVAL_RANDOM_DISTANCE]} == {30, 60, 70}
    assert (tmp_path / "best_model.zip").is_file()
    assert "evaluation at step 70" in capsys.readouterr().out
    # The policy was never updated: each evaluation, from the same places, says the same.
    assert len({value for _, value in scalars[tags.EVAL_DISTANCE]}) == 1


def test_an_evaluation_counts_one_episode_of_each_environment():
    env = make_vec_env("LiteDriving-v0", 3, env_kwargs={"max_episode_steps": 15})
    result = drive(full_brake_driver(env), env, seed=0)
    assert result.length <= 15
    assert result.success_rate == 0.0
    again = drive(full_brake_driver(env), env, seed=0)
    assert again == result


def test_the_full_brake_driver_goes_less_far_than_the_random_one():
    env = make_vec_env("LiteDriving-v0", 10, env_kwargs={"maps": "held_out"})
    brake = drive(full_brake_driver(env), env, seed=1_000)
    random = drive(random_driver(env, 0), env, seed=1_000)
    assert 0 <= brake.distance_m < random.distance_m < 100


@pytest.mark.parametrize("kwargs", [{"eval_freq": 0}, {"n_eval_episodes": 0}])
def test_numbers_below_one_are_refused(kwargs):
    with pytest.raises(ValueError, match="expected"):
        DrivingEvalCallback(**kwargs)


def test_a_rhythm_below_one_is_refused():
    with pytest.raises(ValueError, match="log_freq"):
        DrivingMetricsCallback(log_freq=0)
