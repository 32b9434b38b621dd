"""Test DrivingEvalCallback, an EvalCallback for driving, on LiteDriving-v0."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    EvalCallback,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_visual_td3 import DrivingEvalCallback, SnapshotCallback, VisualTD3
from sb3_visual_td3.callbacks.drives import drive_episodes, full_brake_driver, mean_of, random_driver
from sb3_visual_td3.common import tags
from sb3_visual_td3.envs.idle_limit import IdleLimit
from sb3_visual_td3.training_state.random_state import random_state
from tests.callbacks.event_files import scalars_in
from tests.callbacks.test_snapshot import Kill, Killed
from tests.image_env import ImageEnv
from tests.killed_runs import assert_same_scalars

SHORT = {"maps": "held_out", "max_episode_steps": 20}


def short_evaluation(**kwargs):
    settings = {"eval_env_kwargs": SHORT, "eval_freq": 30, "n_eval_episodes": 2, "verbose": 0}
    return DrivingEvalCallback(**{**settings, **kwargs})


class Counts(BaseCallback):
    """Records the step and the results of its parent callback at each call."""

    def __init__(self, goes_on=True):
        super().__init__()
        self.goes_on, self.seen = goes_on, []

    def _on_step(self):
        self.seen.append((self.num_timesteps, self.parent.best_distance_m, self.parent.last_mean_reward))
        return self.goes_on


def scripted(callback, monkeypatch, distances, rewards):
    """Make evaluations return these distances and rewards."""
    pairs = iter(zip(distances, rewards, strict=True))

    def drives(_driver, description):
        distance_m, reward = next(pairs) if description == "policy" else (1.0, 0.0)
        one, *_ = drive_episodes(full_brake_driver(callback.eval_env), callback.eval_env, 0)
        return [one._replace(distance_m=distance_m, reward=reward)]

    monkeypatch.setattr(callback, "_play", drives)


def test_an_evaluation_environment_with_other_observations_is_refused_before_training(make_model):
    model = make_model(env=gym.make("LiteDriving-v0", frame_stack=2), learning_starts=1_000)
    with pytest.raises(ValueError, match=r"evaluation environment has the observation_space .*same wrappers"):
        model.learn(5, callback=short_evaluation())
    assert model.num_timesteps == 0


def test_an_environment_in_which_nothing_drives_is_refused_with_the_callback_to_use(make_model):
    expected = r"DrivingEvalCallback is for driving environments; for others, use PolicyEvalCallback\('Pendulum-v1'\)"
    with pytest.raises(ValueError, match=f"Pendulum-v1 has no argument maps: {expected}"):
        DrivingEvalCallback("Pendulum-v1")
    with pytest.raises(TypeError, match="mapz"):
        DrivingEvalCallback("Pendulum-v1", eval_env_kwargs={"mapz": 1})
    model = VisualTD3("MlpPolicy", "Pendulum-v1", buffer_size=10)
    with pytest.raises(ValueError, match=expected):
        model.learn(5, callback=short_evaluation())
    # Images with channels last: the training environment has a VecTransposeImage.
    model = make_model(env=ImageEnv(), learning_starts=1_000)
    with pytest.raises(ValueError, match="evaluation environment has the observation_space"):
        model.learn(5, callback=short_evaluation())
    discrete = DQN("MlpPolicy", "CartPole-v1", buffer_size=10)
    with pytest.raises(ValueError, match=r"action space is Discrete\(2\): expected a Box"):
        discrete.learn(5, callback=DrivingEvalCallback(gym.make("CartPole-v1"), warn=False))


@pytest.mark.parametrize("normalizes", ["not", "before stacking", "after stacking"])
def test_frames_are_stacked_as_in_training(make_model, normalizes):
    env = make_vec_env("LiteDriving-v0", env_kwargs={"frame_stack": 1, "observation": "camera+state"})
    if normalizes == "before stacking":
        env = VecNormalize(env, norm_obs_keys=["state"])
    env = VecFrameStack(env, 4)
    if normalizes == "after stacking":
        env = VecNormalize(env, norm_obs_keys=["state"])
    model = PPO("MultiInputPolicy", env, n_steps=16, batch_size=16, n_epochs=1)
    kwargs = {**SHORT, "frame_stack": 1, "observation": "camera+state"}
    callback = short_evaluation(eval_env_kwargs=kwargs)
    for _ in range(2):  # the second call creates the evaluation environments again
        model.learn(35, callback=callback)
        assert callback.eval_env.observation_space == env.observation_space
    assert callback.best_distance_m > 0


def test_the_policy_is_evaluated_on_time_and_at_the_end(lite_model, tmp_path, capsys):
    callback = short_evaluation(best_model_save_path=tmp_path, verbose=1)
    lite_model.learn(70, callback=callback)
    scalars = scalars_in(tmp_path)
    assert [step for step, _ in scalars[tags.EVAL_DISTANCE]] == [30, 60, 70]
    assert {step for step, _ in scalars[tags.EVAL_RANDOM_DISTANCE]} == {30, 60, 70}
    assert {step for step, _ in scalars[tags.EVAL_RANDOM_REWARD]} == {30, 60, 70}
    assert (tmp_path / "best_model.zip").is_file()
    assert "evaluation at step 70" in capsys.readouterr().out
    # The policy is never updated and starts from the same places, so all evaluations are equal.
    assert len({value for _, value in scalars[tags.EVAL_DISTANCE]}) == 1
    assert callback.best_mean_reward == callback.last_mean_reward
    assert callback.best_mean_reward == pytest.approx(scalars[tags.EVAL_REWARD][0][1])


def test_each_evaluation_logs_every_eval_tag_exactly_once(lite_model, tmp_path):
    """SB3's EvalCallback would record eval/mean_reward and eval/success_rate for the logger as well."""
    lite_model.learn(70, callback=short_evaluation(), log_interval=1)
    scalars = scalars_in(tmp_path)
    owned = {name for name, tag in tags.TAGS.items() if tag.owner == "DrivingEvalCallback"}
    assert {tag for tag in scalars if tag.startswith("eval/")} == {*owned, tags.EVAL_RANDOM_REWARD}
    assert {tuple(step for step, _ in scalars[tag]) for tag in owned} == {(30, 60, 70)}


