"""Test that overlap=True makes the updates during the environment's next step, and changes nothing else."""

import os
import signal
import time

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_visual_td3 import VisualTD3
from tests.image_env import ImageEnv

ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones")


class AsyncVecEnv(DummyVecEnv):
    """Imitate an environment in another process: while a step is under way, only ``step_wait`` may be called.

    The list ``diary`` records the calls of ``step_async`` and ``step_wait``.
    """

    def __init__(self, env_fns, diary=None):
        super().__init__(env_fns)
        self.is_stepping = False
        self.diary = [] if diary is None else diary

    def _must_be_idle(self):
        assert not self.is_stepping, "called while a step is under way"

    def step_async(self, actions):
        self._must_be_idle()
        self.is_stepping = True
        self.diary.append("step_async")
        super().step_async(actions.copy())

    def step_wait(self):
        assert self.is_stepping, "no step is under way"
        self.is_stepping = False
        self.diary.append("step_wait")
        return super().step_wait()

    def reset(self):
        self._must_be_idle()
        return super().reset()

    def get_attr(self, *args, **kwargs):
        self._must_be_idle()
        return super().get_attr(*args, **kwargs)

    def env_method(self, *args, **kwargs):
        self._must_be_idle()
        return super().env_method(*args, **kwargs)


class Diarist(BaseCallback):
    """Record the callback's events in the environment's ``diary``, and check that no step is under way."""

    def _note(self, event):
        self.training_env.unwrapped.diary.append(event)
        self.training_env.env_method("get_wrapper_attr", "episode_length")

    def _on_rollout_start(self):
        self._note("rollout_start")

    def _on_rollout_end(self):
        self._note("rollout_end")

    def _on_step(self):
        self._note("on_step")
        return True

    def _on_training_end(self):
        self._note("training_end")


class DiaryTD3(VisualTD3):
    """Record each call of ``train`` in the environment's ``diary``, and fail once after ``failing_at`` updates."""

    failing_at = None
    error = RuntimeError

    def train(self, gradient_steps, batch_size=100):
        self.env.unwrapped.diary.append(f"train {gradient_steps}")
        super().train(gradient_steps, batch_size)
        if self.failing_at is not None and self._n_updates >= self.failing_at:
            self.failing_at = None
            raise self.error("from train")


def model_on(env, cls=VisualTD3, **kwargs):
    settings = {"buffer_size": 200, "learning_starts": 20, "batch_size": 8, "seed": 4, "device": "cpu"}
    return cls("CnnPolicy", env, **{**settings, **kwargs})


def subproc(n_envs=1, **kwargs):
    env_fns = [lambda: ImageEnv(**kwargs) for _ in range(n_envs)]
    return SubprocVecEnv(env_fns, start_method="fork")


def diary_of(n_steps, callback=None, **kwargs):
    env = AsyncVecEnv([ImageEnv])
    model = model_on(env, DiaryTD3, overlap=True, **kwargs)
    return model.learn(n_steps, callback=callback), env.diary


def assert_same_weights(one, other):
    for name, weights in one.policy.state_dict().items():
        assert th.equal(weights, other.policy.state_dict()[name]), name


def test_training_runs_during_a_step_and_callbacks_run_between_steps():
    _, diary = diary_of(4, Diarist(), learning_starts=1)
    plain = ["rollout_start", "step_async", "step_wait", "on_step", "rollout_end"]
    training = ["rollout_start", "step_async", "train 1", "step_wait", "on_step", "rollout_end"]
    assert diary == [*plain, *plain, *training, *training, "train 1", "training_end"]


def test_with_train_freq_4_updates_run_during_the_next_rollouts_first_step():
    model, diary = diary_of(12, learning_starts=3, train_freq=4, gradient_steps=-1)
    plain, step = ["step_async", "step_wait"], ["step_async", "train 4", "step_wait"]
    assert diary == [*(4 * plain), *step, *(3 * plain), *step, *(3 * plain), "train 4"]
    assert model._n_updates == 12


def test_with_train_freq_in_episodes_the_updates_run_during_the_next_episodes_first_step():
    _, diary = diary_of(40, train_freq=(1, "episode"), gradient_steps=3)
    trainings = [index for index, event in enumerate(diary) if event == "train 3"]
    # An episode has 17 steps. The first ends before learning starts. No step follows the third.
    assert trainings == [2 * 34 + 1, len(diary) - 1]
    assert diary[trainings[0] - 1 : trainings[0] + 2] == ["step_async", "train 3", "step_wait"]


