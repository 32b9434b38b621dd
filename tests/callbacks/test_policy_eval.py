"""Test PolicyEvalCallback, which adds held-out seeds and a random policy to the EvalCallback of SB3."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_visual_td3 import (
    ExplosionAlertCallback,
    PolicyEvalCallback,
    RunRecorderCallback,
    SnapshotCallback,
    VisualTD3,
)
from sb3_visual_td3.callbacks import drives
from sb3_visual_td3.callbacks.drives import play_episodes, random_policy, trained_policy
from sb3_visual_td3.callbacks.policy_eval import wrapped_alike
from sb3_visual_td3.common import tags
from sb3_visual_td3.runs.manifest import RunManifest
from sb3_visual_td3.training_state.random_state import generator_state, restored_generator
from tests.callbacks.event_files import scalars_in
from tests.callbacks.test_snapshot import Kill, Killed
from tests.image_env import ImageEnv, VectorImageEnv
from tests.killed_runs import assert_same_scalars

SETTINGS = {"buffer_size": 100, "learning_starts": 20, "batch_size": 4, "seed": 0, "device": "cpu"}


class PointEnv(gym.Env):
    """Has episodes of ten steps. The reward is the action plus a number that depends on the seed."""

    observation_space = spaces.Box(-10, 10, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.seeds = []
        self.fails_at = None
        self.n_failures = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.bonus = float(self.np_random.uniform())
        self.n_steps = 0
        return self._observation(), {}

    def _observation(self):
        return np.array([self.bonus, self.n_steps], np.float32)

    def step(self, action):
        self.n_steps += 1
        if self.n_steps == self.fails_at:
            self.fails_at = None
            self.n_failures += 1
            return self._observation(), 1e9, False, True, {"invalid_transition": True}
        reward = float(action[0]) + self.bonus
        return self._observation(), reward, False, self.n_steps == 10, {"is_success": reward > 0}

    def get_state(self):
        return {"bonus": self.bonus, "n_steps": self.n_steps, "generator": generator_state(self.np_random)}

    def set_state(self, state):
        self.bonus, self.n_steps = state["bonus"], state["n_steps"]
        self.np_random = restored_generator(self.np_random, state["generator"])


gym.register("TestPoint-v0", entry_point=PointEnv)


def point_model(folder=None, env=None, **kwargs):
    env = env if env is not None else make_vec_env(PointEnv, 1)
    log = None if folder is None else str(folder / "tb")
    settings = {**SETTINGS, "policy_kwargs": {"net_arch": [8]}, "tensorboard_log": log, **kwargs}
    return VisualTD3("MlpPolicy", env, **settings)


def evaluation(env="TestPoint-v0", **kwargs):
    return PolicyEvalCallback(env, **{"n_eval_episodes": 3, "eval_freq": 30, "verbose": 0, **kwargs})


def test_the_random_policy_is_measured_once_and_logged_with_each_evaluation(tmp_path):
    env = make_vec_env(PointEnv, 1)
    callback = evaluation(env)
    point_model(tmp_path).learn(70, callback=callback)
    scalars = scalars_in(tmp_path)
    steps = {tag: [step for step, _ in scalars[tag]] for tag in scalars if tag.startswith("eval/")}
    assert steps[tags.EVAL_REWARD] == [30, 60, 70]
    assert steps[tags.EVAL_RANDOM_REWARD] == [0, 30, 60, 70]
    assert [value for _, value in scalars[tags.EVAL_RANDOM_REWARD]] == pytest.approx([callback.random_reward] * 4)
    assert set(steps) == {
        tags.EVAL_REWARD,
        tags.EVAL_SUCCESS_RATE,
        "eval/mean_ep_length",
        *(tag for tag, row in tags.TAGS.items() if row.owner == "PolicyEvalCallback"),
    }
    one = play_episodes(random_policy(env, callback.seed), env, callback.seed, 3)
    assert callback.random_reward == pytest.approx(np.mean([episode.reward for episode in one]))


def test_the_untrained_reward_is_measured_on_the_same_episodes_and_only_before_training(tmp_path):
    env = make_vec_env(PointEnv, 1)
    model, callback = point_model(tmp_path), evaluation(env)
    one = play_episodes(trained_policy(model, True), env, callback.seed, 3)
    model.learn(40, callback=callback)
    assert callback.untrained_reward == pytest.approx(np.mean([episode.reward for episode in one]))
    scalars = scalars_in(tmp_path)
    assert [step for step, _ in scalars[tags.EVAL_UNTRAINED_REWARD]] == [0, 30, 40]
    later = evaluation(env)
    model.learn(40, callback=later, reset_num_timesteps=False)
    assert later.random_reward is not None
    assert later.untrained_reward is None


def test_every_evaluation_begins_its_episodes_with_the_same_held_out_seeds(tmp_path):
    env = make_vec_env(PointEnv, 1)
    env.envs[0].unwrapped.seeds.clear()
    point_model().learn(65, callback=evaluation(env, seed=500))
    seeds = [seed for seed in env.envs[0].unwrapped.seeds if seed is not None]
    assert seeds == [500, 501, 502] * 5, "of the random policy, of the untrained one, and of three evaluations"


@pytest.mark.parametrize(("seed", "first"), [(7, 11), (8, 11), (10, 11), (11, 11), (4, 11), (3, 3), (500, 500)])
def test_seeds_that_the_training_uses_are_passed_over(seed, first):
    env = make_vec_env(PointEnv, 1)
    model = SAC("MlpPolicy", make_vec_env(PointEnv, 4), seed=7, buffer_size=100, device="cpu")
    model.learn(4, callback=evaluation(env, seed=seed, n_eval_episodes=4))
    assert first in env.envs[0].unwrapped.seeds
    assert not {7, 8, 9, 10} & set(env.envs[0].unwrapped.seeds)


def test_the_trained_weights_are_the_same_with_and_without_policy_evaluation():
    class DrawsGlobally(PointEnv):
        """Uses NumPy's global generator, as careless environments do."""

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.bonus = float(np.random.uniform())
            return self._observation(), {}

    def weights(*callbacks):
        env = make_vec_env(DrawsGlobally, 1)
        other = [evaluation(make_vec_env(DrawsGlobally, 1), deterministic=False) for _ in callbacks]
        model = SAC("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, **SETTINGS)
        model.learn(60, callback=other)
        return th.cat([each.flatten() for each in model.policy.parameters()])

    th.testing.assert_close(weights(True), weights(), rtol=0, atol=0)


class Scripted(PolicyEvalCallback):
    """Replaces the returns of the policy's evaluations by the values in ``returns``."""

    returns = ()

    def _play(self, policy, description):
        episodes = super()._play(policy, description)
        if description != "policy":
            return episodes
        first, *self.returns = self.returns
        return [episode._replace(reward=first) for episode in episodes]


def test_the_best_evaluation_and_its_step_are_logged_and_saved(tmp_path):
    callback = Scripted("TestPoint-v0", n_eval_episodes=2, eval_freq=30, verbose=0, best_model_save_path=tmp_path)
    callback.returns = [1.0, 5.0, 2.0]
    point_model(tmp_path).learn(90, callback=callback)
    scalars = scalars_in(tmp_path)
    assert scalars[tags.EVAL_REWARD] == [(30, 1.0), (60, 5.0), (90, 2.0)]
    assert scalars[tags.EVAL_BEST_REWARD] == [(30, 1.0), (60, 5.0), (90, 5.0)]
    assert scalars[tags.EVAL_BEST_STEP] == [(30, 30.0), (60, 60.0), (90, 60.0)]
    assert VisualTD3.load(tmp_path / "best_model.zip").num_timesteps == 60
    assert (callback.best_mean_reward, callback.last_mean_reward, callback.best_step) == (5.0, 2.0, 60)


def test_evaluations_npz_has_the_format_of_sb3(tmp_path):
    ours = evaluation(log_path=tmp_path / "ours")
    theirs = EvalCallback(
        make_vec_env(PointEnv, 1), n_eval_episodes=3, eval_freq=30, log_path=str(tmp_path / "theirs"), verbose=0
    )
    point_model().learn(60, callback=[ours, theirs])
    one, other = (np.load(tmp_path / name / "evaluations.npz") for name in ("ours", "theirs"))
    assert one.files == other.files
    for name in one.files:
        assert (one[name].dtype, one[name].shape) == (other[name].dtype, other[name].shape)


class NoSuccessEnv(PointEnv):
    def step(self, action):
        return *super().step(action)[:4], {}


def test_without_successes_there_is_no_success_rate(tmp_path):
    env = make_vec_env(NoSuccessEnv, 1)
    point_model(tmp_path).learn(30, callback=evaluation(env, log_path=tmp_path))
    assert tags.EVAL_SUCCESS_RATE not in scalars_in(tmp_path)
    assert "successes" not in np.load(tmp_path / "evaluations.npz").files


class SuccessAtTheGoalEnv(PointEnv):
    """Has ``is_success`` in ``info`` only at the goal, which the episodes in ``reached`` reach."""

    reached = ()
    n_episodes = 0

    def step(self, action):
        result = super().step(action)[:4]
        if self.n_steps < 10:
            return *result, {}
        type(self).n_episodes += 1
        return *result, {"is_success": True} if self.n_episodes in self.reached else {}


def test_an_episode_without_is_success_failed_once_another_episode_had_the_key(tmp_path, monkeypatch):
    # Two episodes of the random policy and two of the untrained one, then two in each of three evaluations.
    monkeypatch.setattr(SuccessAtTheGoalEnv, "reached", (8,))
    monkeypatch.setattr(SuccessAtTheGoalEnv, "n_episodes", 0)
    callback = evaluation(make_vec_env(SuccessAtTheGoalEnv, 1), n_eval_episodes=2, log_path=tmp_path)
    point_model(tmp_path).learn(90, callback=callback)
    assert scalars_in(tmp_path)[tags.EVAL_SUCCESS_RATE] == [(60, 0.5), (90, 0.0)]
    record = np.load(tmp_path / "evaluations.npz")
    assert record["successes"].tolist() == [[False, False], [False, True], [False, False]]


def test_an_episode_without_end_is_cut_off_with_a_warning(monkeypatch):
    class Endless(PointEnv):
        def step(self, action):
            observation, reward, _, _, info = super().step(action)
            return observation, reward, False, False, info

    monkeypatch.setattr(drives, "MANY_STEPS", 30)
    monkeypatch.setattr(drives, "MAX_STEPS", 40)
    env = make_vec_env(Endless, 2)
    with pytest.warns(UserWarning, match=r"not ended after 30 steps.*max_episode_steps"):
        episodes = drives.play_episodes(random_policy(env, 0), env, 0, 3)
    assert [episode.length for episode in episodes] == [40, 40, 40]


def test_an_episode_in_which_the_simulator_fails_is_repeated():
    env = make_vec_env(PointEnv, 1)
    env.envs[0].unwrapped.fails_at = 4
    episodes = play_episodes(random_policy(env, 0), env, 0, 2)
    assert env.envs[0].unwrapped.n_failures == 1
    assert [episode.length for episode in episodes] == [10, 10]
    assert max(episode.reward for episode in episodes) < 100


@pytest.mark.parametrize("n_envs", [1, 2])
def test_a_repeated_episode_begins_with_the_same_seed(n_envs):
    def nothing(observations, _):
        return np.zeros((len(observations), 1), np.float32)

    env = make_vec_env(PointEnv, n_envs)
    expected = [episode.reward for episode in play_episodes(nothing, env, 20, 5)]
    for each in env.envs:
        each.unwrapped.fails_at = 4
    assert [episode.reward for episode in play_episodes(nothing, env, 20, 5)] == expected
    assert [each.unwrapped.n_failures for each in env.envs] == [1] * n_envs


def test_a_start_at_which_the_simulator_always_fails_is_replaced():
    class FailsAtSeed21(PointEnv):
        def reset(self, *, seed=None, options=None):
            self.fails_at = 1 if seed == 21 else None
            return super().reset(seed=seed, options=options)

    env = make_vec_env(FailsAtSeed21, 1)
    episodes = play_episodes(random_policy(env, 0), env, 20, 3)
    assert [episode.length for episode in episodes] == [10, 10, 10]
    assert env.envs[0].unwrapped.seeds.count(21) == 4


@pytest.mark.parametrize("n_envs", [1, 2, 3])
def test_an_episode_is_the_same_however_many_environments_there_are(n_envs):
    def nothing(observations, _):
        return np.zeros((len(observations), 1), np.float32)

    env = make_vec_env(PointEnv, n_envs)
    expected = [10 * np.random.default_rng(seed).uniform() for seed in range(20, 25)]
    assert [episode.reward for episode in play_episodes(nothing, env, 20, 5)] == pytest.approx(expected, rel=1e-4)


def test_an_on_policy_algorithm_with_discrete_actions_can_be_evaluated():
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, device="cpu")
    callback = evaluation("CartPole-v1", eval_freq=1_000)
    model.learn(32, callback=callback)
    assert 8 < callback.random_reward < 100
    assert callback.last_mean_reward > 0