def test_evaluations_npz_equals_that_of_sb3(lite_model, tmp_path):
    ours = short_evaluation(log_path=tmp_path / "ours")
    env = make_vec_env("LiteDriving-v0", 2, seed=1_000, env_kwargs=SHORT)
    env.seed(1_000)  # only our callback seeds before each evaluation, so only the first ones are equal
    theirs = EvalCallback(env, n_eval_episodes=2, eval_freq=30, log_path=str(tmp_path / "theirs"), verbose=0)
    lite_model.learn(35, callback=[ours, theirs])
    one, other = (np.load(tmp_path / name / "evaluations.npz") for name in ("ours", "theirs"))
    assert one.files == other.files
    assert one["timesteps"].tolist() == [30, 35]
    for name in ("results", "ep_lengths", "successes"):
        np.testing.assert_array_equal(np.sort(one[name][:1]), np.sort(other[name]))
        assert one[name].dtype == other[name].dtype
    assert isinstance(ours, EvalCallback)


def test_callbacks_are_called_on_a_new_best_model_and_after_every_evaluation(lite_model, tmp_path, monkeypatch):
    best, after = Counts(), Counts()
    callback = short_evaluation(callback_on_new_best=best, callback_after_eval=after, best_model_save_path=tmp_path)
    scripted(callback, monkeypatch, [5.0, 4.0, 5.0, 6.0], [1.0, 9.0, 2.0, 3.0])
    lite_model.learn(110, callback=callback)
    assert best.seen == [(30, 5.0, 1.0), (110, 6.0, 3.0)]
    assert after.seen == [(30, 5.0, 1.0), (60, 5.0, 9.0), (90, 5.0, 2.0), (110, 6.0, 3.0)]
    assert callback.best_mean_reward == 9.0
    assert VisualTD3.load(tmp_path / "best_model.zip").num_timesteps == 110


