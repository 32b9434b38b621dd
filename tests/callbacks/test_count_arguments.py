"""Test that callbacks and monitors take counts in any notation, and refuse everything else at once."""

from functools import partial

import numpy as np
import pytest

from sb3_visual_td3 import (
    DrivingEvalCallback,
    DrivingMetricsCallback,
    ExplosionAlertCallback,
    GradientNormCallback,
    PolicyEvalCallback,
    SnapshotCallback,
)
from sb3_visual_td3.callbacks.guard import Guard
from sb3_visual_td3.diagnosis.live import LiveWindow
from sb3_visual_td3.health.camera_monitor import CameraMonitor
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from sb3_visual_td3.health.reward_monitor import RewardMonitor

COUNTS = [
    (GradientNormCallback, "sample_freq"),
    (GradientNormCallback, "log_freq"),
    (ExplosionAlertCallback, "sample_freq"),
    (ExplosionAlertCallback, "check_freq"),
    (partial(Guard, "stop", 0.5), "max_actions"),
    (DrivingMetricsCallback, "log_freq"),
    (SnapshotCallback, "save_freq"),
    (SnapshotCallback, "keep"),
    (partial(PolicyEvalCallback, "Pendulum-v1"), "eval_freq"),
    (partial(PolicyEvalCallback, "Pendulum-v1"), "n_eval_episodes"),
    (partial(PolicyEvalCallback, "Pendulum-v1"), "seed"),
    (partial(DrivingEvalCallback, "Pendulum-v1", eval_env_kwargs={}), "eval_freq"),
    (partial(DrivingEvalCallback, "Pendulum-v1", eval_env_kwargs={}), "n_eval_episodes"),
    (partial(DrivingEvalCallback, "Pendulum-v1", eval_env_kwargs={}), "seed"),
    (GradientMonitor, "sample_freq"),
    (CameraMonitor, "sample_freq"),
    (RewardMonitor, "sample_freq"),
    (LiveWindow, "n_updates"),
]
each_count = pytest.mark.parametrize(
    ("make", "name"), COUNTS, ids=[f"{getattr(make, 'func', make).__name__}-{name}" for make, name in COUNTS]
)


@each_count
def test_a_count_in_any_notation_becomes_an_integer(make, name):
    # YAML reads 2e0 as text, and 2.0e+0 as a float.
    for count in (2, 2.0, "2e0", np.int64(2)):
        stored = getattr(make(**{name: count}), name)
        assert (stored, type(stored)) == (2, int)


@each_count
def test_a_value_that_is_not_a_count_is_refused_by_name(make, name):
    least = 0 if name == "seed" else 1
    for value in (least - 1, 2.5, True, "x", None):
        with pytest.raises(ValueError, match=f"^{name}={value!r}: expected an integer >= {least}$"):
            make(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("eval_freq", 2.5), ("n_eval_episodes", True)])
def test_changed_counts_of_an_evaluation_are_checked_too(name, value):
    callback = DrivingEvalCallback("Pendulum-v1", eval_env_kwargs={})
    with pytest.raises(ValueError, match=f"^{name}={value}: expected an integer >= 1$"):
        callback.configure(**{name: value})
    callback.configure(eval_freq="1e3", n_eval_episodes=2.0)
    assert (callback.eval_freq, callback.n_eval_episodes, callback.eval_env.num_envs) == (1000, 2, 2)


def test_thresholds_of_an_alert_may_be_text_and_the_critical_one_infinite():
    callback = ExplosionAlertCallback(warning="1e3", critical=np.float32(2e3), lr_factor="0.25")
    assert (callback.warning, callback.critical, callback.guard.lr_factor) == (1e3, 2e3, 0.25)
    assert ExplosionAlertCallback(critical=float("inf")).critical == float("inf")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"warning": 0}, "warning=0: expected a finite number above 0"),
        ({"warning": True}, "warning=True: expected a finite number above 0"),
        ({"warning": float("inf")}, "warning=inf: expected a finite number above 0"),
        ({"warning": 5, "critical": 5}, "critical=5: expected a number above warning=5"),
        ({"critical": "high"}, "critical='high': expected a number above warning=10000"),
        ({"critical": float("nan")}, "critical=nan: expected a number above warning=10000"),
    ],
)
def test_thresholds_out_of_order_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        ExplosionAlertCallback(**kwargs)
