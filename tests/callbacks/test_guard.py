"""Test the guard on small trainings that really fail.

Depending on its setting, the guard stops the training, lowers the learning rate, or rolls back to a snapshot. It does
not change healthy trainings.
"""

import json
import math
import re

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_visual_td3 import ExplosionAlertCallback, GradientNormCallback, SnapshotCallback, VisualTD3
from sb3_visual_td3.callbacks.alerts import Alert
from sb3_visual_td3.callbacks.guard import Guard, lr_scale_of, set_lr_scale
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.schedules import Scaled
from sb3_visual_td3.diagnosis.live import WINDOW
from sb3_visual_td3.diagnosis.rules import LIVE_RULES
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from tests.callbacks.event_files import scalars_in
from tests.callbacks.test_live_alerts import BreakingEnv, Breaks, alerts_in
from tests.callbacks.test_snapshot import Kill, Killed
from tests.killed_runs import assert_same_scalars, weights_in
from tests.training_state.small_envs import StatefulEnv, StatefulImageEnv

STARTS = 20
"""Number of environment steps before the first update. Later, one update follows each step."""
SMALL = {"learning_starts": STARTS, "batch_size": 8, "buffer_size": 2_000, "seed": 0, "device": "cpu"}
ONSET = 145
"""Number of updates after which a test breaks the training. This happens in step 166."""


def visual_td3(folder=None, env=StatefulEnv, **kwargs):
    log = None if folder is None else str(folder / "tb")
    settings = {**SMALL, "policy_kwargs": {"net_arch": [16]}, "target_q_clamp": True, "tensorboard_log": log, **kwargs}
    return VisualTD3("MlpPolicy", DummyVecEnv([env]), **settings)


def sac(folder=None, **kwargs):
    log = None if folder is None else str(folder / "tb")
    settings = {**SMALL, "policy_kwargs": {"net_arch": [16]}, "tensorboard_log": log, **kwargs}
    return SAC("MlpPolicy", DummyVecEnv([StatefulEnv]), **settings)


def pixels(folder=None, **kwargs):
    """Return a model on images with the recommended preset."""
    settings = {**SMALL, "policy_kwargs": {"net_arch": [8], "trunk_dim": 4}, "tensorboard_log": str(folder / "tb")}
    return VisualTD3("CnnPolicy", DummyVecEnv([StatefulImageEnv]), **{**settings, **kwargs})


def blow_up(model):
    """Multiply the critics' weights, so that Q-values are about a thousand times too large."""
    with th.no_grad():
        for weight in model.critic.parameters():
            weight.mul_(30.0)


def break_weights(model):
    """Set a bias of the critic to NaN."""
    with th.no_grad():
        model.critic.qf0[-1].bias.fill_(math.nan)


class Always(Breaks):
    """Calls ``break_it`` at every step once the model has made ``onset`` updates."""

    def _on_step(self):
        self.is_broken = False
        return super()._on_step()


class Notes(BaseCallback):
    """Records the number of updates, the weights and the learning rates at the start of each rollout."""

    def _on_training_start(self):
        self.at = {}

    def _on_step(self):
        return True

    def _on_rollout_start(self):
        tensors = {}
        for name, part in self.model.get_parameters().items():
            flatten(tensors, f"{name}.pth", part)
        rates = {
            name: [group["lr"] for group in getattr(self.model, name).optimizer.param_groups]
            for name in ("actor", "critic")
        }
        self.at[self.model.num_timesteps] = (self.model._n_updates, tensors, rates)


def flatten(found, name, value):
    if isinstance(value, dict):
        for key, item in value.items():
            flatten(found, f"{name}.{key}", item)
    elif isinstance(value, th.Tensor):
        found[name] = value.detach().clone()


def guard(on_critical, **kwargs):
    settings = {"warning": 1e3, "critical": 1e4, "check_freq": 20, "sample_freq": 5, "verbose": 0, **kwargs}
    return ExplosionAlertCallback(on_critical=on_critical, **settings)