def test_the_best_model_may_be_the_one_with_the_largest_reward(lite_model, tmp_path, monkeypatch):
    best = Counts()
    callback = short_evaluation(callback_on_new_best=best, best_by="reward", best_model_save_path=tmp_path)
    scripted(callback, monkeypatch, [5.0, 4.0, 6.0], [1.0, 9.0, 2.0])
    lite_model.learn(70, callback=callback)
    assert [step for step, *_ in best.seen] == [30, 60]
    assert VisualTD3.load(tmp_path / "best_model.zip").num_timesteps == 60


@pytest.mark.parametrize(
    ("kwargs", "last_step"),
    [
        ({"callback_on_new_best": Counts(goes_on=False)}, 30),
        ({"callback_after_eval": Counts(goes_on=False)}, 30),
        ({"callback_after_eval": StopTrainingOnNoModelImprovement(1)}, 120),
        ({"callback_on_new_best": StopTrainingOnRewardThreshold(7.0, verbose=0), "best_by": "reward"}, 60),
        ({"callback_on_new_best": StopTrainingOnRewardThreshold(10.0, verbose=0), "best_by": "reward"}, 150),
    ],
)
def test_a_callback_can_end_the_training(lite_model, monkeypatch, kwargs, last_step):
    callback = short_evaluation(**kwargs)
    scripted(callback, monkeypatch, [5.0] * 5, [1.0, 9.0, 2.0, 2.0, 2.0])
    lite_model.learn(150, callback=callback)
    assert lite_model.num_timesteps == last_step


def test_every_evaluation_in_a_users_environment_starts_from_the_same_positions(lite_model, tmp_path):
    env = make_vec_env("LiteDriving-v0", 2, env_kwargs=SHORT)
    callback = DrivingEvalCallback(env, n_eval_episodes=5, eval_freq=40, log_path=tmp_path, verbose=0)
    lite_model.learn(80, callback=callback)
    record = np.load(tmp_path / "evaluations.npz")
    assert record["results"].shape == (2, 5), "shared out between two environments"
    assert len(set(record["results"][0])) == 5
    np.testing.assert_array_equal(record["results"][0], record["results"][1])
    assert callback.eval_env is env


def test_an_environment_given_by_id_works_in_a_second_training(lite_model, tmp_path):
    callback = short_evaluation(eval_freq=1_000)
    lite_model.learn(10, callback=callback)
    first = callback.eval_env
    lite_model.learn(10, callback=callback, reset_num_timesteps=False)
    assert callback.eval_env is not first
    assert callback.last_mean_reward > -np.inf


def test_idle_limits_are_lifted_in_a_second_training_too(lite_model):
    spec = gym.spec("LiteDriving-v0")
    limit = (IdleLimit.wrapper_spec(max_idle_steps=3),)
    gym.register("IdleDriving-v0", spec.entry_point, max_episode_steps=5, additional_wrappers=limit)
    callback = DrivingEvalCallback("IdleDriving-v0", n_eval_episodes=1, eval_freq=1_000, verbose=0)
    for _ in range(2):
        lite_model.learn(5, callback=callback)
        assert callback.eval_env.get_attr("max_idle_steps") == [None]


def test_an_evaluation_leaves_the_random_numbers_of_the_training_alone(lite_model, monkeypatch):
    callback = DrivingEvalCallback(make_vec_env("LiteDriving-v0", 1, env_kwargs=SHORT), n_eval_episodes=1, verbose=0)
    play = callback._play

    def draws(*arguments):
        th.rand(1)
        np.random.rand()
        return play(*arguments)

    lite_model.learn(5, callback=callback)
    monkeypatch.setattr(callback, "_play", draws)
    before = random_state()
    callback.evaluate()
    np.testing.assert_equal(random_state(), before)


def test_a_simulator_that_is_lost_while_the_baselines_drive_is_lost_after_the_start(lite_model, monkeypatch):
    class Started(BaseCallback):
        has_begun = False

        def _on_rollout_start(self):
            self.has_begun = True

        def _on_step(self):
            return True

    def lost(*_):
        raise ConnectionResetError

    callback, started = DrivingEvalCallback("LiteDriving-v0", n_eval_episodes=1, verbose=0), Started()
    monkeypatch.setattr(callback, "_play", lost)
    with pytest.raises(ConnectionResetError):
        lite_model.learn(5, callback=[started, callback])
    assert started.has_begun