def test_the_return_is_the_one_that_sb3_measures():
    env = make_vec_env(PointEnv, 1)
    model = point_model()
    callback = evaluation(env, n_eval_episodes=1, seed=33)
    model.learn(25, callback=callback)
    env.seed(33)
    assert evaluate_policy(model, env, n_eval_episodes=1)[0] == pytest.approx(callback.last_mean_reward)


def test_an_environment_given_by_id_is_wrapped_like_the_training_environment():
    env = VecNormalize(VecFrameStack(make_vec_env("TestPoint-v0", 2), 3))
    model = point_model(env=env)
    callback = evaluation()
    model.learn(30, callback=callback)
    normalizer = callback.eval_env
    assert isinstance(normalizer, VecNormalize)
    assert isinstance(normalizer.venv, VecFrameStack)
    assert not normalizer.training
    np.testing.assert_array_equal(normalizer.obs_rms.mean, env.obs_rms.mean)
    assert normalizer.obs_rms.count > 30


class DictEnv(ImageEnv):
    """Returns a Dict with a scaled camera image and a vector."""

    observation_space = spaces.Dict(
        {"camera": spaces.Box(0, 1, (1, 36, 36), np.float32), "state": spaces.Box(-1, 1, (2,), np.float32)}
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: VecFrameStack(env, 4, {"camera": "first", "state": "last"}),
        lambda env: VecFrameStack(VecExtractDictObs(env, "camera"), 4, "first"),
        lambda env: VecFrameStack(VecExtractDictObs(env, "camera"), 4, "last"),
        lambda env: VecCheckNan(VecMonitor(VecExtractDictObs(env, "state"))),
        lambda env: VecNormalize(VecFrameStack(VecExtractDictObs(env, "state"), 3)),
        VecTransposeImage,
    ],
)
def test_the_wrappers_of_stable_baselines3_are_added_as_in_training(wrap):
    training_env = wrap(DummyVecEnv([DictEnv]))
    assert wrapped_alike(DummyVecEnv([DictEnv]), training_env).observation_space == training_env.observation_space