def trained(model, folder, callbacks, n_steps=320, **kwargs):
    snapshots = SnapshotCallback(**{"save_freq": 50, "run_dir": folder, "verbose": 0, **kwargs})
    model.learn(n_steps, callback=[*callbacks, snapshots])
    return model


def actions_in(folder):
    return [alert for alert in alerts_in(folder) if alert["level"] == "action"]


def snapshots_in(folder):
    return {listed.step: listed for listed in SnapshotStore(folder / "snapshots").all()}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"on_critical": "explode"}, r"on_critical='explode': expected one of 'warn', 'stop', 'reduce_lr', 'rollback'"),
        ({"lr_factor": 0.0}, r"lr_factor=0.0: expected a number above 0 and below 1"),
        ({"lr_factor": 1}, "lr_factor=1: expected"),
        ({"lr_factor": True}, "lr_factor=True: expected"),
        ({"lr_factor": math.nan}, "lr_factor=nan: expected"),
        ({"lr_factor": "half"}, "lr_factor='half': expected"),
        ({"max_actions": 0}, "max_actions=0: expected an integer >= 1"),
        ({"max_actions": 2.5}, "max_actions=2.5: expected"),
    ],
)
def test_bad_arguments_are_refused_at_once(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ExplosionAlertCallback(**kwargs)


def test_a_rollback_without_snapshots_is_an_error_before_the_first_step():
    model = visual_td3()
    with pytest.raises(ValueError, match=r"on_critical='rollback'.*Add SnapshotCallback.*as the last"):
        model.learn(50, callback=[guard("rollback")])
    assert model.num_timesteps == 0
    assert model.observers == []


def test_by_default_a_critical_alert_is_only_reported(tmp_path):
    model = visual_td3(tmp_path)
    model.learn(320, callback=[Breaks(ONSET, blow_up), ExplosionAlertCallback(1e3, 1e4, 20, 5, tmp_path, 0)])
    assert model.num_timesteps == 320
    assert {alert["level"] for alert in alerts_in(tmp_path)} >= {"critical"}
    assert actions_in(tmp_path) == []
    assert tags.GUARD_ACTIONS not in scalars_in(tmp_path)


@pytest.mark.parametrize("make", [visual_td3, sac])
def test_stop_ends_the_training_at_the_step_of_the_first_critical_alert(tmp_path, capsys, make):
    model = make(tmp_path)
    model.learn(320, callback=[Breaks(ONSET, blow_up), guard("stop", verbose=1)])
    (action,) = actions_in(tmp_path)
    first = next(alert for alert in alerts_in(tmp_path) if alert["level"] == "critical")
    assert action["step"] == first["step"] == model.num_timesteps
    assert STARTS + ONSET <= model.num_timesteps <= STARTS + ONSET + 100
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ACTION")]
    assert line.startswith(f"ACTION at step {model.num_timesteps}: {first['rule']}: training stops. ")
    assert line.endswith(first["remedy"])
    assert scalars_in(tmp_path)[tags.GUARD_ACTIONS][-1] == (model.num_timesteps, 1.0)


def rates_at(notes, step, network="critic"):
    return notes.at[step][2][network]


def test_reduce_lr_scales_constant_and_scheduled_learning_rates_until_training_ends(tmp_path):
    notes = Notes()
    model = visual_td3(tmp_path, learning_rate="lin_1e-3", critic_lr=4e-4)
    trained(model, tmp_path, [Breaks(ONSET, blow_up), guard("reduce_lr", lr_factor=0.25), notes])
    (action,) = actions_in(tmp_path)
    assert "learning rates multiplied by 0.25, now 0.25 times the given rates (action 1 of 3)" in action["meaning"]
    at = action["step"]
    assert rates_at(notes, at - 1) == [4e-4]
    assert rates_at(notes, at) == rates_at(notes, 319) == [1e-4]
    # The actor's rate falls from 1e-3 to 0 over 320 steps.
    for step, factor in ((at - 1, 1.0), (at, 0.25), (at + 20, 0.25), (319, 0.25)):
        (rate,) = rates_at(notes, step, "actor")
        assert rate == pytest.approx(factor * 1e-3 * (1.0 - step / 320)), step
    assert model.learning_rates == {"actor_mlp": 0.0, "critic_mlp": 1e-4}
    assert model.describe()["lr_scale"] == (0.25, "attribute")
    assert model.describe()["critic_lr"] == (4e-4, "argument")


def test_a_reduced_learning_rate_is_saved_with_the_model(tmp_path):
    model = visual_td3(learning_rate="lin_1e-3")
    assert "lr_scale" not in vars(model), "models that were never guarded are saved as before"
    model.lr_scale = 0.3
    model.learn(30)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", env=DummyVecEnv([StatefulEnv]), device="cpu")
    assert loaded.lr_scale == 0.3
    loaded.learn(60)
    assert loaded.learning_rates == {"actor_mlp": 0.0, "critic_mlp": 0.0}
    loaded._current_progress_remaining = 0.5
    assert loaded.learning_rates["critic_mlp"] == pytest.approx(0.3 * 0.5e-3)


def test_the_learning_rate_of_a_stock_algorithm_is_lowered_for_all_optimizers_and_saved(tmp_path):
    model = sac(tmp_path, learning_rate=1e-3)
    trained(model, tmp_path, [Breaks(ONSET, blow_up), guard("reduce_lr", lr_factor=0.3)], n_steps=ONSET + 250)
    n_actions = len(actions_in(tmp_path))
    assert n_actions == 2
    optimizers = (model.actor.optimizer, model.critic.optimizer, model.ent_coef_optimizer)
    expected = 1e-3 * (1.0 * 0.3 * 0.3)
    assert [group["lr"] for each in optimizers for group in each.param_groups] == [expected] * 3
    model.save(tmp_path / "model")
    loaded = SAC.load(tmp_path / "model", env=DummyVecEnv([StatefulEnv]), device="cpu")
    loaded.learn(STARTS + 5)
    assert loaded.critic.optimizer.param_groups[0]["lr"] == expected


def test_a_second_learning_rate_factor_replaces_the_first():
    model = sac(learning_rate=0.7)
    set_lr_scale(model, 1.0)
    assert not isinstance(model.lr_schedule, Scaled)
    for factor in (0.3, 0.09, 0.1):
        set_lr_scale(model, factor)
        assert lr_scale_of(model) == factor
        assert model.lr_schedule(1.0) == 0.7 * factor


@pytest.mark.parametrize("make", [visual_td3, sac, pytest.param(pixels, marks=pytest.mark.slow)])
def test_a_rollback_restores_the_weights_bit_for_bit_and_training_continues(tmp_path, make):
    notes, alerts = Notes(), guard("rollback")
    model = make(tmp_path)
    ranges = []

    def blow_up_and_note(model):
        blow_up(model)
        if isinstance(model, VisualTD3):
            ranges.append(float(model._target_range.upper))
            model._target_range.upper = th.tensor(1e6)

    trained(model, tmp_path, [Breaks(ONSET, blow_up_and_note), alerts, notes], keep=9)
    (action,) = actions_in(tmp_path)
    at = action["step"]
    (went_back_to,) = re.findall(r"back to the weights of (\S+),", action["meaning"])
    saved = snapshots_in(tmp_path)
    assert went_back_to == str(saved[150].path), "the last one before the onset"

    n_updates, tensors, _ = notes.at[at]
    in_snapshot = weights_in(saved[150].path / "model.zip")
    assert any("exp_avg_sq" in name for name in tensors), "the optimizers' moments are among them"
    for name, tensor in tensors.items():
        assert th.equal(tensor, in_snapshot[name]), name
    assert n_updates == at - STARTS, "updates are counted on"
    before = notes.at[at - 1][1]
    assert not all(th.equal(before[name], tensor) for name, tensor in tensors.items()), "it was somewhere else"

    assert (model.num_timesteps, model._n_updates) == (320, 300)
    assert model.replay_buffer.size() == 320, "no transition is lost"
    given = model.lr_schedule.schedule(0.0) if make is sac else 1e-3
    assert set(rates_at(notes, 319)) == {given * 0.5}
    assert set(rates_at(notes, at - 1)) == {given}
    if ranges:
        assert float(model._target_range.upper) < 1e6
    # No alert remains active after the rollback.
    assert not alerts.is_critical
    assert alerts.is_healthy
    scalars = scalars_in(tmp_path)
    assert scalars[tags.GUARD_ACTIONS][-1][1] == 1.0
    for tag, points in scalars.items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), tag
    assert [step for step, _ in scalars[tags.GUARD_ACTIONS]] == [*range(20, 321, 20)]
    # The rollback empties the window, so the next check finds nothing.
    rules = {alert["rule"] for alert in alerts_in(tmp_path) if alert["step"] == at} & LIVE_RULES.keys()
    assert [dict(scalars[tags.alert_of_rule(rule)])[at] for rule in rules] == [1.0] * len(rules) != []
    assert {dict(scalars[tags.alert_of_rule(rule)])[at + 20] for rule in rules} == {0.0}


