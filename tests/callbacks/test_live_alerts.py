"""Test that failing trainings raise alerts in time, and that monitoring does not change a training."""

import json
import math

import numpy as np
import pytest
import torch as th
from faulty_trainings import LeakyTD3
from gymnasium import spaces
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import ConstantSchedule

from sb3_visual_td3 import ExplosionAlertCallback, GradientNormCallback, VisualTD3
from sb3_visual_td3.callbacks.alerts import Alert
from sb3_visual_td3.callbacks.explosion_alert import broken_step
from sb3_visual_td3.common import tags
from tests.callbacks.event_files import scalars_in
from tests.image_env import ImageEnv
from tests.training_state.small_envs import StatefulEnv

LEARNING_STARTS = 60


class FailingEnv(ImageEnv):
    """Let a test change the reward scale or freeze the camera image during the training.

    Which action is best depends on the image.
    """

    frozen = False

    def _image(self):
        if not self.frozen:
            self._shown = super()._image()
        return self._shown

    def step(self, action):
        wanted = self._shown[:, :18].mean() > self._shown[:, 18:].mean()
        obs, _, terminated, truncated, info = super().step(action)
        reward = 1.0 - abs(float(action[0]) - (0.3 if wanted else -0.3))
        return obs, self.reward_scale * reward, terminated, truncated, info


class StaleTD3(VisualTD3):
    """Stops updating its target networks after ``stale_from`` updates."""

    stale_from = 10**9

    def soft_update(self):
        if self._n_updates < self.stale_from:
            super().soft_update()


class Breaks(BaseCallback):
    """Calls ``break_it`` once, when the model has made ``onset`` updates."""

    def __init__(self, onset, break_it):
        super().__init__()
        self.onset, self.break_it, self.is_broken = onset, break_it, False

    def _on_step(self):
        if self.model._n_updates >= self.onset and not self.is_broken:
            self.is_broken = True
            self.break_it(self.model)
        return True


def env_of(model):
    env = model.get_env().envs[0].unwrapped
    assert isinstance(env, FailingEnv)
    return env


def high_rate(model):
    model.lr_schedule = ConstantSchedule(1.0)


def saturate(model):
    with th.no_grad():
        model.actor.mu[-2].bias.fill_(30.0)


def nothing(model):
    pass


# Each case has a rule, a level, a class, a function that breaks the training at the onset, and arguments.
CASES = {
    "leak": ("feature_leak", "critical", LeakyTD3, nothing, {}),
    "lr of 1": ("learning_rate_too_high", "critical", VisualTD3, high_rate, {}),
    "lr of 1 from the start": ("learning_rate_too_high", "critical", VisualTD3, nothing, {"learning_rate": 1.0}),
    "reward x1000": ("reward_scale", "warning", VisualTD3, lambda m: setattr(env_of(m), "reward_scale", 1e3), {}),
    "NaN reward": ("non_finite", "critical", VisualTD3, lambda m: setattr(env_of(m), "reward_scale", np.nan), {}),
    "frozen camera": ("dead_camera", "warning", VisualTD3, lambda m: setattr(env_of(m), "frozen", True), {}),
    "saturated actor": ("actor_saturation", "critical", VisualTD3, saturate, {}),
    "stale targets": ("stale_target_network", "critical", StaleTD3, lambda m: setattr(m, "stale_from", 0), {}),
}


def alerts_in(folder):
    path = folder / "alerts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def train(folder, cls, onset, break_it, n_updates, **kwargs):
    settings = {"buffer_size": 500, "learning_starts": LEARNING_STARTS, "batch_size": 8, "device": "cpu", "seed": 0}
    kwargs = {**settings, "preset": "td3", "learning_rate": 1e-4, "tensorboard_log": str(folder / "tb"), **kwargs}
    model = cls("CnnPolicy", FailingEnv(), **kwargs)
    callbacks = [GradientNormCallback(), Breaks(onset, break_it), ExplosionAlertCallback(verbose=0)]
    model.learn(LEARNING_STARTS + n_updates, callback=callbacks)