class RoutesEnv(gym.Env):
    """Drives routes of two steps; the simulator fails in the second step of the episodes in ``fails_in``."""

    observation_space = action_space = spaces.Box(-1, 1, (2,), np.float32)
    n_episodes = 0
    fails_in = ()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_episodes += 1
        self.n_steps = 0
        self.route = (options or {}).get("route", -1)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.n_steps += 1
        info = {"speed_mps": 1.0, "distance_m": self.route, "collisions": 0, "lane_invasions": 0, "is_success": False}
        if self.n_steps == 2 and self.n_episodes in self.fails_in:
            info["invalid_transition"] = True
        return np.zeros(2, np.float32), 0.0, self.n_steps == 2, False, info


def test_a_route_is_driven_again_if_the_simulator_fails():
    env = DummyVecEnv([RoutesEnv] * 3)
    env.envs[1].fails_in = (1, 2)
    drives = drive_episodes(random_driver(env, 0), env, 0, options=[{"route": number} for number in (7, 8, 9)])
    assert [drive.distance_m for drive in drives] == [7, 8, 9]


def test_an_episode_after_the_first_is_replaced_if_the_simulator_fails():
    env = DummyVecEnv([RoutesEnv])
    env.envs[0].fails_in = (2,)
    drives = drive_episodes(random_driver(env, 0), env, 0, 3, options=[{"route": 7}])
    assert [drive.distance_m for drive in drives] == [7, -1, -1], "only the first episode has options"
    assert env.envs[0].n_episodes == 5, "the last one is that of the automatic reset"


def test_arguments_can_be_changed_before_training(lite_model, tmp_path):
    told = short_evaluation(log_path=tmp_path / "told", seed=7)
    first = told.eval_env
    told.configure()
    assert told.eval_env is first, "nothing to create again"
    kwargs = {"maps": ["held_out_1"], "max_episode_steps": 12}
    told.configure(eval_freq=20, n_eval_episodes=3, eval_env_kwargs=kwargs)
    assert told.eval_env_kwargs == kwargs
    given = {"eval_freq": 20, "n_eval_episodes": 3, "eval_env_kwargs": kwargs}
    made = short_evaluation(log_path=tmp_path / "made", seed=7, **given)
    lite_model.learn(40, callback=[told, made])
    one, other = (np.load(tmp_path / name / "evaluations.npz") for name in ("told", "made"))
    assert one["timesteps"].tolist() == [20, 40]
    assert one["results"].shape == (2, 3)
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("kwargs", [{"eval_freq": 0}, {"n_eval_episodes": 0}, {"eval_env_kwargs": SHORT}])
def test_invalid_changes_before_training_are_refused(kwargs):
    callback = DrivingEvalCallback(make_vec_env("LiteDriving-v0", 1, env_kwargs=SHORT), n_eval_episodes=4)
    assert callback.eval_env_kwargs is None
    with pytest.raises(ValueError, match=r"expected|eval_env_kwargs was given"):
        callback.configure(**kwargs)
    callback.configure(eval_freq=9, n_eval_episodes=5)
    assert (callback.eval_freq, callback.n_eval_episodes) == (9, 5)


def observing_model(env):
    settings = {"buffer_size": 100, "learning_starts": 10_000, "batch_size": 4, "seed": 0, "device": "cpu"}
    return VisualTD3("MultiInputPolicy", env, policy_kwargs={"net_arch": [4]}, **settings)


