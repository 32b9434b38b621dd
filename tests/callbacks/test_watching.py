"""Test who observes a model's updates: during a training, after an exception, and with several callbacks."""

import gc
import json
import math
import weakref

import numpy as np
import pytest
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback

from sb3_visual_td3 import ExplosionAlertCallback, GradientNormCallback
from sb3_visual_td3.common import tags
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from tests.callbacks.event_files import scalars_in

LOSSES = {tags.ACTOR_LOSS, tags.CRITIC_LOSS}


class Interrupts(BaseCallback):
    """Interrupt the training at its step 40, after the first updates."""

    def _on_step(self):
        if self.num_timesteps == 40:
            raise KeyboardInterrupt
        return True


class Records:
    """An observer that has a method ``first``, and nothing to do with NaN."""

    def __init__(self):
        self.n_seen = 0

    def first(self):
        return None

    def after_backward(self, update):
        self.n_seen += 1

    def after_clipping(self, update):
        pass

    def after_step(self, update):
        pass


@pytest.fixture
def small(make_model):
    """Return a function that creates a small model, which raises an error for NaN (``preset="td3"`` does not)."""
    policy_kwargs = {"net_arch": [8], "encoder": "separate", "trunk_dim": None}
    settings = {"preset": "visual", "policy_kwargs": policy_kwargs}
    return lambda **kwargs: make_model("MlpPolicy", "Pendulum-v1", **settings, **kwargs)


def interrupt(model, *callbacks):
    with pytest.raises(KeyboardInterrupt):
        model.learn(60, callback=[*callbacks, Interrupts()])


@pytest.mark.parametrize("frequencies", [(10, 10), (5, 7)])
def test_after_an_exception_only_the_users_observers_remain(small, frequencies):
    model, own = small(), Records()
    model.observers.append(own)
    interrupt(model, GradientNormCallback(frequencies[0]), ExplosionAlertCallback(sample_freq=frequencies[1]))
    assert model.observers == [own]


def test_after_an_exception_a_nan_is_an_error_again(small):
    model = small()
    interrupt(model, ExplosionAlertCallback(verbose=0))
    model.replay_buffer.rewards[:] = np.nan
    with pytest.raises(ValueError, match="The sampled rewards hold nan"):
        model.learn(60, reset_num_timesteps=False)


def test_after_an_exception_new_callbacks_measure_the_new_training(small, tmp_path):
    model = small(tensorboard_log=str(tmp_path))
    interrupt(model, ExplosionAlertCallback(verbose=0))
    model.learn(60, callback=GradientNormCallback(log_freq=20), tb_log_name="second")
    (second,) = tmp_path.glob("second*")
    assert set(scalars_in(second)) >= LOSSES
    assert model.observers == []


def stock_td3():
    return TD3("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=8, policy_kwargs={"net_arch": [8]})


def test_after_an_exception_a_stock_algorithm_is_not_measured_any_more():
    model, alert = stock_td3(), ExplosionAlertCallback(sample_freq=1, verbose=0)
    interrupt(model, alert)
    alert._watch.finite.first()
    alert._watch.read_points()
    model.learn(60)
    assert alert._watch.finite.first() is None
    assert alert._watch.monitor.n_updates == 0
    assert not alert._watch.finite._seen


@pytest.mark.parametrize("make_stock", [False, True])
def test_an_interrupted_model_is_freed(small, make_stock):
    model = stock_td3() if make_stock else small()
    interrupt(model, GradientNormCallback(), ExplosionAlertCallback(verbose=0))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("observer", [Records, GradientMonitor])
def test_losses_are_logged_unless_a_callback_logs_them(small, tmp_path, observer):
    model = small(tensorboard_log=str(tmp_path))
    model.observers.append(observer())
    model.learn(600, callback=ExplosionAlertCallback(verbose=0), log_interval=1)
    assert set(scalars_in(tmp_path)) >= LOSSES


def test_an_unrelated_observer_with_a_method_first_does_not_suppress_the_error(small):
    model = small()
    model.learn(30)
    model.observers.append(Records())
    model.replay_buffer.rewards[:] = np.nan
    with pytest.raises(ValueError, match="The sampled rewards hold nan"):
        model.learn(60, reset_num_timesteps=False)


def test_two_alert_callbacks_each_see_every_measurement(small, tmp_path):
    model = small()
    first, second = (
        ExplosionAlertCallback(limit, math.inf, run_dir=tmp_path / name, verbose=0)
        for limit, name in ((1e-9, "first"), (1e9, "second"))
    )
    model.learn(200, callback=[first, GradientNormCallback(), second])
    assert model.observers == []
    rules = {json.loads(line)["rule"] for line in (tmp_path / "first" / "alerts.jsonl").read_text().splitlines()}
    assert rules >= {"gradient_explosion:actor_mlp", "gradient_explosion:critic_mlp"}
    assert first.window.data.names() == second.window.data.names()


def test_an_alert_callback_that_is_used_again_announces_its_alerts_again(small, tmp_path):
    alert = ExplosionAlertCallback(1e-9, 1e-6, run_dir=tmp_path, verbose=0)
    n_lines = []
    for _ in range(2):
        small().learn(120, callback=alert)
        n_lines.append(len((tmp_path / "alerts.jsonl").read_text().splitlines()))
    assert n_lines[0] > 0
    assert n_lines[1] == 2 * n_lines[0]


@pytest.mark.parametrize("callback", [GradientNormCallback, ExplosionAlertCallback])
def test_a_second_end_of_training_changes_nothing(small, callback):
    """rl-zoo calls on_training_end() of the first callback again."""
    model, first = small(), callback()
    model.learn(60, callback=first)
    first.on_training_end()
    assert model.observers == []


def test_the_end_after_an_exception_attaches_no_observer(small):
    model, first = small(), GradientNormCallback()
    interrupt(model, first, ExplosionAlertCallback(verbose=0))
    first.on_training_end()
    assert model.observers == []


def test_a_monitor_that_is_attached_to_another_model_measures_it(small):
    monitor = GradientMonitor(1)
    for n_steps in (60, 40):
        model = small()
        model.observers.append(monitor)
        model.learn(n_steps)
        assert tags.GRADIENT_NORM["critic_mlp"] in monitor.read()