@pytest.mark.parametrize("name", CASES)
def test_each_failure_raises_its_own_alert_within_a_hundred_updates(tmp_path, name):
    rule, level, cls, break_it, kwargs = CASES[name]
    onset = 0 if break_it is nothing else 95
    train(tmp_path, cls, onset, break_it, onset + 110, **kwargs)
    found = [alert for alert in alerts_in(tmp_path) if alert["rule"] == rule and alert["level"] == level]
    assert found
    # One update follows each step, so this counts updates as well.
    assert LEARNING_STARTS + onset <= found[0]["step"] <= LEARNING_STARTS + onset + 100
    assert found[0]["meaning"]
    points = scalars_in(tmp_path)[tags.alert_of_rule(rule)]
    assert (found[0]["step"], 1.0) in points
    assert {value for step, value in points if step < LEARNING_STARTS + onset} <= {0.0}


def test_healthy_training_raises_no_failure_alert_other_than_actor_saturation(tmp_path):
    train(tmp_path, VisualTD3, 0, nothing, 250)
    rules = {rule for rule, *_ in CASES.values()} - {"actor_saturation"}
    assert [alert for alert in alerts_in(tmp_path) if alert["rule"] in rules] == []


class BreakingEnv(StatefulEnv):
    """Returns one non-finite reward or observation at step ``bad_step``."""

    bad_step, bad_part = 30, "reward"
    n_total = 0

    def step(self, action):
        observation, reward, *rest = super().step(action)
        self.n_total += 1
        if self.n_total == self.bad_step:
            if self.bad_part == "reward":
                reward = math.nan
            else:
                observation = np.array([0.0, np.inf, 0.0], np.float32)
        return observation, reward, *rest