FREQUENCIES = {
    "every step": {},
    "every third step": {"train_freq": 3, "gradient_steps": 2},
    "as many as steps": {"train_freq": 4, "gradient_steps": -1},
    "every episode": {"train_freq": (1, "episode"), "gradient_steps": -1},
    "never": {"gradient_steps": 0},
}


@pytest.mark.parametrize("case", FREQUENCIES)
def test_with_a_frozen_actor_overlap_changes_neither_weights_nor_replay_buffer(case):
    """A policy that does not change collects the same transitions, so the critics must be the same."""
    models = []
    for overlap in (False, True):
        frozen = {"preset": "td3", "actor_lr": 0.0, "actor_cnn_lr": 0.0}
        model = model_on(AsyncVecEnv([ImageEnv]), overlap=overlap, **frozen, **FREQUENCIES[case])
        models.append(model.learn(60))
    stock, ours = models
    assert ours._n_updates == stock._n_updates
    assert (ours._n_updates > 0) == (case != "never")
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(stock.replay_buffer, name), getattr(ours.replay_buffer, name))
    assert_same_weights(stock, ours)


def test_an_action_is_chosen_with_the_weights_before_the_updates_during_its_step():
    """Compare with a loop that chooses an action, trains, and then steps."""
    ours = model_on(AsyncVecEnv([ImageEnv]), overlap=True, preset="td3").learn(50)

    env = AsyncVecEnv([ImageEnv])
    naive = model_on(env, preset="td3")
    naive._setup_learn(50, None)
    for step in range(50):
        action, buffer_action = naive._sample_action(naive.learning_starts)
        if step > naive.learning_starts:
            naive.train(1, naive.batch_size)
        new_obs, rewards, dones, infos = env.step(action)
        naive.num_timesteps += 1
        naive._store_transition(naive.replay_buffer, buffer_action, new_obs, rewards, dones, infos)
        naive._update_current_progress_remaining(naive.num_timesteps, 50)
    naive.train(1, naive.batch_size)
    assert ours._n_updates == naive._n_updates == 30
    np.testing.assert_array_equal(ours.replay_buffer.actions, naive.replay_buffer.actions)
    assert_same_weights(ours, naive)


def wrapped(env):
    return VecFrameStack(VecNormalize(VecMonitor(env), norm_obs=False, gamma=0.99), 2)


@pytest.mark.parametrize("wrap", [lambda env: env, wrapped], ids=["bare", "VecMonitor, VecNormalize, VecFrameStack"])
def test_the_same_seed_gives_the_same_weights_with_processes_and_noise(wrap):
    models = []
    for _ in range(2):
        env = wrap(subproc(n_envs=2))
        model = model_on(env, overlap=True, noise_schedule="lin_0.5_0.1")
        models.append(model.learn(60))
        env.close()
    one, other = models
    assert one._n_updates == 20
    np.testing.assert_array_equal(one.replay_buffer.actions, other.replay_buffer.actions)
    np.testing.assert_array_equal(one.replay_buffer.rewards, other.replay_buffer.rewards)
    assert_same_weights(one, other)


def test_the_fake_environment_behaves_like_a_real_process():
    models = [model_on(env, overlap=True).learn(50) for env in (AsyncVecEnv([ImageEnv]), subproc())]
    assert_same_weights(*models)
    models[1].env.close()


class LocalsOfTheLastStep(BaseCallback):
    def _on_training_start(self):
        self.names_at_start = set(self.locals)

    def _on_step(self):
        self.names = set(self.locals)
        assert self.locals["self"] is self.model
        assert self.locals["num_collected_steps"] == 1
        assert self.locals["dones"].shape == self.locals["rewards"].shape == (1,)
        assert self.locals["new_obs"].shape == (1, 4, 36, 36)
        assert self.locals["env"].unwrapped is self.training_env.unwrapped
        self.n_updates = self.model._n_updates
        return True


