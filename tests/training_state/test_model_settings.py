"""Test that a model's settings are recorded as plain data, and that an error names each changed setting."""

import functools
import json

import numpy as np
import pytest
import torch as th
from rl_zoo3.utils import linear_schedule
from stable_baselines3 import SAC, TD3, HerReplayBuffer
from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.common.schedules import Linear
from sb3_visual_td3.training_state.model_settings import check_settings, described_arguments
from tests.image_env import ImageEnv
from tests.training_state.small_envs import StatefulEnv

SMALL = {"buffer_size": 100, "batch_size": 4, "device": "cpu"}


def td3(**kwargs):
    settings = {"policy_kwargs": {"net_arch": [8], "activation_fn": th.nn.Tanh}, **SMALL, **kwargs}
    return TD3("MlpPolicy", StatefulEnv(), **settings)


def recorded(model):
    return json.loads(json.dumps(described_arguments(model)))


class MyTD3(TD3):
    """A subclass that hands its arguments on."""

    def __init__(self, *args, my_own=1.5, **kwargs):
        self.my_own = my_own
        super().__init__(*args, **kwargs)


def test_settings_are_plain_and_include_what_changes_numbers():
    settings = recorded(td3(learning_rate=1e-4, train_freq=(3, "step"), seed=5))
    assert settings["algorithm"] == "stable_baselines3.td3.td3.TD3"
    assert settings["policy"] == "stable_baselines3.td3.policies.TD3Policy"
    assert settings["learning_rate"] == 1e-4
    assert settings["train_freq"] == [3, "stable_baselines3.common.type_aliases.TrainFrequencyUnit.STEP"]
    assert settings["policy_kwargs"]["activation_fn"] == "torch.nn.modules.activation.Tanh"
    assert settings["replay_buffer_class"] == "stable_baselines3.common.buffers.ReplayBuffer"
    assert {"target_policy_noise", "policy_delay", "gamma", "tau", "buffer_size", "n_steps"} <= set(settings)
    assert not {"env", "device", "seed", "verbose", "tensorboard_log", "_init_setup_model"} & set(settings)


@pytest.mark.parametrize(
    "make",
    [
        td3,
        lambda: SAC("MlpPolicy", StatefulEnv(), use_sde=True, **SMALL),
        lambda: VisualTD3("CnnPolicy", ImageEnv(), actor_lr=Linear(1e-3), max_grad_norm={"actor": 1.0}, **SMALL),
        lambda: td3(learning_rate=linear_schedule(1e-3), action_noise=NormalActionNoise(np.zeros(2), np.ones(2))),
    ],
)
def test_a_model_with_equal_settings_passes(make):
    check_settings(recorded(make()), make())


def test_settings_include_own_and_inherited_arguments_of_a_subclass():
    settings = recorded(MyTD3("MlpPolicy", StatefulEnv(), **SMALL))
    assert settings["my_own"] == 1.5
    assert settings["gamma"] == 0.99


def test_every_difference_is_named_at_once():
    there = recorded(td3(learning_rate=1e-4))
    other = td3(learning_rate=3e-4, batch_size=8, policy_kwargs={"net_arch": [9], "activation_fn": th.nn.ReLU})
    with pytest.raises(
        ValueError, match="create the model with the settings of the snapshot, or start a new run"
    ) as error:
        check_settings(there, other)
    for line in (
        "learning_rate was 0.0001 in the snapshot, is 0.0003",
        "batch_size was 4 in the snapshot, is 8",
        "policy_kwargs.net_arch was [8] in the snapshot, is [9]",
        "policy_kwargs.activation_fn was 'torch.nn.modules.activation.Tanh' in the snapshot, "
        "is 'torch.nn.modules.activation.ReLU'",
    ):
        assert line in str(error.value)
    assert str(error.value).count(" was ") == 4


def test_another_algorithm_is_a_difference():
    with pytest.raises(ValueError, match=r"algorithm was 'stable_baselines3.td3.td3.TD3' in the snapshot, is '.*SAC'"):
        check_settings(recorded(td3()), SAC("MlpPolicy", StatefulEnv(), **SMALL))


