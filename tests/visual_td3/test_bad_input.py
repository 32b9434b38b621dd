"""A user's mistake raises a ValueError before training; the message has the value, the expectation and the remedy."""

import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.torch_layers import NatureCNN

from sb3_visual_td3 import VisualTD3
from tests.image_env import ImageEnv, VectorImageEnv

RATES = ["learning_rate", "actor_lr", "critic_lr", "actor_cnn_lr", "critic_cnn_lr"]
NO_RATES = [
    -1e-4,
    math.nan,
    math.inf,
    -math.inf,
    True,
    False,
    np.bool_(True),
    "nan",
    "-1e-4",
    "inf",
    "lin_nan",
    "lin_1e-4_-1",
    "",
    [1e-4],
]


@pytest.mark.parametrize("preset", ["td3", "visual"])
@pytest.mark.parametrize("name", RATES)
def test_an_invalid_learning_rate_is_refused(make_model, name, preset):
    for value in NO_RATES:
        with pytest.raises(ValueError, match=f"{name}=.* is not a schedule: expected a finite number >= 0") as caught:
            make_model(preset=preset, policy_kwargs={"encoder": "separate"}, **{name: value})
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("value", ["foo_1e-4", "lin", "lin_1_2_3", "cos_fast"])
def test_an_unknown_schedule_is_refused_with_the_known_ones(make_model, name, value):
    with pytest.raises(ValueError, match=f"{name}='{value}'.*'lin_3e-4'.*'cos_3e-4'"):
        make_model(policy_kwargs={"encoder": "separate"}, **{name: value})


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("start", [math.nan, -1e-4, math.inf])
def test_a_callable_whose_first_value_is_no_rate_is_refused(make_model, name, start):
    with pytest.raises(ValueError, match=f"{name} returns {start} at the start of training"):
        make_model(policy_kwargs={"encoder": "separate"}, **{name: lambda progress: start})


def test_a_learning_rate_that_sb3_rejects_also_raises_its_assertion_error(make_model):
    with pytest.raises(AssertionError, match="learning_rate"):
        make_model("MlpPolicy", "Pendulum-v1", learning_rate="foo_1e-4")


def test_rates_that_stock_td3_accepts_are_accepted(make_model, tmp_path):
    for rate in (0.0, 0, np.float64(1e-3), lambda progress: np.float32(1e-3) * progress):
        TD3("CnnPolicy", ImageEnv(), learning_rate=rate, buffer_size=10, device="cpu")
        model = make_model(preset="td3", learning_rate=rate)
        model.save(tmp_path / "model")
        loaded = VisualTD3.load(tmp_path / "model", device="cpu", learning_rate=0.0)
        assert set(loaded.learning_rates.values()) == {0.0}


@pytest.mark.parametrize("value", ["lin_1e-3", "cos_1e-3", "1e-3"])
def test_the_common_learning_rate_may_be_a_string(make_model, value):
    model = make_model(learning_rate=value)
    assert model.lr_schedule(1.0) == 1e-3
    assert model.lr_schedule(0.5) == pytest.approx(1e-3 if value == "1e-3" else 5e-4)
    assert model.describe()["actor_lr"] == (1e-3 if value == "1e-3" else value, "learning_rate")


LIMITS = [0, 0.0, -1.0, math.nan, math.inf, True, "one", None]