def test_channels_last_images_with_normalised_rewards_can_be_evaluated():
    class LastEnv(ImageEnv):
        observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)

    env = VecNormalize(make_vec_env(LastEnv, 1), norm_obs=False)
    model = VisualTD3("CnnPolicy", env, policy_kwargs={"net_arch": [4]}, **SETTINGS)
    callback = evaluation(make_vec_env(LastEnv, 1), n_eval_episodes=1)
    model.learn(5, callback=callback)
    assert np.isfinite(callback.last_mean_reward)


def test_a_policy_on_dict_observations_can_be_evaluated():
    model = VisualTD3("MultiInputPolicy", VectorImageEnv(), policy_kwargs={"net_arch": [4]}, **SETTINGS)
    callback = evaluation(make_vec_env(VectorImageEnv, 2), n_eval_episodes=3)
    model.learn(5, callback=callback)
    assert np.isfinite([callback.last_mean_reward, callback.random_reward]).all()


class NeedsServer(PointEnv):
    server_address = ("localhost", 2000)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda _: make_vec_env(NeedsServer, 1), "DrivingEvalCallback"),
        (lambda training: training, "give a separate environment"),
        (lambda training: VecFrameStack(training.venv, 1), "give a separate environment"),
        (lambda _: DummyVecEnv([lambda: gym.make("Pendulum-v1")]), "same wrappers and arguments"),
        (lambda _: make_vec_env(PointEnv, 1), "wrap it in VecNormalize"),
        (lambda _: VecNormalize(make_vec_env(PointEnv, 1), norm_obs=False), "wrap it in VecNormalize"),
    ],
)
def test_an_unsuitable_evaluation_environment_raises_an_error_before_training(env, message):
    training = VecNormalize(make_vec_env(PointEnv, 1))
    model = point_model(env=training)
    with pytest.raises(ValueError, match=message):
        model.learn(10, callback=evaluation(env(training), warn=False))
    assert model.num_timesteps == 0