def test_a_rollback_restores_only_what_was_learnt(tmp_path):
    """A rollback in the last step does not change the replay buffer, the random states and the counters."""

    class GoesBack(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 171:
                before = th.get_rng_state(), np.random.get_state()[1].tolist()
                self.snapshots.go_back_to(self.snapshots.newest_healthy(10**9))
                assert (th.get_rng_state().tolist(), np.random.get_state()[1].tolist()) == (
                    before[0].tolist(),
                    before[1],
                )
            return True

    plain = visual_td3().learn(171)
    model, goes_back = visual_td3(tmp_path), GoesBack()
    goes_back.snapshots = SnapshotCallback(50, tmp_path, verbose=0)
    model.learn(171, callback=[guard("warn"), goes_back, goes_back.snapshots])
    for name in ("observations", "actions", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(plain.replay_buffer, name), getattr(model.replay_buffer, name))
    assert (model._n_updates, model._episode_num) == (plain._n_updates, plain._episode_num)
    weights = [next(each.critic.parameters()) for each in (plain, model)]
    assert not th.equal(*weights)


def test_guard_actions_are_limited_and_at_least_one_window_of_updates_apart(tmp_path, capsys):
    model = visual_td3(tmp_path)
    callbacks = [Always(ONSET, blow_up_once_more), guard("rollback", max_actions=2, verbose=1)]
    trained(model, tmp_path, callbacks, n_steps=2_000)
    first, second, last = actions_in(tmp_path)
    assert "(action 1 of 2)" in first["meaning"]
    assert "now 0.25 times the given rates (action 2 of 2)" in second["meaning"]
    assert last["meaning"].startswith("training stops: after 2 actions (max_actions=2), there is a critical")
    assert last["step"] == model.num_timesteps < 2_000
    assert WINDOW <= second["step"] - first["step"] <= WINDOW + 40
    assert WINDOW <= last["step"] - second["step"] <= WINDOW + 40
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ACTION")]
    assert len(lines) == 3
    assert scalars_in(tmp_path)[tags.GUARD_ACTIONS][-1] == (model.num_timesteps, 2.0)


def blow_up_once_more(model):
    """Move all weights of the critics into the range 0 to 4, so that Q-values are too large."""
    with th.no_grad():
        for weight in model.critic.parameters():
            weight.clamp_(-2.0, 2.0).add_(2.0)


def test_without_a_healthy_snapshot_the_guard_stops_with_a_message(tmp_path):
    """A callback reports that the training is unhealthy from the start, so no snapshot is healthy."""
    model = visual_td3(tmp_path)

    class Unhealthy(BaseCallback):
        is_healthy, n_updates_in_doubt, has_ended_training = False, 0, False

        def _on_step(self):
            return True

    trained(model, tmp_path, [Unhealthy(), Breaks(ONSET, blow_up), guard("rollback")])
    (action,) = actions_in(tmp_path)
    assert action["meaning"].startswith("training stops: there is no healthy snapshot to return to. ")
    assert model.num_timesteps == action["step"] < 320


@pytest.mark.parametrize("make", [visual_td3, pytest.param(sac, marks=pytest.mark.slow)])
def test_the_guard_does_not_change_a_healthy_run(tmp_path, make):
    plain = make().learn(300)
    guarded = make(tmp_path)
    trained(guarded, tmp_path, [GradientNormCallback(5, 50), guard("rollback", critical=1e9)], n_steps=300)
    assert actions_in(tmp_path) == []
    for (key, one), other in zip(plain.policy.state_dict().items(), guarded.policy.state_dict().values(), strict=True):
        assert th.equal(one, other), key
    assert {value for _, value in scalars_in(tmp_path)[tags.GUARD_ACTIONS]} == {0.0}


@pytest.mark.parametrize("make", [visual_td3, pytest.param(sac, marks=pytest.mark.slow)])
def test_a_run_resumed_after_a_guard_action_continues_bit_for_bit(tmp_path, make):
    """A run that is killed after a guard action continues like a run that is not killed.

    The guard waits for 200 updates after its first action, and the run is killed during this wait. In step 400, after
    the wait, the model breaks again, and the guard acts a second time.
    """

    def script(folder, kill_at=None):
        model = make(folder, learning_rate=7e-4)
        breaks = [BreaksAt(166), BreaksAt(400)]
        callbacks = [*breaks, guard("rollback", lr_factor=0.3), *([Kill(kill_at)] if kill_at else [])]
        return trained(model, folder, callbacks, n_steps=450, resume=True, keep=3)

    whole = script(tmp_path / "whole")
    killed = tmp_path / "killed"
    for kill_at in (185, 231, 333):
        with pytest.raises(Killed):
            script(killed, kill_at)
    resumed = script(killed)
    assert len(actions_in(tmp_path / "whole")) == 2
    assert resumed.num_timesteps == 450
    assert lr_scale_of(resumed) == lr_scale_of(whole) == 1.0 * 0.3 * 0.3
    for (key, one), other in zip(whole.policy.state_dict().items(), resumed.policy.state_dict().values(), strict=True):
        assert th.equal(one, other), key
    texts = [
        (folder / "alerts.jsonl").read_text().replace(str(folder), "RUN") for folder in (tmp_path / "whole", killed)
    ]
    assert texts[0] == texts[1]
    assert_same_scalars(tmp_path / "whole" / "tb", killed / "tb", at_least=10)


class BreaksAt(BaseCallback):
    """Breaks the model at one given step, also in a resumed run."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def _on_step(self):
        if self.num_timesteps == self.step:
            blow_up(self.model)
        return True

    def get_state(self):
        return {}

    def set_state(self, state):
        pass


def test_max_actions_includes_guard_actions_from_before_a_resume(tmp_path):
    """After its action at update 100, the guard waits until update 300, also in a resumed run."""
    alert = Alert(120, "reward_scale", "critical", 1.0, 0.0, "", since=90)

    def begun(model):
        found = Guard("reduce_lr", lr_factor=0.5, max_actions=2)
        found.begin(model, [])
        return found

    first, model = begun(visual_td3()), visual_td3()
    assert first.act_on(alert, 100).level == "action"
    second = begun(model)
    second.set_state(json.loads(json.dumps(first.get_state())))
    assert model.lr_scale == 0.5
    assert second.act_on(alert, 100 + WINDOW - 1) is None
    assert "(action 2 of 2)" in second.act_on(alert, 100 + WINDOW).meaning
    assert model.lr_scale == 0.25
    assert not second.has_stopped
    assert "after 2 actions (max_actions=2)" in second.act_on(alert, 100 + 2 * WINDOW).meaning
    assert second.has_stopped


def test_with_keep_1_the_newest_healthy_snapshot_is_kept_beside_a_newer_unhealthy_one(tmp_path):
    model = visual_td3(tmp_path)
    trained(model, tmp_path, [Breaks(ONSET, blow_up), guard("warn")], n_steps=450, keep=1)
    kept = snapshots_in(tmp_path)
    assert [(step, kept[step].health.is_healthy) for step in kept] == [(150, True), (450, False)]
    store = SnapshotStore(tmp_path / "snapshots")
    assert store.newest().step == 450, "the newest snapshot is resumed, and the run continues as it would have"
    assert store.newest_healthy(10**9).step == 150


def test_an_alert_marks_snapshots_taken_since_its_onset_as_unhealthy(tmp_path):
    """With a check every 90 steps, one snapshot lies between the onset and the check that raises the alert."""
    seen = {}

    class Looks(BaseCallback):
        def _on_step(self):
            if self.num_timesteps in (179, 181):
                seen[self.num_timesteps] = {s: h.health.is_healthy for s, h in snapshots_in(tmp_path).items()}
            return True

    model = visual_td3(tmp_path)
    callbacks = [Breaks(ONSET, blow_up), guard("warn", check_freq=90), Looks()]
    trained(model, tmp_path, callbacks, n_steps=190, save_freq=35, keep=9)
    assert seen[179] == {0: True, 35: True, 70: True, 105: True, 140: True, 175: True}
    assert seen[181] == {0: True, 35: True, 70: True, 105: True, 140: True, 175: False}


@pytest.mark.parametrize("make", [visual_td3, sac])
def test_non_finite_weights_are_rolled_back_before_they_choose_an_action(tmp_path, make):
    model = make(tmp_path)
    trained(model, tmp_path, [Breaks(ONSET, break_weights), guard("rollback")])
    (action,) = actions_in(tmp_path)
    # The weights break in step 166, and the update after this step shows it. The next step uses other weights.
    alert = next(alert for alert in alerts_in(tmp_path) if alert["rule"] == "non_finite")
    assert alert["step"] == action["step"] == STARTS + ONSET + 1
    name = "train/critic_loss" if make is visual_td3 else "gradients/critic_mlp_norm"
    assert alert["meaning"] == f"{name} is nan at update {ONSET + 1}"
    assert model.num_timesteps == 320
    assert all(th.isfinite(weight).all() for weight in model.policy.parameters())
    points = scalars_in(tmp_path)[tags.alert_of_rule("non_finite")]
    assert [step for step, value in points if value] == [STARTS + ONSET + 2], "the event file has one point"
    for tag, of_tag in scalars_in(tmp_path).items():
        steps = [step for step, _ in of_tag]
        assert steps == sorted(set(steps)), tag


@pytest.mark.parametrize("make", [visual_td3, sac])
@pytest.mark.parametrize("mode", ["warn", "stop", "reduce_lr"])
def test_non_finite_weights_end_the_training_and_the_alert_names_the_last_healthy_snapshot(tmp_path, mode, make):
    actions = []

    class Sees(BaseCallback):
        def _on_step(self):
            actions.append(self.locals["actions"])
            return True

    model = make(tmp_path)
    trained(model, tmp_path, [Breaks(ONSET, break_weights), Sees(), guard(mode)])
    assert model.num_timesteps == STARTS + ONSET + 2
    (alert,) = [alert for alert in alerts_in(tmp_path) if alert["rule"] == "non_finite"]
    path = tmp_path / "snapshots" / "step_000000150"
    name = "train/critic_loss" if make is visual_td3 else "gradients/critic_mlp_norm"
    assert alert["meaning"] == f"{name} is nan at update {ONSET + 1}; training stops; last healthy: {path}"
    assert alert["step"] == STARTS + ONSET + 1
    assert path.is_dir()
    assert np.isfinite(actions).all(), "the environment is given no NaN for the last step"
    assert not all(th.isfinite(weight).all() for weight in model.policy.parameters()), "nothing is glossed over"
    assert scalars_in(tmp_path)[tags.alert_of_rule("non_finite")][-1] == (model.num_timesteps, 1.0)


@pytest.mark.parametrize("network", ["actor", "critic"])
def test_a_non_finite_gradient_is_reported_with_its_update_despite_a_finite_loss(tmp_path, network):
    def poison(model):
        """Make one gradient NaN in the backward pass through the first layer."""

        def passed(module, inputs, output):
            if output.requires_grad:
                handle.remove()
                output.register_hook(lambda gradient: gradient * math.nan)

        layers = model.actor.mu if network == "actor" else model.critic.qf0
        handle = layers[0].register_forward_hook(passed)

    model = visual_td3(tmp_path, policy_delay=1)
    trained(model, tmp_path, [Breaks(ONSET, poison), guard("rollback")], n_steps=220)
    alert, action = (alert for alert in alerts_in(tmp_path) if alert["rule"] == "non_finite")
    assert alert["meaning"] == f"gradients/{network}_mlp_norm is nan at update {ONSET + 1}"
    assert (alert["level"], action["level"]) == ("critical", "action")
    assert model.num_timesteps == 220


def test_weights_that_break_again_and_again_end_the_training(tmp_path):
    model = visual_td3(tmp_path)
    trained(model, tmp_path, [Always(ONSET, break_weights), guard("rollback", max_actions=2)])
    *acted, last = actions_in(tmp_path)
    assert [action["step"] for action in acted] == [166, 167], "weights that are not finite cannot wait"
    assert last["meaning"].startswith("training stops: after 2 actions (max_actions=2)")
    assert model.num_timesteps == 169


def test_non_finite_rewards_always_end_the_training(tmp_path):
    def env():
        broken = BreakingEnv()
        broken.bad_step = 150
        return broken

    model = visual_td3(tmp_path, env=env)
    trained(model, tmp_path, [guard("rollback")])
    assert model.num_timesteps == 150
    assert np.isfinite(model.replay_buffer.rewards).all(), "it is not stored"
    (alert,) = alerts_in(tmp_path)
    path = tmp_path / "snapshots" / "step_000000100"
    assert (
        alert["meaning"]
        == f"the reward is nan, which would make every target non-finite; training stops; last healthy: {path}"
    )


def test_non_finite_rewards_in_the_replay_buffer_end_the_training_too(tmp_path):
    def poison(model):
        model.replay_buffer.rewards[:50] = math.nan

    model = visual_td3(tmp_path)
    trained(model, tmp_path, [Breaks(ONSET, poison), guard("rollback")])
    assert actions_in(tmp_path) == []
    assert model.num_timesteps == STARTS + ONSET + 2
    (alert,) = [alert for alert in alerts_in(tmp_path) if alert["rule"] == "non_finite"]
    assert "training stops; last healthy: " in alert["meaning"]


def test_the_last_update_of_a_training_is_checked_too(tmp_path):
    model = visual_td3(tmp_path)
    model.learn(STARTS + ONSET + 1, callback=[Breaks(ONSET, break_weights), guard("stop", run_dir=tmp_path)])
    (alert,) = [alert for alert in alerts_in(tmp_path) if alert["rule"] == "non_finite"]
    assert alert["meaning"] == f"train/critic_loss is nan at update {ONSET + 1}"


def test_entries_of_guard_actions_in_alerts_jsonl_are_standard_json(tmp_path):
    trained(visual_td3(tmp_path), tmp_path, [Breaks(ONSET, blow_up), guard("rollback")], n_steps=220)
    lines = (tmp_path / "alerts.jsonl").read_text().splitlines()
    read = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert {frozenset(line) for line in read} == {
        frozenset({"step", "rule", "level", "value", "threshold", "meaning", "since", "remedy"})
    }
    assert {line["level"] for line in read} <= {"warning", "critical", "action"}


def test_rollback_works_if_environment_steps_and_updates_overlap(tmp_path):
    from stable_baselines3.common.vec_env import SubprocVecEnv

    env = SubprocVecEnv([StatefulEnv], start_method="fork")
    notes = Notes()
    kwargs = {"policy_kwargs": {"net_arch": [16]}, "tensorboard_log": str(tmp_path / "tb")}
    model = VisualTD3("MlpPolicy", env, overlap=True, **kwargs, **SMALL)
    trained(model, tmp_path, [Breaks(ONSET, blow_up), guard("rollback"), notes], keep=9)
    env.close()
    (action,) = actions_in(tmp_path)
    saved = snapshots_in(tmp_path)[150].path / "model.zip"
    tensors = notes.at[action["step"]][1]
    assert all(th.equal(tensor, tensors[name]) for name, tensor in weights_in(saved).items() if name in tensors)
    assert (model.num_timesteps, model._n_updates) == (320, 300), "no update that was owed is lost"