@pytest.mark.parametrize("limit", LIMITS)
def test_an_invalid_max_grad_norm_is_refused(make_model, limit):
    for max_grad_norm in ([limit] if limit is not None else []) + [{"critic": limit}, {"actor_mlp": limit}]:
        with pytest.raises(ValueError, match=f"max_grad_norm: .*={limit!r}: expected a finite number above 0"):
            make_model(max_grad_norm=max_grad_norm)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"max_grad_norm": {"critics": 1.0}}, "'critics' is neither a network .actor, critic. nor a group"),
        ({"max_grad_norm": {"actor_cnn": 1.0}}, "'actor_cnn'.*actor_mlp, critic_cnn, critic_mlp"),
        ({"preset": "best"}, "preset='best': expected one of 'td3', 'visual'"),
        ({"preset": ["visual"]}, "preset=.*expected one of"),
        ({"grad_clip": "value"}, "grad_clip='value': expected one of 'norm', 'adaptive'"),
        ({"actor_objective": "max"}, "actor_objective='max': expected one of 'q1', 'min', 'mean'"),
        ({"critic_loss": "l1"}, "critic_loss='l1': expected one of 'mse', 'huber'"),
        ({"pre_tanh_penalty": math.nan}, "pre_tanh_penalty=nan: expected a finite number >= 0"),
        ({"pre_tanh_penalty": math.inf}, "pre_tanh_penalty=inf"),
        ({"pre_tanh_penalty": True}, "pre_tanh_penalty=True"),
        ({"target_q_clamp": math.nan}, "target_q_clamp=nan: expected True, False or a finite number above 0"),
        ({"target_q_clamp": math.inf}, "target_q_clamp=inf"),
        ({"target_q_clamp": "on"}, "target_q_clamp='on'"),
        ({"random_shift": 1.5}, "random_shift=1.5: expected an integer >= 0"),
        ({"random_shift": -1}, "random_shift=-1"),
        ({"noise_schedule": "foo_1"}, "noise_schedule='foo_1' is not a schedule"),
        ({"noise_schedule": math.nan}, "noise_schedule=nan is not a schedule"),
        ({"noise_correlation": 1.0}, "noise_correlation=1.0: expected a correlation >= 0 .0 is off. and < 1"),
        ({"noise_correlation": -0.1}, "noise_correlation=-0.1"),
        ({"noise_correlation": 0.8, "preset": "td3"}, "noise_correlation=0.8 has no effect without noise_schedule"),
        ({"noise_correlation": math.nan}, "noise_correlation=nan"),
        ({"noise_correlation": True}, "noise_correlation=True"),
        ({"actor_cnn_lr": 1e-4}, "actor_cnn_lr=0.0001 has no effect.*use critic_cnn_lr"),
        ({"policy_kwargs": {"encoder": "both"}}, "encoder='both': expected 'separate' or 'shared'"),
        (
            {"policy_kwargs": {"encoder_arch": "resnet"}},
            "encoder_arch='resnet': expected 'nature', 'drq' or a subclass",
        ),
        ({"policy_kwargs": {"trunk": 50}}, "policy_kwargs: unknown trunk; expected only keys among .*trunk_dim"),
        ({"policy_kwargs": {"lr_schedule": 1}}, "policy_kwargs: unknown lr_schedule"),
    ],
)
@pytest.mark.parametrize("policy", ["CnnPolicy", "MultiInputPolicy"])
def test_an_impossible_setting_is_refused_by_name(make_model, policy, kwargs, words):
    with pytest.raises(ValueError, match=words):
        make_model(policy, ImageEnv() if policy == "CnnPolicy" else VectorImageEnv(), **kwargs)


@pytest.mark.parametrize("name", ["actor_cnn_lr", "critic_cnn_lr"])
def test_an_encoder_rate_for_vector_observations_is_refused(make_model, name):
    with pytest.raises(ValueError, match=f"{name}=0.0001 has no effect.*MlpPolicy has no encoders"):
        make_model("MlpPolicy", "Pendulum-v1", **{name: 1e-4})


def test_a_users_policy_class_may_accept_any_keyword(make_model):
    class OwnPolicy(VisualTD3.policy_aliases["CnnPolicy"]):
        def __init__(self, *args, **kwargs):
            self.colour = kwargs.pop("colour")
            super().__init__(*args, **kwargs)

    assert make_model(OwnPolicy, policy_kwargs={"colour": "red"}).policy.colour == "red"


class ShapedEnv(ImageEnv):
    def __init__(self, observation_space=None, action_space=None):
        super().__init__()
        self.observation_space = observation_space or self.observation_space
        self.action_space = action_space or self.action_space


STACK = spaces.Box(0, 255, (4, 36, 36, 3), np.uint8)


MIXED = {"a": spaces.Box(0, 255, (36, 40, 3), np.uint8), "b": spaces.Box(0, 255, (3, 36, 40), np.uint8)}


