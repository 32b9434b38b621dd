"""Test that an argument of ``load()`` changes all values that are derived from it, or raises an error."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.type_aliases import TrainFrequencyUnit
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_visual_td3 import FrameReplayBuffer, RunRecorderCallback, VisualTD3
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer
from sb3_visual_td3.visual_td3.exploration import ScheduledActionNoise
from tests.image_env import ImageEnv, VectorImageEnv


class SayingEnv(ImageEnv):
    def __init__(self, frame_stack=4):
        super().__init__()
        self.frame_stack = frame_stack


def envs(n, env=ImageEnv):
    return DummyVecEnv([env] * n)


@pytest.fixture
def saved(make_model, tmp_path):
    """Return ``save``, which saves a model and returns ``load``; ``load`` loads this model with other arguments."""

    def save(policy="CnnPolicy", env=ImageEnv, n_envs=1, algorithm=None, **kwargs):
        if algorithm is TD3:
            settings = {"buffer_size": 300, "learning_starts": 20, "batch_size": 8, "device": "cpu", **kwargs}
            model = TD3(policy, envs(n_envs, env), **settings)
        else:
            model = make_model(policy, envs(n_envs, env), **kwargs)
        model.learn(24)
        model.save(tmp_path / "model")

        def load(n_envs=n_envs, env=env, **requested):
            return VisualTD3.load(tmp_path / "model", env=envs(n_envs, env), device="cpu", **requested)

        return load

    return save


def discounts_of(model):
    model.learn(30)
    return set(model.replay_buffer.sample(64).discounts.flatten().tolist())


@pytest.mark.parametrize("algorithm", [VisualTD3, TD3])
def test_none_for_replay_buffer_kwargs_means_no_arguments(saved, algorithm):
    model = saved(algorithm=algorithm, n_steps=3)(replay_buffer_kwargs=None)
    assert model.replay_buffer.n_steps == 3
    model.learn(24)


@pytest.mark.parametrize("algorithm", [VisualTD3, TD3])
@pytest.mark.parametrize("preset", ["visual", "td3"])
def test_the_requested_discount_reaches_the_n_step_returns(saved, algorithm, preset):
    kwargs = {} if algorithm is TD3 else {"preset": preset}
    model = saved(algorithm=algorithm, n_steps=3, gamma=0.99, **kwargs)(gamma=0.9)
    assert min(discounts_of(model)) == pytest.approx(0.9**3)
    assert model.replay_buffer_kwargs["gamma"] == model.replay_buffer.gamma == 0.9


@pytest.mark.parametrize(("policy", "env"), [("CnnPolicy", ImageEnv), ("MultiInputPolicy", VectorImageEnv)])
@pytest.mark.parametrize("preset", ["visual", "td3"])
@pytest.mark.parametrize("change", [(3, 1), (1, 3), (3, 2)])
def test_requested_n_steps_replace_the_saved_ones(saved, policy, env, preset, change):
    before, after = change
    model = saved(policy, env, n_steps=before, preset=preset)(n_steps=after)
    assert getattr(model.replay_buffer, "n_steps", 1) == model.n_steps == after
    if preset == "td3" and after == 1:
        assert type(model.replay_buffer) is (ReplayBuffer if policy == "CnnPolicy" else DictReplayBuffer)
    if preset == "td3" and after > 1:
        assert type(model.replay_buffer) is (NStepReplayBuffer if policy == "CnnPolicy" else NStepDictReplayBuffer)


def test_requested_values_stay_when_a_model_is_saved_again(saved, tmp_path):
    model = saved(n_steps=3)(n_steps=2, gamma=0.5)
    model.save(tmp_path / "again")
    again = VisualTD3.load(tmp_path / "again", env=ImageEnv(), device="cpu")
    assert (again.replay_buffer.n_steps, again.replay_buffer.gamma) == (2, 0.5)
    assert VisualTD3.load(tmp_path / "again", env=ImageEnv(), device="cpu", n_steps=1).replay_buffer.n_steps == 1


def test_gamma_and_n_steps_given_to_load_apply_to_files_of_earlier_versions(saved, tmp_path):
    load = saved(n_steps=3, gamma=0.99)
    model = load()
    del model._asked_for
    model.save(tmp_path / "model")
    model = load(gamma=0.9, n_steps=2)
    assert (model.replay_buffer.n_steps, model.replay_buffer.gamma) == (2, 0.9)
    assert type(model.replay_buffer) is FrameReplayBuffer


def test_given_buffer_arguments_are_kept_and_a_contradiction_is_refused(saved):
    load = saved(replay_buffer_kwargs={"gamma": 0.5}, n_steps=3)
    assert load().replay_buffer.gamma == 0.5
    with pytest.raises(ValueError, match=r"load\(\) was given gamma=0.9.*replay_buffer_kwargs=\{'gamma': 0.5\}"):
        load(gamma=0.9)
    assert load(gamma=0.9, replay_buffer_kwargs={}).replay_buffer.gamma == 0.9


def test_another_discount_resets_the_range_of_targets(saved):
    load = saved(gamma=0.99)
    assert load()._target_range.upper > 0
    assert load(gamma=0.99)._target_range.upper > 0
    assert load(gamma=0.5)._target_range.upper == 0
    assert load(n_steps=3)._target_range.upper == 0


def test_the_noise_follows_the_requested_schedule(saved):
    load = saved(noise_schedule="lin_0.8_0.4")
    assert load().action_noise.sigma == pytest.approx(0.4)  # the schedule's value at the end of training
    assert load(noise_schedule=0.1).action_noise.sigma == 0.1
    assert load(preset="td3").action_noise is not None  # the user gave the schedule
    assert saved()(preset="td3").action_noise is None  # the preset gave the schedule
    chosen = load(action_noise=NormalActionNoise(np.zeros(2), np.ones(2)))
    assert isinstance(chosen.action_noise, NormalActionNoise)


def test_a_requested_preset_changes_no_network(saved):
    model = saved()(preset="td3")
    described = model.describe()
    assert described["preset"].value == "td3"
    assert described["random_shift"] == (0, "td3")
    assert described["policy_kwargs.encoder"] == ("shared", "saved model")
    model.learn(24)
    stock = saved(algorithm=TD3)(preset="visual")
    assert stock.describe()["random_shift"] == (4, "visual")
    stock.learn(24)


def test_policy_kwargs_given_to_load_must_equal_the_saved_ones(saved):
    load = saved(policy_kwargs={"trunk_dim": 16})
    assert load(policy_kwargs={"trunk_dim": 16}).describe()["policy_kwargs.trunk_dim"] == (16, "argument")
    assert load().describe()["policy_kwargs.encoder"] == ("shared", "visual")
    with pytest.raises(ValueError, match="specified policy kwargs do not equal"):
        load(policy_kwargs={"trunk_dim": 8})


@pytest.mark.parametrize(
    ("requested", "words"),
    [
        ({"gama": 0.9}, "load.. was given gama=0.9.*did you mean gamma"),
        ({"policy": "MlpPolicy"}, r"load\(\) was given policy='MlpPolicy'.*VisualCnnPolicy"),
        ({"actor_cnn_lr": 1e-4}, "actor_cnn_lr=0.0001 has no effect"),
        ({"tau": 2.0}, "tau=2.0: expected a finite number from 0 to 1"),
        ({"overlap": True}, "overlap=True on a DummyVecEnv"),
    ],
)
def test_arguments_that_cannot_take_effect_are_refused(saved, requested, words):
    with pytest.raises(ValueError, match=words):
        saved()(**requested)


def test_load_applies_a_new_learning_rate_train_freq_and_stats_window_size(saved):
    model = saved()(
        stats_window_size=7, policy="CnnPolicy", learning_rate=2e-4, actor_lr="lin_1e-4", train_freq=(2, "step")
    )
    model.learn(30)
    assert model.ep_info_buffer.maxlen == 7
    assert model.learning_rates["critic_mlp"] == 2e-4
    assert model.train_freq.frequency == 2


@pytest.mark.parametrize("told", [None, 2])
def test_the_depth_of_a_stack_is_that_of_the_environment_at_hand(saved, told):
    load = saved(env=SayingEnv, **({} if told is None else {"replay_buffer_kwargs": {"frame_stack": told}}))
    assert load().replay_buffer.frame_stack == (told or 4)
    assert load(env=lambda: SayingEnv(2)).replay_buffer.frame_stack == 2
    assert load(env=ImageEnv).replay_buffer.frame_stack == (told or 4)  # ImageEnv has no frame_stack


def test_run_json_holds_the_values_in_force(saved, tmp_path):
    import json

    model = saved(n_steps=3)(gamma=0.9, n_steps=2)
    model.learn(5, callback=RunRecorderCallback(tmp_path / "run"))
    told = json.loads((tmp_path / "run" / "run.json").read_text())["hyperparams"]
    assert (told["gamma"], told["n_steps"]) == (model.replay_buffer.gamma, model.replay_buffer.n_steps) == (0.9, 2)


NOISES = {
    "scheduled": lambda: {},
    "none": lambda: {"preset": "td3"},
    "normal": lambda: {"action_noise": NormalActionNoise(np.zeros(2), 0.1 * np.ones(2))},
    "walk": lambda: {"action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(2), 0.1 * np.ones(2))},
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("change", [(4, 1), (4, 2), (1, 3), (2, 2)])
def test_a_model_continues_in_any_number_of_environments(saved, noise, change):
    before, after = change
    model = saved(n_envs=before, **NOISES[noise]())(n_envs=after)
    model.learn(24)
    assert model.n_envs == model.replay_buffer.n_envs == after
    if noise != "none":
        vectorised = isinstance(model.action_noise, VectorizedActionNoise)
        assert vectorised == (after > 1)
        assert np.shape(model.action_noise()) == ((after, 2) if after > 1 else (2,))
    if noise == "scheduled":
        base = model.action_noise.noises[-1] if after > 1 else model.action_noise
        assert isinstance(base, ScheduledActionNoise)


@pytest.mark.parametrize("after", [1, 2])
def test_training_does_not_continue_from_an_observation_of_other_environments(saved, after):
    model = saved(n_envs=3)(n_envs=after, force_reset=False)
    model.learn(10, reset_num_timesteps=False)
    assert len(model._last_obs) == after


@pytest.mark.parametrize("change", [(1, 3), (3, 1), (3, 2)])
def test_set_env_rearranges_the_replay_buffer_for_another_number_of_environments(make_model, change):
    before, after = change
    model = make_model(env=envs(before), n_steps=3)
    model.learn(48)
    rewards = sorted(model.replay_buffer.rewards[: model.replay_buffer.size()].ravel().tolist())
    model.set_env(envs(after))
    kept = model.replay_buffer.rewards[: model.replay_buffer.size()].ravel().tolist()
    assert len(kept) == 48 // after * after
    assert set(kept) <= set(rewards)
    model.learn(24, reset_num_timesteps=False)
    assert model.replay_buffer.n_envs == after


def test_under_the_td3_preset_set_env_is_that_of_stable_baselines3(make_model):
    with pytest.raises((AssertionError, ValueError), match="number of environments"):
        make_model(preset="td3").set_env(envs(2))


@pytest.fixture
def replay_file(make_model, tmp_path):
    def write(policy="CnnPolicy", env=ImageEnv, n_envs=1, **kwargs):
        model = make_model(policy, envs(n_envs, env), **kwargs).learn(24)
        model.save_replay_buffer(tmp_path / "replay.pkl")
        return tmp_path / "replay.pkl"

    return write


class SmallerEnv(ImageEnv):
    observation_space = spaces.Box(0, 255, (3, 40, 36), np.uint8)


class ThreeActionsEnv(ImageEnv):
    action_space = spaces.Box(-1, 1, (3,), np.float32)


@pytest.mark.parametrize("preset", ["visual", "td3"])
@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"env": SmallerEnv}, r"holds observations \(3, 40, 36\) uint8: expected \(4, 36, 36\) uint8"),
        ({"env": ThreeActionsEnv}, r"holds actions \(3,\) float32: expected \(2,\) float32"),
        ({"n_envs": 2}, "n_envs=2.*expected n_envs=1"),
        ({"policy": "MultiInputPolicy", "env": VectorImageEnv}, r"camera: \(4, 36, 36\) uint8, state: .*: expected"),
    ],
)
def test_a_replay_file_that_does_not_fit_is_refused_and_the_old_buffer_stays(
    make_model, replay_file, preset, written, words
):
    path = replay_file(preset=preset, **written)
    model = make_model(preset=preset).learn(24)
    before = model.replay_buffer
    with pytest.raises(ValueError, match=words):
        model.load_replay_buffer(path)
    assert model.replay_buffer is before
    model.learn(5, reset_num_timesteps=False)


@pytest.mark.parametrize("preset", ["visual", "td3"])
def test_a_loaded_replay_buffer_uses_the_models_n_steps_and_gamma(make_model, replay_file, preset):
    path = replay_file(preset=preset, n_steps=5, gamma=0.5)
    model = make_model(preset=preset, n_steps=3, gamma=0.9)
    model.load_replay_buffer(path)
    assert (model.replay_buffer.n_steps, model.replay_buffer.gamma) == (3, 0.9)
    assert min(discounts_of(model)) == pytest.approx(0.9**3)


def test_a_replay_file_without_n_step_returns_is_refused_if_the_model_needs_them(make_model, replay_file):
    path = replay_file(preset="td3")
    with pytest.raises(ValueError, match=r"ReplayBuffer in the file cannot compute n-step returns \(n_steps=3\)"):
        make_model(n_steps=3).load_replay_buffer(path)


def test_a_replay_file_of_another_number_of_environments_is_rearranged_on_request(make_model, replay_file):
    path = replay_file(n_envs=2)
    model = make_model(env=envs(3))
    model.load_replay_buffer(path, any_n_envs=True)
    assert (model.replay_buffer.n_envs, model.replay_buffer.size()) == (3, 8)
    model.learn(30, reset_num_timesteps=False)


def test_a_buffer_set_by_hand_is_checked_before_training(make_model):
    model = make_model()
    model.replay_buffer = FrameReplayBuffer(20, SmallerEnv.observation_space, model.action_space)
    with pytest.raises(ValueError, match=r"\(3, 40, 36\) uint8: expected \(4, 36, 36\) uint8"):
        model.learn(5)


USUAL_NUMBERS = {
    "buffer_size": 3e2,
    "learning_starts": np.float64(20),
    "batch_size": np.int64(8),
    "n_steps": 3.0,
    "policy_delay": np.int32(2),
    "gradient_steps": 1.0,
    "tau": np.float32(0.005),
    "gamma": 1,
    "train_freq": np.int64(2),
    "random_shift": np.int64(4),
    "max_grad_norm": np.float32(10),
    "pre_tanh_penalty": np.float32(0.01),
    "target_q_clamp": 100,
    "seed": np.int64(3),
    "stats_window_size": 10.0,
    "learning_rate": np.float32(1e-3),
    "actor_lr": np.float64(1e-3),
    "policy_kwargs": {"trunk_dim": np.int64(16), "n_critics": 2},
    "replay_buffer_kwargs": {"frame_stack": np.int64(4)},
}


def test_numbers_of_any_type_are_accepted(make_model, tmp_path):
    model = make_model(**USUAL_NUMBERS)
    model.learn(30, callback=RunRecorderCallback(tmp_path / "run"))
    assert type(model.buffer_size) is type(model.n_steps) is type(model.batch_size) is int
    assert (model.replay_buffer.frame_stack, model.replay_buffer.n_steps) == (4, 3)
    model.save(tmp_path / "model")
    VisualTD3.load(tmp_path / "model", env=ImageEnv(), device="cpu", batch_size="4", buffer_size="1e2").learn(24)


def test_numbers_of_any_type_give_the_same_training(make_model):
    plain = {
        "buffer_size": 300,
        "batch_size": 8,
        "n_steps": 3,
        "train_freq": (2, "step"),
        "tau": 0.25,
        "max_grad_norm": 10,
        "policy_kwargs": {"n_critics": 2},
    }
    usual = {"buffer_size": 3e2, "batch_size": 8.0, "n_steps": np.int8(3), "train_freq": [2.0, "step"], "tau": "0.25"}
    usual["policy_kwargs"] = {"n_critics": "2e0"}
    one, other = make_model(**plain).learn(30), make_model(**usual, max_grad_norm=np.int64(10)).learn(30)
    for a, b in zip(one.policy.state_dict().values(), other.policy.state_dict().values(), strict=True):
        assert th.equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"buffer_size": 1.5}, "buffer_size=1.5: expected an integer >= 1"),
        ({"batch_size": True}, "batch_size=True: expected an integer >= 1"),
        ({"batch_size": 0}, "batch_size=0: expected"),
        ({"n_steps": 2.5}, "n_steps=2.5: expected an integer >= 1"),
        ({"n_steps": np.bool_(True)}, "n_steps=.*True.*: expected an integer >= 1"),
        ({"policy_delay": 0}, "policy_delay=0: expected an integer >= 1"),
        ({"gradient_steps": "many"}, "gradient_steps='many': expected an integer"),
        ({"learning_starts": np.nan}, "learning_starts=nan: expected an integer"),
        ({"train_freq": 0}, "train_freq=0: expected an integer >= 1"),
        ({"train_freq": (1, "epoch")}, "train_freq=.*epoch.*: expected an integer"),
        ({"train_freq": 2.5}, "train_freq=2.5: expected an integer"),
        ({"gamma": 1.1}, "gamma=1.1: expected a finite number from 0 to 1"),
        ({"tau": True}, "tau=True: expected a finite number from 0 to 1"),
        ({"target_policy_noise": -1}, "target_policy_noise=-1: expected a finite number >= 0"),
        ({"seed": 1.5}, "seed=1.5: expected an integer >= 0"),
        ({"replay_buffer_kwargs": {"frame_stack": 1.5}}, "replay_buffer_kwargs: frame_stack=1.5: expected"),
        ({"policy_kwargs": {"trunk_dim": 16.5}}, "trunk_dim=16.5: expected an integer >= 1"),
        ({"policy_kwargs": {"trunk_dim": True}}, "trunk_dim=True: expected an integer >= 1"),
        ({"policy_kwargs": {"n_critics": 1.5}}, "n_critics=1.5: expected an integer >= 1"),
        ({"policy_kwargs": {"n_critics": 0}}, "n_critics=0: expected an integer >= 1"),
    ],
)
def test_a_value_that_is_no_number_is_refused_at_construction(make_model, arguments, words):
    with pytest.raises(ValueError, match=words):
        make_model(**arguments)


def test_a_train_freq_in_episodes_is_refused_for_several_environments(make_model):
    with pytest.raises(ValueError, match=r"train_freq=.*episode.* with 2 environments"):
        make_model(env=envs(2), train_freq=(1, "episode"))


def test_a_model_with_a_train_freq_in_episodes_is_loaded_but_not_trained_in_several_environments(make_model, tmp_path):
    message = r"train_freq=\(1, 'episode'\) with 2 environments"
    model = make_model(env=envs(1), train_freq=(1, "episode")).learn(20)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", env=envs(2), device="cpu")
    assert loaded.predict(loaded.env.reset())[0].shape[0] == 2
    with pytest.raises(ValueError, match=message):
        loaded.learn(20)
    with pytest.raises(ValueError, match=message):
        VisualTD3.load(tmp_path / "model", env=envs(2), device="cpu", train_freq=(1, "episode"))
    model.set_env(envs(2))
    with pytest.raises(ValueError, match=message):
        model.learn(20)
    VisualTD3.load(tmp_path / "model", env=envs(2), device="cpu", train_freq=1).learn(20)
    loaded.train_freq = 2
    loaded.learn(20)
    assert loaded.train_freq == (2, TrainFrequencyUnit.STEP)
    loaded.train_freq = 0
    with pytest.raises(ValueError, match="train_freq=0: expected an integer >= 1"):
        loaded.learn(20)