class BreakingDictEnv(BreakingEnv):
    observation_space = spaces.Dict({"state": StatefulEnv.observation_space})

    def reset(self, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return {"state": observation}, info

    def step(self, action):
        observation, *rest = super().step(action)
        return {"state": observation}, *rest


@pytest.mark.parametrize(
    ("policy", "env", "part", "words"),
    [
        ("MlpPolicy", BreakingEnv, "reward", "the reward is nan"),
        ("MlpPolicy", BreakingEnv, "observation", "the observation holds inf"),
        ("MultiInputPolicy", BreakingDictEnv, "observation", "the observation 'state' holds inf"),
    ],
)
def test_a_non_finite_reward_or_observation_ends_the_training_at_that_step(tmp_path, capsys, policy, env, part, words):
    broken = env()
    broken.bad_part = part
    model = VisualTD3(policy, broken, learning_starts=10, batch_size=4, buffer_size=100, seed=0, device="cpu")
    model.learn(200, callback=ExplosionAlertCallback(run_dir=tmp_path))
    assert model.num_timesteps == 30
    (alert,) = [alert for alert in alerts_in(tmp_path) if alert["rule"] == "non_finite"]
    assert (alert["step"], alert["level"]) == (30, "critical")
    assert words in alert["meaning"]
    assert "CRITICAL at step 30: non_finite" in capsys.readouterr().out
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


def test_a_non_finite_loss_ends_the_training_and_is_named_in_the_alert(tmp_path):
    def break_it(model):
        with th.no_grad():
            model.critic.qf0[-1].bias.fill_(math.nan)

    settings = {"learning_starts": 20, "batch_size": 4, "buffer_size": 300, "seed": 0, "device": "cpu"}
    model = VisualTD3("CnnPolicy", ImageEnv(), policy_kwargs={"net_arch": [8]}, **settings)
    model.learn(300, callback=[Breaks(40, break_it), ExplosionAlertCallback(run_dir=tmp_path, verbose=0)])
    # The model breaks in step 61. Update 41 follows and shows it, so the next step is the last.
    assert model.num_timesteps == 62
    assert all(np.isfinite(action).all() for action in model.replay_buffer.actions)
    (meaning,) = [alert["meaning"] for alert in alerts_in(tmp_path) if alert["rule"] == "non_finite"]
    assert meaning.startswith("train/critic_loss is nan at update 41; training stops; ")


def test_alerts_are_standard_json():
    alert = Alert(5, "reward_scale", "warning", math.inf, math.nan, "meaning")
    assert json.loads(alert.to_json(), parse_constant=pytest.fail)["value"] == "inf"
    assert json.loads(alert.to_json())["threshold"] is None
    assert alert.line() == "WARNING at step 5: reward_scale: meaning"
    assert "is 12.35 (threshold 1e+04)" in alert._replace(value=12.3456, threshold=10_000.0).line()


SMALL = {"learning_starts": 20, "batch_size": 8, "buffer_size": 200, "seed": 0, "device": "cpu"}
STOCK = {
    "TD3 pixels": lambda **kwargs: TD3("CnnPolicy", ImageEnv(), **SMALL, **kwargs),
    "SAC pixels": lambda **kwargs: SAC("CnnPolicy", ImageEnv(), **SMALL, **kwargs),
    "DDPG": lambda **kwargs: DDPG("MlpPolicy", StatefulEnv(), **SMALL, **kwargs),
    "TQC": lambda **kwargs: TQC("MlpPolicy", StatefulEnv(), **SMALL, **kwargs),
    "CrossQ": lambda **kwargs: CrossQ("MlpPolicy", StatefulEnv(), **SMALL, **kwargs),
    "VisualTD3": lambda **kwargs: VisualTD3("CnnPolicy", ImageEnv(), **SMALL, **kwargs),
    "VisualTD3 separate": lambda **kwargs: VisualTD3(
        "CnnPolicy", ImageEnv(), policy_kwargs={"encoder": "separate"}, **SMALL, **kwargs
    ),
}


@pytest.mark.parametrize("name", STOCK)
def test_monitoring_changes_no_weight_and_logs_finite_gradient_norms(tmp_path, name):
    plain = STOCK[name]()
    plain.learn(70)
    watched = STOCK[name](tensorboard_log=str(tmp_path))
    callbacks = [GradientNormCallback(sample_freq=3, log_freq=20), ExplosionAlertCallback(sample_freq=3, verbose=0)]
    watched.learn(70, callback=callbacks)
    for (key, one), other in zip(plain.policy.state_dict().items(), watched.policy.state_dict().values(), strict=True):
        assert th.equal(one, other), key
    scalars = scalars_in(tmp_path)
    norms = {tag: points for tag, points in scalars.items() if tag in tags.GRADIENT_NORM.values()}
    groups = 2 if "Mlp" in type(watched.policy).__name__ or name in {"DDPG", "TQC", "CrossQ"} else 3
    assert len(norms) >= groups
    assert all(math.isfinite(value) for points in norms.values() for _, value in points)
    seen_by_optimizer = {value for _, value in scalars[tags.SEEN_BY_OPTIMIZER]}
    assert seen_by_optimizer == {0.0 if name.startswith("VisualTD3") else 1.0}


def test_logged_norms_of_sac_equal_those_of_its_gradients(tmp_path):
    """The expected norms come from the gradients at each step of SAC's optimizer."""
    model = STOCK["SAC pixels"](tensorboard_log=str(tmp_path))
    by_hand = {"critic_cnn": [], "critic_mlp": []}

    def take(group, parameters):
        by_hand[group].append(math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in parameters)))

    def before(optimizer, _args, _kwargs):
        if optimizer is model.critic.optimizer:
            cnn = list(model.critic.features_extractor.parameters())
            mine = {id(parameter) for parameter in cnn}
            owned = [p for group in optimizer.param_groups for p in group["params"]]
            if any(id(p) in mine for p in owned):
                take("critic_cnn", cnn)
            take("critic_mlp", [p for p in owned if id(p) not in mine])

    handle = model.critic.optimizer.register_step_pre_hook(before)
    model.learn(60, callback=GradientNormCallback(sample_freq=1, log_freq=20))
    handle.remove()
    scalars = scalars_in(tmp_path)
    # The point of a step is written before the update of this step. The first update follows step 21.
    for group in ("critic_cnn", "critic_mlp"):
        points = scalars[tags.GRADIENT_NORM[group]]
        assert [step for step, _ in points] == [40, 60]
        assert len(by_hand[group]) == 40
        assert points[0][1] == pytest.approx(np.mean(by_hand[group][:19]), rel=1e-6)
        assert points[1][1] == pytest.approx(np.mean(by_hand[group][19:39]), rel=1e-6)


def test_training_again_after_an_interrupt_leaves_no_observer_attached(make_model):
    class Stops(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 30:
                raise KeyboardInterrupt
            return True

    model = make_model()
    with pytest.raises(KeyboardInterrupt):
        model.learn(60, callback=[GradientNormCallback(), ExplosionAlertCallback(), Stops()])
    model.learn(60, callback=[GradientNormCallback(), ExplosionAlertCallback()])
    assert model.observers == []


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({}, None),
        ({"rewards": [0.5, float("inf")]}, "the reward is inf, which would make every target non-finite"),
        ({"new_obs": [[0.0], [float("nan")]]}, "the observation holds nan"),
    ],
)
def test_a_step_may_consist_of_lists(step, words):
    found = broken_step({"actions": np.zeros((2, 1)), "new_obs": [[0], [1]], "rewards": [1.0, 2.0], **step})
    assert (None if found is None else found.words) == words