@pytest.mark.parametrize("preset", [None, "td3"])
def test_an_error_about_an_observation_says_nothing_of_actions(preset):
    with pytest.raises(ValueError, match=r"observation|channel|transpose") as caught:
        VisualTD3("MultiInputPolicy", ShapedEnv(spaces.Dict(MIXED)), buffer_size=10, device="cpu", preset=preset)
    assert "action" not in str(caught.value).lower()
    with pytest.raises(ValueError, match="use DQN"):
        VisualTD3("CnnPolicy", ShapedEnv(action_space=spaces.MultiDiscrete([2, 3])), buffer_size=10, preset=preset)


@pytest.mark.parametrize(
    ("policy", "env", "words"),
    [
        ("CnnPolicy", lambda: ShapedEnv(STACK), r"\(4, 36, 36, 3\), with a separate axis.*VecFrameStack"),
        ("MultiInputPolicy", lambda: ShapedEnv(spaces.Dict({"camera": STACK})), "camera has .*VecFrameStack"),
        ("CnnPolicy", lambda: ShapedEnv(action_space=spaces.Discrete(3)), r"Discrete\(3\).*use DQN"),
        ("MlpPolicy", lambda: gym.make("CartPole-v1"), r"Discrete\(2\).*Box with finite bounds"),
        ("MlpPolicy", lambda: ShapedEnv(action_space=spaces.Box(-np.inf, np.inf, (2,))), "finite"),
        ("CnnPolicy", lambda: gym.make("Pendulum-v1"), "NatureCNN|image"),
        ("CnnPolicy", VectorImageEnv, "MultiInputPolicy"),
    ],
)
@pytest.mark.parametrize("preset", [None, "td3"])
def test_an_environment_that_does_not_fit_is_refused(policy, env, words, preset):
    with pytest.raises(ValueError, match=words):
        VisualTD3(policy, env(), buffer_size=10, device="cpu", preset=preset)


@pytest.mark.parametrize(
    ("space", "advice"),
    [
        (spaces.Box(0, 1, (36, 36, 3), np.float32), "return uint8 images, .*normalize_images=False"),
        (spaces.Box(0, 1, (36, 36, 3), np.uint8), "declare images as uint8 with the bounds 0 and 255"),
        (spaces.Box(0, 255, (36, 36, 3), np.int32), "declare images as uint8 with the bounds 0 and 255"),
        (spaces.Box(-1, 1, (4,)), "for a vector, use MlpPolicy"),
        (spaces.Box(0, 255, (36, 48), np.uint8), r"keep a channel axis, such as \(36, 48, 1\)"),
        (spaces.Box(0, 1, (2, 36, 36, 3)), "expected three axes"),
        (spaces.Discrete(4), "for a vector, use MlpPolicy"),
    ],
)
def test_observations_that_a_cnn_cannot_read_are_refused_in_one_line(space, advice):
    with pytest.raises(ValueError, match=rf"a CNN reads images: .* The observation space is .*: .*{advice}") as error:
        VisualTD3("CnnPolicy", ShapedEnv(space), buffer_size=10, device="cpu")
    assert "\n" not in str(error.value)
    assert "http" not in str(error.value)


@pytest.mark.parametrize("preset", ["visual", "td3"])
def test_multi_input_policy_names_the_policy_that_reads_the_observations(preset):
    with pytest.raises(ValueError, match=r"MultiInputPolicy reads Dict observations, .*uint8\): use CnnPolicy"):
        VisualTD3("MultiInputPolicy", ImageEnv(), buffer_size=10, preset=preset)
    with pytest.raises(ValueError, match=r"MultiInputPolicy reads Dict observations, .*: use MlpPolicy"):
        VisualTD3("MultiInputPolicy", "Pendulum-v1", buffer_size=10, preset=preset)
    VisualTD3(
        "MultiInputPolicy",
        ImageEnv(),
        buffer_size=10,
        policy_kwargs={"features_extractor_class": NatureCNN},
        preset=preset,
        device="cpu",
    )