def test_normalised_observations_in_the_evaluation_alone_are_refused():
    model = point_model(env=VecNormalize(make_vec_env(PointEnv, 1), norm_obs=False))
    with pytest.raises(ValueError, match="wrap it in VecNormalize too"):
        model.learn(10, callback=evaluation(VecNormalize(make_vec_env(PointEnv, 1))))
    model.learn(10, callback=evaluation(make_vec_env(PointEnv, 1)))


def test_a_subclass_can_extend_evaluate():
    class Counting(PolicyEvalCallback):
        n_evaluations = 0

        def evaluate(self):
            self.n_evaluations += 1
            return super().evaluate()

    callback = Counting(make_vec_env(PointEnv, 1), n_eval_episodes=1, eval_freq=10)
    point_model().learn(20, callback=callback)
    assert callback.n_evaluations == 2


def test_statistics_of_other_observations_are_not_copied():
    model = point_model(env=VecNormalize(VecFrameStack(make_vec_env(PointEnv, 1), 2)))
    other = VecFrameStack(VecNormalize(make_vec_env(PointEnv, 1)), 2)
    with pytest.raises(ValueError, match="wrappers differ: wrap it in VecNormalize too, in the same place"):
        model.learn(10, callback=evaluation(other))


@pytest.mark.parametrize("kwargs", [{"eval_freq": 0}, {"n_eval_episodes": 0}])
def test_invalid_arguments_are_refused(kwargs):
    with pytest.raises(ValueError, match="=0: expected an integer >= 1"):
        evaluation(**kwargs)
    with pytest.raises(ValueError, match="eval_env_kwargs was given"):
        evaluation(make_vec_env(PointEnv, 1), eval_env_kwargs={})