def test_callbacks_see_the_same_local_names_and_update_count_as_without_overlap():
    callbacks = []
    for overlap in (False, True):
        callbacks.append(LocalsOfTheLastStep())
        model_on(AsyncVecEnv([ImageEnv]), overlap=overlap).learn(40, callback=callbacks[-1])
    stock, ours = callbacks
    assert {"new_obs", "rewards", "dones", "infos", "actions", "buffer_actions"} <= stock.names
    assert {"total_timesteps", "log_interval", "tb_log_name"} <= stock.names_at_start
    assert ours.names_at_start == stock.names_at_start
    assert ours.names == stock.names
    assert ours.n_updates == stock.n_updates == 19


class StopAt(BaseCallback):
    def __init__(self, step, error=None):
        super().__init__()
        self.step, self.error = step, error

    def _on_step(self):
        if self.num_timesteps == self.step and self.error is not None:
            raise self.error
        return self.num_timesteps < self.step


def assert_usable(env):
    """Check that the environment answers each call, and does not return the reply to an earlier call."""
    assert env.env_method("get_wrapper_attr", "episode_length") == [25]
    assert env.reset().shape == (1, 4, 36, 36)
    _, rewards, dones, _ = env.step(np.full((1, 2), 0.25, np.float32))
    assert rewards == [0.5]
    assert dones == [False]


ENVIRONMENTS = {"fake": lambda: AsyncVecEnv([ImageEnv]), "process": subproc}


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_training_leaves_the_environment_usable_and_no_false_transition(env, error):
    env = ENVIRONMENTS[env]()
    env.diary = []
    model = model_on(env, DiaryTD3, overlap=True)
    model.failing_at, model.error = 10, error
    with pytest.raises(error, match="from train"):
        model.learn(60)
    assert_usable(env)
    # The interrupted step is not in the buffer, so the next learn() must begin with a reset.
    n_before = model.replay_buffer.size()
    model.learn(1, reset_num_timesteps=False)
    first = model.replay_buffer.observations[n_before, 0]
    assert not (first == model.replay_buffer.next_observations[n_before - 1, 0]).all()
    env.close()


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_an_error_in_a_callback_leaves_the_environment_usable(env):
    env = ENVIRONMENTS[env]()
    model = model_on(env, overlap=True)
    with pytest.raises(RuntimeError, match="mine"):
        model.learn(60, callback=StopAt(30, RuntimeError("mine")))
    assert_usable(env)
    assert model._last_obs is None
    env.close()


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_a_callback_can_stop_training_without_breaking_the_environment_or_losing_updates(env):
    env = ENVIRONMENTS[env]()
    counts = []
    for overlap in (True, False):
        model = model_on(env, overlap=overlap)
        counts.append(model.learn(60, callback=StopAt(30))._n_updates)
        assert_usable(env)
    assert counts == [9, 9]
    env.close()


class SlowEnv(ImageEnv):
    def step(self, action):
        time.sleep(0.2)
        return super().step(action)


def test_an_interrupt_that_also_ends_the_simulator_stays_a_keyboard_interrupt():
    """Ctrl-C reaches all processes of the terminal. rl-zoo saves the model only after a KeyboardInterrupt."""
    env = SubprocVecEnv([SlowEnv], start_method="fork")

    class Interrupted(VisualTD3):
        def train(self, gradient_steps, batch_size=100):
            os.kill(env.processes[0].pid, signal.SIGKILL)
            env.processes[0].join()
            raise KeyboardInterrupt("from the terminal")

    with pytest.raises(KeyboardInterrupt, match="from the terminal"):
        model_on(env, Interrupted, overlap=True, learning_starts=1).learn(60)


def test_learning_continues_with_its_counters_and_in_another_environment():
    model = model_on(AsyncVecEnv([ImageEnv]), overlap=True).learn(30)
    model.learn(10, reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates) == (40, 20)
    model.set_env(AsyncVecEnv([lambda: ImageEnv(reward_scale=100.0)]))
    model.learn(10, reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates) == (50, 30)
    assert np.abs(model.replay_buffer.rewards[40:50]).max() > 2.0 >= np.abs(model.replay_buffer.rewards[:40]).max()


