"""Real training that fails in one way each: the live rules name it within a hundred updates of its onset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import ConstantSchedule

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.diagnosis.live import Finding, LiveWindow, judge
from sb3_visual_td3.health.camera_monitor import CameraMonitor
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from sb3_visual_td3.health.network_probe import NetworkProbe
from sb3_visual_td3.health.reward_monitor import RewardMonitor
from tests.image_env import ImageEnv
from tests.visual_td3.test_explosion import LeakyTD3

LEARNING_STARTS, CHECK_FREQ = 60, 50


class FailingEnv(ImageEnv):
    """Rewards and camera that can be made to fail while it runs. Which action is best depends on the image."""

    frozen = False

    def _image(self) -> np.ndarray:
        if not self.frozen:
            self._shown = super()._image()
        return self._shown

    def step(self, action: np.ndarray) -> Any:
        wanted = self._shown[:, :18].mean() > self._shown[:, 18:].mean()
        obs, _, terminated, truncated, info = super().step(action)
        reward = 1.0 - abs(float(action[0]) - (0.3 if wanted else -0.3))
        return obs, self.reward_scale * reward, terminated, truncated, info


class StaleTD3(VisualTD3):
    """Forgets its soft update from some update on."""

    stale_from = 10**9

    def soft_update(self) -> None:
        if self._n_updates < self.stale_from:
            super().soft_update()


class Watcher(BaseCallback):
    """What a callback does with the live side; breaks something at an update of its own."""

    def __init__(self, onset: int, break_it: Callable[[Any], None]) -> None:
        super().__init__()
        self.onset, self.break_it, self.is_broken = onset, break_it, False
        self.monitor = GradientMonitor(sample_freq=10, keep_points=True)
        self.camera, self.rewards, self.window = CameraMonitor(), RewardMonitor(), LiveWindow()
        self.findings: list[Finding] = []

    def _on_training_start(self) -> None:
        self.monitor.probe = NetworkProbe(self.model)  # type: ignore[arg-type]
        self.model.observers.append(self.monitor)  # type: ignore[attr-defined]

    def _on_step(self) -> bool:
        n_updates = self.model._n_updates
        self.camera.see(self.locals["new_obs"], n_updates)
        self.rewards.see(self.locals["rewards"], n_updates)
        if n_updates >= self.onset and not self.is_broken:
            self.is_broken = True
            self.break_it(self.model)
        if self.num_timesteps % CHECK_FREQ == 0:
            for source in ({**self.monitor.read_points(), **self.rewards.read_points()}, self.camera.read_points()):
                self.window.append(source)
            self.findings += judge(self.window.data)
        return True


def env_of(model: Any) -> FailingEnv:
    env = model.get_env().envs[0].unwrapped
    assert isinstance(env, FailingEnv)
    return env


def high_rate(model: Any) -> None:
    model.lr_schedule = ConstantSchedule(1.0)


def saturate(model: Any) -> None:
    with th.no_grad():
        model.actor.mu[-2].bias.fill_(30.0)


def nothing(model: Any) -> None:
    pass


# rule, level, class, what breaks at the onset, arguments
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


def trained(
    cls: type[VisualTD3], onset: int, break_it: Callable[[Any], None], n_updates: int, **kwargs: Any
) -> Watcher:
    settings = {"buffer_size": 500, "learning_starts": LEARNING_STARTS, "batch_size": 8, "device": "cpu", "seed": 0}
    model = cls("CnnPolicy", FailingEnv(), **{**settings, "preset": "td3", "learning_rate": 1e-4, **kwargs})
    watcher = Watcher(onset, break_it)
    model.learn(LEARNING_STARTS + n_updates, callback=watcher)
    return watcher


@pytest.mark.parametrize("name", CASES)
def test_each_failure_raises_its_own_alert_within_a_hundred_updates(name: str) -> None:
    rule, level, cls, break_it, kwargs = CASES[name]
    onset = 0 if break_it is nothing else 95
    watcher = trained(cls, onset, break_it, onset + 110, **kwargs)
    found = [finding for finding in watcher.findings if finding.rule == rule]
    assert found, {finding.rule for finding in watcher.findings}
    assert onset <= found[0].n_updates <= onset + 100
    assert level in {finding.level for finding in found}


def test_sound_training_raises_none_of_these() -> None:
    watcher = trained(VisualTD3, 0, nothing, 250)
    own = {rule for rule, *_ in CASES.values()} - {"actor_saturation"}
    assert [finding for finding in watcher.findings if finding.rule in own] == []