@pytest.mark.parametrize("own", [False, True], ids=["by id", "of your own"])
def test_the_policy_sees_observations_as_in_training(monkeypatch, own):
    kwargs = {"observation": "camera+state", **SHORT}
    env = VecNormalize(make_vec_env("LiteDriving-v0", 1, seed=0, env_kwargs=kwargs), norm_obs_keys=["state"])
    model = observing_model(env)
    seen = []
    predict = model.predict

    def watched(observations, **kwargs):
        seen.append(observations["state"].copy())
        return predict(observations, **kwargs)

    settings = {"n_eval_episodes": 1, "eval_freq": 1_000, "verbose": 0, "seed": 5}
    raw_env = make_vec_env("LiteDriving-v0", 1, env_kwargs=kwargs)
    if own:
        evaluation = VecNormalize(raw_env, norm_obs_keys=["state"], training=False, norm_reward=False)
        callback = DrivingEvalCallback(evaluation, **settings)
    else:
        callback = DrivingEvalCallback(eval_env_kwargs=kwargs, **settings)
    monkeypatch.setattr(model, "predict", watched)
    model.learn(30, callback=callback)
    raw_env.seed(5)
    raw = raw_env.reset()["state"]
    mean, var = env.obs_rms["state"].mean, env.obs_rms["state"].var
    np.testing.assert_allclose(seen[0], np.clip((raw - mean) / np.sqrt(var + env.epsilon), -10, 10), rtol=1e-5)
    assert np.abs(seen[0] - raw).max() > 0.1


def test_different_wrappers_in_training_and_evaluation_raise_an_error():
    kwargs = {"observation": "camera+state", **SHORT}
    model = observing_model(VecNormalize(make_vec_env("LiteDriving-v0", 1, env_kwargs=kwargs), norm_obs_keys=["state"]))
    callback = DrivingEvalCallback(make_vec_env("LiteDriving-v0", 1, env_kwargs=kwargs), eval_freq=5, verbose=0)
    with pytest.warns(UserWarning, match="not of the same type"), pytest.raises(ValueError, match="wrappers differ"):
        model.learn(10, callback=callback)
    assert model.num_timesteps == 0


def test_the_error_for_an_environment_without_driving_info_names_the_missing_keys(make_model):
    callback = DrivingEvalCallback(DummyVecEnv([ImageEnv]), verbose=0, warn=False)
    with pytest.raises(ValueError, match=r"no speed_mps, distance_m, .*EvalCallback"):
        make_model().learn(10, callback=callback)


def test_an_evaluation_without_a_monitor_warns_unless_disabled(lite_model):
    def run(warn):
        env = DummyVecEnv([lambda: gym.make("LiteDriving-v0", **SHORT)])
        lite_model.learn(5, callback=DrivingEvalCallback(env, n_eval_episodes=1, verbose=0, warn=warn))

    with pytest.warns(UserWarning, match="not wrapped in a Monitor"):
        run(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(False)


def test_an_evaluation_by_id_does_not_warn(lite_model):
    model = VisualTD3("CnnPolicy", VecNormalize(lite_model.env, norm_obs=False), buffer_size=100, device="cpu", seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(5, callback=short_evaluation())


@pytest.mark.slow
def test_a_killed_run_continues_its_evaluations(tmp_path):
    def script(folder, kill_at=None):
        settings = {"buffer_size": 100, "learning_starts": 20, "batch_size": 4, "seed": 0, "device": "cpu"}
        env = make_vec_env("LiteDriving-v0", 1, seed=2, env_kwargs={"max_episode_steps": 30})
        model = VisualTD3("CnnPolicy", env, policy_kwargs={"net_arch": [8]}, tensorboard_log=folder / "tb", **settings)
        after = StopTrainingOnNoModelImprovement(100, min_evals=1)
        evaluation = short_evaluation(eval_freq=25, log_path=folder, callback_after_eval=after)
        callbacks = [evaluation, *([Kill(kill_at)] if kill_at else [])]
        model.learn(100, callback=[*callbacks, SnapshotCallback(10, folder, resume=True, verbose=0)])
        return evaluation, after

    whole, after_whole = script(tmp_path / "whole")
    for kill_at in (26, 74):
        with pytest.raises(Killed):
            script(tmp_path / "killed", kill_at)
    resumed, after_resumed = script(tmp_path / "killed")
    one, other = (np.load(tmp_path / name / "evaluations.npz") for name in ("whole", "killed"))
    assert one["timesteps"].tolist() == [25, 50, 75, 100]
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name])
    assert_same_scalars(tmp_path / "whole" / "tb", tmp_path / "killed" / "tb", at_least=10)
    for name in ("best_mean_reward", "last_mean_reward", "best_distance_m", "n_calls"):
        assert getattr(resumed, name) == getattr(whole, name), name
    assert after_resumed.no_improvement_evals == after_whole.no_improvement_evals