def test_callbacks_are_called_and_can_end_the_training():
    class Counts(BaseCallback):
        n = 0

        def _on_step(self):
            self.n += 1
            return True

    after = Counts()
    callback = Scripted("TestPoint-v0", StopTrainingOnRewardThreshold(4.0), after, 1, 20, verbose=0)
    callback.returns = [1.0, 5.0]
    model = point_model()
    model.learn(100, callback=callback)
    assert model.num_timesteps == 40
    assert after.n == 2


def test_a_policy_that_is_not_finite_is_not_evaluated_at_the_end(tmp_path):
    class Poison(BaseCallback):
        def _on_rollout_start(self):
            if self.num_timesteps == 31:
                for weight in self.model.critic.parameters():
                    weight.data.fill_(np.nan)

        def _on_step(self):
            return True

    class StrictEnv(PointEnv):
        def step(self, action):
            assert np.isfinite(action).all()
            return super().step(action)

    model = TD3("MlpPolicy", make_vec_env(StrictEnv, 1), **SETTINGS)
    alert = ExplosionAlertCallback(on_critical="stop", run_dir=tmp_path, verbose=0)
    evaluations = evaluation(make_vec_env(StrictEnv, 1), eval_freq=1_000)
    model.learn(60, callback=[Poison(), alert, evaluations, RunRecorderCallback(tmp_path)])
    assert model.num_timesteps < 60
    assert RunManifest.read(tmp_path / "run.json").end == "stopped"


