"""Test that our callbacks write the same values if their state is restored in the middle of a window."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor

from sb3_visual_td3 import (
    DrivingEvalCallback,
    DrivingMetricsCallback,
    ExplosionAlertCallback,
    GradientNormCallback,
    RunRecorderCallback,
)
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import HasState, NetworkUpdate
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from sb3_visual_td3.runs.manifest import RunManifest
from tests.callbacks.event_files import scalars_in
from tests.image_env import ImageEnv
from tests.plain_data import read_back


class MovedCallback(BaseCallback):
    """At some steps, replaces its inner callback by a new one that gets the same state."""

    def __init__(self, make, moments):
        super().__init__()
        self.make, self.moments = make, moments
        self.inner = make()

    def _init_callback(self):
        self.inner.init_callback(self.model)

    def _on_training_start(self):
        self.inner.on_training_start(self.locals, self.globals)

    def _on_step(self):
        goes_on = self.inner.on_step()
        if self.num_timesteps in self.moments:
            self.move()
        return goes_on

    def move(self):
        assert isinstance(self.inner, HasState)
        state = read_back(self.inner.get_state())
        self.inner = self.make()
        self.inner.init_callback(self.model)
        self.inner.on_training_start(self.locals, self.globals)
        self.inner.set_state(state)

    def update_child_locals(self, locals_):
        self.inner.update_locals(locals_)

    def _on_training_end(self):
        self.inner.on_training_end()


def trained(make_model, folder, make_callback, moments, n=110, **kwargs):
    model = make_model(tensorboard_log=str(folder / "tb"), **kwargs)
    model.learn(n, callback=MovedCallback(make_callback, moments))
    return {tag: points for tag, points in scalars_in(folder).items() if not tag.startswith("time/")}


def assert_same_scalars(one, other):
    assert one.keys() == other.keys()
    for tag, points in other.items():
        assert [step for step, _ in one[tag]] == [step for step, _ in points], tag
        np.testing.assert_array_equal([value for _, value in one[tag]], [value for _, value in points], tag)


@pytest.mark.parametrize(("preset", "moments"), [("visual", {57}), ("td3", {1, 33, 34, 71, 90})])
def test_logged_norms_are_the_same_after_a_resume(make_model, tmp_path, preset, moments):
    def make():
        return GradientNormCallback(sample_freq=3, log_freq=20)

    expected = trained(make_model, tmp_path / "a", make, set(), preset=preset)
    assert len(expected[tags.CRITIC_LOSS]) == 5
    assert_same_scalars(trained(make_model, tmp_path / "b", make, moments, preset=preset), expected)


def test_an_active_alert_is_not_announced_again_after_a_resume(make_model, tmp_path):
    def run(name, moments):
        folder = tmp_path / name
        make = lambda: ExplosionAlertCallback(check_freq=20, sample_freq=3, verbose=0)  # noqa: E731
        env = ImageEnv(reward_scale=1e4)
        return trained(make_model, folder, make, moments, env=env, preset="td3"), (folder / "alerts.jsonl").read_text()

    expected, alerts = run("a", set())
    assert max(value for _, value in expected[tags.ALERT_CRITICAL]) == 1.0
    found, alerts_found = run("b", {49, 60, 73})
    assert_same_scalars(found, expected)
    assert alerts_found == alerts


def lite_env(n_steps=30):
    return Monitor(gym.make("LiteDriving-v0", max_episode_steps=n_steps))


def test_driving_metrics_are_the_same_after_a_resume_within_an_episode(make_model, tmp_path):
    def make():
        return DrivingMetricsCallback(log_freq=20)

    def run(name, moments):
        # The model makes no updates, because the logged values do not depend on them.
        return trained(make_model, tmp_path / name, make, moments, env=lite_env(), learning_starts=10_000)

    expected = run("a", set())
    assert len(expected[tags.EPISODE_LENGTH]) >= 3
    assert len({value for _, value in expected[tags.PROGRESS_EPISODE_STEPS]}) > 1
    assert_same_scalars(run("b", {10, 15, 44, 77}), expected)


def test_another_number_of_environments_is_refused():
    callback = DrivingMetricsCallback()
    callback._episode_steps = np.zeros(2, int)
    state = {"episode_steps": np.zeros(1, int)}
    with pytest.raises(ValueError, match=r"\(1,\) int64: expected \(2,\)"):
        callback.set_state(state)


def test_logged_evaluations_are_the_same_after_a_resume(make_model, tmp_path):
    callbacks = []

    def make():
        kwargs = {"maps": "held_out", "max_episode_steps": 15}
        callback = DrivingEvalCallback(eval_env_kwargs=kwargs, eval_freq=30, n_eval_episodes=2, verbose=0)
        callbacks.append(callback)
        return callback

    def run(name, moments):
        return trained(make_model, tmp_path / name, make, moments, n=70, env=lite_env(), learning_starts=10_000)

    expected = run("a", set())
    assert [step for step, _ in expected[tags.EVAL_DISTANCE]] == [30, 60, 70]
    assert_same_scalars(run("b", {25, 40}), expected)
    first, *_, last = callbacks
    assert last.best_distance_m == first.best_distance_m > 0
    fresh = make()
    fresh.best_distance_m, fresh._last_evaluated, fresh._baselines = -math.inf, 9, {"a": 1.0}
    last.set_state(read_back(fresh.get_state()))
    assert (last.best_distance_m, last._last_evaluated, last._baselines) == (-math.inf, 9, {"a": 1.0})


def test_a_resumed_run_keeps_its_first_start_time(make_model, tmp_path):
    model = make_model()
    (tmp_path / "a").mkdir()
    recorder = RunRecorderCallback(run_dir=tmp_path / "a")
    model.learn(5, callback=recorder)
    state = {"started": "2020-01-01T00:00:00+00:00"}
    assert recorder.get_state().keys() == state.keys()
    assert recorder.get_state()["started"] == RunManifest.read(tmp_path / "a" / "run.json").started
    recorder.set_state(state)
    written = RunManifest.read(tmp_path / "a" / "run.json")
    assert (written.started, written.finished) == (state["started"], None)
    recorder.on_training_end()
    written = RunManifest.read(tmp_path / "a" / "run.json")
    assert written.started == state["started"]
    assert written.finished > state["started"]


def update_with(network, n_updates, gradient, reward, q=0.5):
    parameter = th.nn.Parameter(th.zeros(2))
    parameter.grad = th.tensor([gradient, 0.0])
    batch = {"rewards": th.tensor([[reward]]), "discounts": th.tensor([[0.9]]), "target_q": th.tensor([[q]])}
    values = {"loss": th.tensor(q), "losses": th.tensor([q, q]), "q_values": th.tensor([[q, q]]), **batch}
    return NetworkUpdate(network, n_updates, {"critic_mlp": [parameter]}, values)


def feed(monitor, numbers, n_before=0):
    for n_updates, (gradient, reward) in enumerate(numbers, n_before):
        update = update_with("critic", n_updates, gradient, reward)
        for moment in (monitor.after_backward, monitor.after_clipping, monitor.after_step):
            moment(update)


ODD_NUMBERS = [
    [(0.1, 1e-8), (1 / 3, -2.0), (1e-30, 0.7), (3e38, 0.1), (0.3, 0.2)],
    [(math.nan, 1.0), (0.1, 2.0), (0.2, 3.0)],
    [(0.1, math.inf), (math.inf, 2.0), (0.2, math.nan), (0.1, 0.1)],
]


@pytest.mark.parametrize("numbers", ODD_NUMBERS, ids=["tiny and large", "nan", "inf"])
@pytest.mark.parametrize("sample_freq", [1, 2])
def test_the_gradient_monitor_gives_identical_values_after_a_restore_within_a_window(numbers, sample_freq):
    for n_before in range(len(numbers) + 1):
        one, first = GradientMonitor(sample_freq), GradientMonitor(sample_freq)
        feed(one, numbers)
        feed(first, numbers[:n_before])
        state = read_back(first.get_state())
        second = GradientMonitor(sample_freq)
        feed(second, [(7.0, 7.0)])  # set_state() replaces this
        second.set_state(state)
        feed(second, numbers[n_before:], n_before)
        assert second._sums.keys() == one._sums.keys()
        for name, tensor in one._sums.items():
            assert second._sums[name].dtype == tensor.dtype
            np.testing.assert_array_equal(second._sums[name], tensor)
        assert second.n_updates == one.n_updates == len(numbers)
        again = GradientMonitor(sample_freq)
        again.set_state(read_back(one.get_state()))
        read = one.read()
        for found in (second.read(), again.read()):
            assert list(found) == list(read)
            np.testing.assert_array_equal(list(found.values()), list(read.values()))


def test_the_bound_on_q_values_includes_rewards_from_before_a_resume():
    monitor, fresh = GradientMonitor(1), GradientMonitor(1)
    feed(monitor, [(1.0, 5.0)])
    monitor.read()
    fresh.set_state(read_back(monitor.get_state()))
    feed(fresh, [(1.0, 2.0)], 1)
    assert fresh.read()[tags.Q_BOUND] == pytest.approx(50.0)