def test_only_evaluations_with_the_same_seed_give_the_same_results():
    env = make_vec_env("LiteDriving-v0", 3, env_kwargs={"max_episode_steps": 15})
    drives, again, other = (drive_episodes(full_brake_driver(env), env, seed) for seed in (0, 0, 10))
    assert len(drives) == 3, "one episode in each environment"
    assert all(drive.length <= 15 and drive.success_rate == 0.0 for drive in drives)
    np.testing.assert_equal(again, drives)  # values that need a route are NaN here
    distances_m = [drive.distance_m for drive in (*drives, *other)]
    assert len(set(distances_m)) == 6, "each episode starts elsewhere"


@pytest.mark.parametrize(("n_episodes", "expected"), [(1, [0, 0, 1]), (3, [1, 1, 1]), (5, [1, 2, 2])])
def test_episodes_are_distributed_as_in_sb3(n_episodes, expected):
    env = make_vec_env("LiteDriving-v0", 3, env_kwargs={"max_episode_steps": 3})
    lengths = [10 * index + 3 for index in range(3)]
    for each, length in zip(env.envs, lengths, strict=True):
        each.env._max_episode_steps = length  # tells the environments apart
    drives = drive_episodes(random_driver(env, 0), env, 0, n_episodes)
    assert [sum(drive.length == length for drive in drives) for length in lengths] == expected


def test_a_recurrent_policy_keeps_its_state_during_an_evaluation(monkeypatch):
    tiny = {"lstm_hidden_size": 4, "features_extractor_kwargs": {"features_dim": 4}}
    model = RecurrentPPO("CnnLstmPolicy", "LiteDriving-v0", n_steps=4, batch_size=4, policy_kwargs=tiny, device="cpu")
    states, predict = [], model.predict

    def noted(observations, state=None, **kwargs):
        states.append(state)
        return predict(observations, state=state, **kwargs)

    monkeypatch.setattr(model, "predict", noted)
    model.learn(4, callback=short_evaluation())
    assert states[0] is None
    assert len(states) == 20
    assert all(state is not None for state in states[1:])


def test_an_episode_has_its_route_completion_if_there_is_a_route(monkeypatch):
    env = make_vec_env("LiteDriving-v0", 2, env_kwargs={"max_episode_steps": 15})
    drives = drive_episodes(random_driver(env, 0), env, seed=0)
    for drive, each in zip(drives, env.envs, strict=True):
        assert drive.distance_m > 0
        assert 0 < drive.route_completion < 0.5
        step = each.step
        monkeypatch.setattr(each, "step", lambda action, step=step: without_route(*step(action)))
    routeless = drive_episodes(random_driver(env, 0), env, seed=0)
    assert np.isnan([drive.route_completion for drive in routeless]).all()
    before, after = mean_of(drives)._asdict(), mean_of(routeless)._asdict()
    assert np.isnan(after.pop("route_completion"))
    del before["route_completion"]
    np.testing.assert_equal(after, before, "the other means do not mind")


def without_route(*result):
    del result[-1]["route_completion"]
    return result


def test_the_full_brake_driver_drives_less_far_than_the_random_one():
    env = make_vec_env("LiteDriving-v0", 10, env_kwargs={"maps": "held_out"})
    brake = mean_of(drive_episodes(full_brake_driver(env), env, seed=1_000))
    random = mean_of(drive_episodes(random_driver(env, 0), env, seed=1_000))
    assert 0 <= brake.distance_m < random.distance_m < 100


@pytest.mark.parametrize(
    "kwargs",
    [
        {"eval_freq": 0},
        {"n_eval_episodes": 0},
        {"best_by": "luck"},
        {"eval_env": DummyVecEnv([ImageEnv]), "eval_env_kwargs": {"maps": "train"}},
    ],
)
def test_invalid_arguments_are_refused(kwargs):
    with pytest.raises(ValueError, match=r"expected|eval_env_kwargs was given"):
        DrivingEvalCallback(**kwargs)