def test_an_environment_that_a_callback_sets_is_stepped_from_the_next_rollout_on():
    first, second = AsyncVecEnv([ImageEnv]), AsyncVecEnv([ImageEnv])

    class Replace(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 30:
                second.reset()
                self.model.set_env(second, force_reset=False)
            return True

    model = model_on(first, DiaryTD3, overlap=True).learn(40, callback=Replace())
    assert (first.diary.count("step_async"), second.diary.count("step_async")) == (30, 10)
    assert model._n_updates == 20


REFUSED = {
    "an environment": ImageEnv,
    "its name": lambda: "Pendulum-v1",
    "a DummyVecEnv": lambda: DummyVecEnv([ImageEnv]),
    "a DummyVecEnv in wrappers": lambda: wrapped(DummyVecEnv([ImageEnv])),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_environment_that_steps_in_this_process_is_refused_with_the_fix(case):
    with pytest.raises(ValueError, match=r"DummyVecEnv.*SubprocVecEnv.*--vec-env subproc"):
        model_on(REFUSED[case](), overlap=True)


def test_an_unsuitable_environment_set_later_is_refused_before_training():
    model = model_on(AsyncVecEnv([ImageEnv]), overlap=True)
    model.set_env(DummyVecEnv([ImageEnv]))
    callback = LocalsOfTheLastStep()
    with pytest.raises(ValueError, match="--vec-env subproc"):
        model.learn(10, callback=callback)
    assert not hasattr(callback, "model")
    assert model._last_obs is None


class ScalesRewardsInStep(VecEnvWrapper):
    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        return self.venv.step_wait()

    def step(self, actions):
        obs, rewards, dones, infos = self.venv.step(actions)
        return obs, 10.0 * rewards, dones, infos


def test_a_wrapper_that_overlap_would_bypass_is_refused():
    env = VecMonitor(ScalesRewardsInStep(AsyncVecEnv([ImageEnv])))
    with pytest.raises(ValueError, match=r"ScalesRewardsInStep has its own step\(\)"):
        model_on(env, overlap=True)


class ChannelsLastEnv(ImageEnv):
    observation_space = spaces.Box(0, 255, (36, 36, 4), np.uint8)


def test_wrappers_around_environments_in_processes_are_accepted():
    env = wrapped(VecTransposeImage(SubprocVecEnv([ChannelsLastEnv], start_method="fork")))
    try:
        model = model_on(env, overlap=True, learning_starts=2).learn(5)
        assert model._n_updates == 3
    finally:
        env.close()


def test_a_saved_model_overlaps_again_and_can_be_watched_anywhere(tmp_path):
    model = model_on(AsyncVecEnv([ImageEnv]), overlap=True).learn(30)
    model.save(tmp_path / "model")
    watched = VisualTD3.load(tmp_path / "model", env=ImageEnv(), device="cpu")
    observation = ImageEnv.observation_space.sample()
    np.testing.assert_array_equal(watched.predict(observation)[0], model.predict(observation)[0])
    with pytest.raises(ValueError, match="--vec-env subproc"):
        watched.learn(10)
    env = AsyncVecEnv([ImageEnv])
    loaded = DiaryTD3.load(tmp_path / "model", env=env, device="cpu")
    loaded.learn(25)
    assert env.diary[-4:] == ["step_async", "train 1", "step_wait", "train 1"]


def test_a_transition_is_stored_while_the_next_step_is_under_way_and_the_last_one_at_the_end(monkeypatch):
    env = AsyncVecEnv([ImageEnv])
    model = model_on(env, overlap=True)
    add, were_stepping = model.replay_buffer.add, []

    def watched_add(*arguments):
        were_stepping.append(env.is_stepping)
        add(*arguments)

    monkeypatch.setattr(model.replay_buffer, "add", watched_add)
    model.learn(40)
    assert were_stepping == [True] * 39 + [False]
    assert model.replay_buffer.size() == 40


def test_a_transition_is_stored_even_where_what_follows_it_fails():
    class Failing(BaseCallback):
        def _on_rollout_end(self):
            if self.num_timesteps == 30:
                raise RuntimeError("from a callback")

        def _on_step(self):
            return True

    model = model_on(AsyncVecEnv([ImageEnv]), overlap=True)
    with pytest.raises(RuntimeError, match="from a callback"):
        model.learn(40, callback=Failing())
    assert model.replay_buffer.size() == 30


def test_a_model_saved_during_training_has_no_pending_work(tmp_path):
    class Saving(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 30:
                self.model.save(tmp_path / "model")
            return True

    model_on(AsyncVecEnv([ImageEnv]), overlap=True).learn(40, callback=Saving())
    loaded = VisualTD3.load(tmp_path / "model", env=DummyVecEnv([ImageEnv]), custom_objects={"overlap": False})
    loaded.learn(10)
    assert loaded.replay_buffer.size() == 10