def test_seed_and_logging_arguments_may_differ():
    check_settings(recorded(td3(seed=1, verbose=0)), td3(seed=2, verbose=0, stats_window_size=7, tensorboard_log="x"))


@pytest.mark.parametrize(
    ("schedule", "described"),
    [
        (Linear(1e-3, 1e-4), {"class": "sb3_visual_td3.common.schedules.Linear", "start": 1e-3, "end": 1e-4}),
        (linear_schedule(1e-3), {"class": "rl_zoo3.utils.SimpleLinearSchedule", "initial_value": 1e-3}),
        (
            FloatSchedule(ConstantSchedule(0.5)),
            {
                "class": "stable_baselines3.common.utils.FloatSchedule",
                "value_schedule": {"class": "stable_baselines3.common.utils.ConstantSchedule", "val": 0.5},
            },
        ),
    ],
)
def test_schedules_are_described(schedule, described):
    assert recorded(td3(learning_rate=schedule))["learning_rate"] == described


def test_two_schedules_of_one_class_differ_by_their_attributes():
    with pytest.raises(
        ValueError,
        match=r"learning_rate.end was 0.0 in the snapshot, is 0.1 now; "
        r"learning_rate.end_fraction was 1 in the snapshot, is 0.5",
    ):
        check_settings(
            recorded(td3(learning_rate=LinearSchedule(1e-3, 0.0, 1))),
            td3(learning_rate=LinearSchedule(1e-3, 0.1, 0.5)),
        )
    with pytest.raises(
        ValueError, match=r"learning_rate was LinearSchedule\(start=0.001, .*\) in the snapshot, is 0.001"
    ):
        check_settings(recorded(td3(learning_rate=LinearSchedule(1e-3, 0.0, 1))), td3(learning_rate=1e-3))


class Halving:
    def __init__(self):
        self.half = lambda x: x / 2

    def __call__(self, progress_remaining):
        return self.half(progress_remaining)


def schedule_of_a_module(progress_remaining):
    return progress_remaining


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        (
            {"learning_rate": lambda _: 1e-3},
            "learning_rate is a function, which a snapshot cannot describe: use a number",
        ),
        ({"learning_rate": schedule_of_a_module}, "learning_rate is a function"),
        ({"learning_rate": functools.partial(schedule_of_a_module)}, "learning_rate is a function"),
        ({"learning_rate": Halving()}, "learning_rate.half is a function"),
        (
            {"policy_kwargs": {"optimizer_class": functools.partial(th.optim.Adam)}},
            "policy_kwargs.optimizer_class is a f",
        ),
        (
            {"replay_buffer_kwargs": {"x": th.zeros(2)}},
            r"replay_buffer_kwargs.x is of type torch.Tensor, which a snapshot can",
        ),
    ],
)
def test_what_cannot_be_described_is_named(kwargs, text):
    model = td3(**{k: v for k, v in kwargs.items() if k != "replay_buffer_kwargs"})
    model.replay_buffer_kwargs = kwargs.get("replay_buffer_kwargs", {})
    with pytest.raises(ValueError, match=text):
        described_arguments(model)


def test_noise_is_the_same_before_and_after_learn_vectorizes_it():
    noise = NormalActionNoise(np.zeros(2), 0.1 * np.ones(2))
    model = td3(action_noise=noise)
    there = recorded(model)
    model.action_noise = VectorizedActionNoise(noise, 3)
    check_settings(there, model)
    with pytest.raises(ValueError, match=r"action_noise._sigma was \[0.1, 0.1\] in the snapshot, is \[0.2, 0.2\]"):
        check_settings(there, td3(action_noise=NormalActionNoise(np.zeros(2), 0.2 * np.ones(2))))


def test_replay_buffer_class_and_arguments_are_part_of_the_settings():
    model = td3()
    model.replay_buffer_class, model.replay_buffer_kwargs = HerReplayBuffer, {"goal_selection_strategy": "future"}
    assert recorded(model)["replay_buffer_class"] == "stable_baselines3.her.her_replay_buffer.HerReplayBuffer"
    with pytest.raises(
        ValueError, match=r"replay_buffer_kwargs.goal_selection_strategy was 'future' in the snapshot, is None"
    ):
        check_settings(recorded(model), td3())