def test_a_killed_run_continues_its_evaluations(tmp_path):
    def script(folder, kill_at=None):
        callback = evaluation(log_path=folder, eval_freq=25)
        callbacks = [callback, *([Kill(kill_at)] if kill_at else [])]
        model = point_model(folder, env=make_vec_env(PointEnv, 1, seed=2))
        model.learn(90, callback=[*callbacks, SnapshotCallback(10, folder, resume=True, verbose=0)])
        return callback

    whole = script(tmp_path / "whole")
    for kill_at in (26, 74):
        with pytest.raises(Killed):
            script(tmp_path / "killed", kill_at)
    resumed = script(tmp_path / "killed")
    for name in ("best_mean_reward", "last_mean_reward", "best_step", "random_reward", "n_calls"):
        assert getattr(resumed, name) == getattr(whole, name), name
    assert_same_scalars(tmp_path / "whole" / "tb", tmp_path / "killed" / "tb", at_least=6)
    one, other = (np.load(tmp_path / name / "evaluations.npz") for name in ("whole", "killed"))
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_snapshot_with_the_callback_of_sb3_continues_with_ours(tmp_path):
    def script(callback, kill_at=None):
        callbacks = [callback, *([Kill(kill_at)] if kill_at else [])]
        model = point_model(tmp_path, env=make_vec_env(PointEnv, 1, seed=2))
        model.learn(60, callback=[*callbacks, SnapshotCallback(10, tmp_path, resume=True, verbose=0)])

    theirs = EvalCallback(make_vec_env(PointEnv, 1), n_eval_episodes=2, eval_freq=20, log_path=tmp_path, verbose=0)
    with pytest.raises(Killed):
        script(theirs, kill_at=35)
    ours = evaluation(make_vec_env(PointEnv, 1), log_path=tmp_path, n_eval_episodes=2)
    script(ours)
    assert ours.evaluations_timesteps[0] == 20
    assert ours.evaluations_timesteps[-1] == 60


class EndsLate(PointEnv):
    """Has an episode that is a little longer than the number of steps after which an evaluation warns."""

    def step(self, action):
        observation, reward, *_ = super().step(action)
        return observation, reward, self.n_steps >= drives.MANY_STEPS_WITHOUT_LIMIT + 10, False, {}


def test_the_warning_of_a_long_episode_comes_early_if_no_time_limit_is_known():
    def play(make):
        env = DummyVecEnv([make])
        return play_episodes(random_policy(env, 0), env, 0, 1)

    with pytest.warns(UserWarning, match=r"has not ended after 2,000 steps.*max_episode_steps") as warned:
        play(EndsLate)
    assert len(warned) == 1
    gym.register("EndsLate-v0", EndsLate, max_episode_steps=3_000)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            play(lambda: gym.make("EndsLate-v0"))
    finally:
        del gym.registry["EndsLate-v0"]
