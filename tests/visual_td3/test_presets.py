import inspect
import warnings

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.visual_td3.exploration import ScheduledActionNoise
from sb3_visual_td3.visual_td3.presets import PRESETS, Settings
from tests.image_env import ImageEnv, VectorImageEnv
from tests.visual_td3.test_bad_input import ShapedEnv


def test_images_choose_the_visual_preset_and_vectors_stock_td3(make_model):
    assert make_model().describe()["preset"] == ("visual", "observation space")
    assert make_model("MultiInputPolicy", VectorImageEnv()).describe()["preset"].value == "visual"
    assert make_model("MlpPolicy", "Pendulum-v1").describe()["preset"].value == "td3"
    assert make_model(preset="td3").describe()["preset"] == ("td3", "argument")


FLOATS, IMAGES = spaces.Box(0, 1, (3, 36, 36), np.float32), spaces.Box(0, 255, (3, 36, 36), np.uint8)


@pytest.mark.parametrize(
    ("policy", "space", "is_warned"),
    [
        ("CnnPolicy", FLOATS, True),
        ("MultiInputPolicy", spaces.Dict({"camera": FLOATS, "speed": spaces.Box(-1, 1, (2,))}), True),
        (
            "MultiInputPolicy",
            spaces.Dict({"camera": IMAGES, "depth": FLOATS}),
            False,
        ),
        ("MultiInputPolicy", spaces.Dict({"grid": spaces.Box(0, 1, (8, 8, 2))}), False),
        ("MlpPolicy", FLOATS, False),
    ],
    ids=["floats", "floats in a Dict", "another camera", "a small grid", "MlpPolicy"],
)
def test_float_images_that_turn_the_visual_preset_off_are_a_warning(make_model, tmp_path, policy, space, is_warned):
    def build(**settings):
        kwargs = {"normalize_images": False} if policy == "CnnPolicy" else {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = make_model(policy, ShapedEnv(space), policy_kwargs=kwargs, buffer_size=10, **settings)
        return model, [str(each.message) for each in caught if "default preset is 'td3'" in str(each.message)]

    model, told = build()
    assert len(told) == is_warned
    assert build(preset="td3")[1] == []
    model.save(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        VisualTD3.load(tmp_path / "model", device="cpu")


def test_describe_lists_the_arguments_of_td3(make_model):
    described = make_model(gamma=0.9, train_freq=(2, "episode"), overlap=False).describe()
    assert described["gamma"] == (0.9, "argument")
    assert described["train_freq"] == ((2, "episode"), "argument")
    assert described["tau"] == (0.005, "td3")
    missing = inspect.signature(TD3).parameters.keys() - described.keys()
    assert missing == {
        "policy", "env", "action_noise", "replay_buffer_kwargs", "stats_window_size", "tensorboard_log",
        "policy_kwargs", "verbose", "seed", "device", "_init_setup_model",
    }  # fmt: skip
    assert make_model().describe()["train_freq"] == (1, "td3")


def test_describe_names_settings_that_are_not_used(make_model):
    noise = NormalActionNoise(np.zeros(2), np.ones(2))
    env = VecNormalize(DummyVecEnv([ImageEnv]), norm_obs=False)
    described = make_model(env=env, action_noise=noise).describe()
    assert described["scale_rewards"] == (True, "not used: VecNormalize scales the rewards")
    assert described["action_noise"] == (noise, "argument")
    assert described["noise_schedule"] == ("lin_0.5_0.1", "not used: action_noise")
    assert make_model(preset="td3").describe()["action_noise"] == (None, "td3")


def test_an_argument_wins_over_the_preset(make_model):
    described = make_model(random_shift=0, policy_kwargs={"trunk_dim": 32}).describe()
    assert described["random_shift"] == (0, "argument")
    assert described["policy_kwargs.trunk_dim"] == (32, "argument")
    assert described["policy_kwargs.encoder"] == ("shared", "visual")
    assert described["critic_loss"] == ("mse", "td3")


def test_policy_kwargs_are_merged_into_a_copy(make_model):
    own = {"trunk_dim": 32}
    make_model(policy_kwargs=own)
    assert own == {"trunk_dim": 32}


def test_describe_gives_the_learning_rates_and_where_they_come_from(make_model):
    described = make_model(learning_rate=1e-3, critic_cnn_lr="lin_2e-4").describe()
    assert described["actor_lr"] == (1e-3, "learning_rate")
    assert described["critic_cnn_lr"] == ("lin_2e-4", "argument")


def test_describe_prints_as_a_table(make_model):
    described = make_model(learning_rate=1e-3).describe()
    assert isinstance(described, dict)
    lines = str(described).splitlines()
    assert len(lines) == len(described) + 1
    assert lines[0].split() == ["setting", "value", "from"]
    row = next(line for line in lines if line.startswith("actor_lr "))
    assert row.split() == ["actor_lr", "0.001", "learning_rate"]
    # The columns are aligned: the value starts under its heading.
    assert row.index("0.001") == lines[0].index("value")
    assert repr(described) == str(described)


def test_stock_td3_has_every_extra_off():
    assert PRESETS["td3"] == Settings()


@pytest.mark.parametrize(
    "kwargs",
    [
        {"preset": "best"},
        {"actor_objective": "max"},
        {"critic_loss": "l1"},
        {"pre_tanh_penalty": -1.0},
        {"target_q_clamp": -1.0},
        {"target_q_clamp": 0.0},
        {"noise_schedule": "sin_1"},
        {"policy_kwargs": {"trunk_dim": 0}},
        {"policy_kwargs": {"encoder_arch": "resnet"}},
    ],
)
def test_a_value_out_of_range_is_refused_by_name(make_model, kwargs):
    ((name, value),) = kwargs.items()
    if isinstance(value, dict):
        ((name, _),) = value.items()
    with pytest.raises(ValueError, match=name):
        make_model(**kwargs)


def test_the_noise_follows_its_schedule(make_model):
    model = make_model(noise_schedule="lin_0.5_0.1")
    assert isinstance(model.action_noise, ScheduledActionNoise)
    assert model.action_noise.sigma == 0.5
    model.learn(40)
    assert model.action_noise.sigma == pytest.approx(0.1)


def test_the_noise_has_the_described_standard_deviation():
    np.random.seed(0)
    draws = np.array([ScheduledActionNoise(2, 0.3)() for _ in range(4000)])
    assert draws.shape == (4000, 2)
    assert draws.std() == pytest.approx(0.3, rel=0.05)


def test_correlated_noise_keeps_the_standard_deviation_and_is_independent_between_episodes():
    np.random.seed(0)
    noise = ScheduledActionNoise(2, 0.3, correlation=0.8)
    draws = np.array([noise() for _ in range(20_000)])
    assert draws.dtype == np.float32
    assert draws.std(axis=0) == pytest.approx([0.3, 0.3], rel=0.05)
    for lag in (1, 3):
        correlations = [np.corrcoef(column[:-lag], column[lag:])[0, 1] for column in draws.T]
        assert correlations == pytest.approx([0.8**lag, 0.8**lag], abs=0.05)
    first = []
    for _ in range(2_000):
        noise.reset()
        first.append(noise())
    assert np.std(first) == pytest.approx(0.3, rel=0.05)
    assert np.corrcoef(np.array(first)[:-1, 0], np.array(first)[1:, 0])[0, 1] == pytest.approx(0.0, abs=0.07)


def test_each_environment_has_correlated_noise_of_its_own(make_model):
    model = make_model(env=DummyVecEnv([ImageEnv] * 2), noise_correlation=0.9)
    model.learn(40)
    first, second = model.action_noise.noises
    assert (first.correlation, second.correlation) == (0.9, 0.9)
    assert (first.unscaled != second.unscaled).all()


def test_a_noise_of_your_own_is_left_alone(make_model):
    own = NormalActionNoise(np.zeros(2), 0.2 * np.ones(2))
    model = make_model(action_noise=own)
    model.learn(40)
    assert model.action_noise is own
    assert (own._sigma == 0.2).all()


def test_describe_shows_the_learning_rate_schedule_for_each_group_without_its_own_rate(make_model):
    described = make_model(learning_rate="lin_2e-4", critic_cnn_lr=1e-5).describe()
    assert described["actor_lr"] == ("lin_2e-4", "learning_rate")
    assert described["critic_lr"] == ("lin_2e-4", "learning_rate")
    assert described["critic_cnn_lr"] == (1e-5, "argument")
