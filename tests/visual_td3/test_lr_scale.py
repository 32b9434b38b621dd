"""Test ``lr_scale``, which multiplies all learning rates, and what ``roll_back()`` restores."""

import pytest
import torch as th

RATES = {"learning_rate": 1e-3, "actor_cnn_lr": 1e-5, "critic_lr": "lin_4e-4"}


def test_the_factor_applies_to_every_group_and_schedules_continue(make_model):
    model = make_model(policy_kwargs={"encoder": "separate"}, **RATES)
    model.lr_scale = 0.25
    model._current_progress_remaining = 0.5
    expected = {"actor_cnn": 1e-5, "actor_mlp": 1e-3, "critic_cnn": 1e-3, "critic_mlp": 2e-4}
    assert model.learning_rates == {group: 0.25 * rate for group, rate in expected.items()}
    model.learn(30)
    assert [group["lr"] for group in model.actor.optimizer.param_groups] == [0.25e-5, 0.25e-3]
    assert [group["lr"] for group in model.critic.optimizer.param_groups] == [0.25e-3, pytest.approx(0.0)]
    assert model.logger.name_to_value["train/learning_rate"] == 0.25e-3
    assert model.describe()["lr_scale"] == (0.25, "attribute")
    assert make_model().describe()["lr_scale"] == (1.0, "td3")


def test_the_factor_is_part_of_the_state_and_absent_from_older_states(make_model):
    model, other = make_model(), make_model()
    model.lr_scale = 0.3
    state = model.get_state()
    other.set_state(state)
    assert other.lr_scale == 0.3
    del state["lr_scale"]
    other.set_state(state)
    assert other.lr_scale == 1.0


def test_a_rollback_restores_the_range_of_rewards_and_no_counters(make_model):
    model = make_model(target_q_clamp=True)
    model._target_range.upper = th.tensor(2.0)
    state = model.get_state()
    model._target_range.upper, model._overlapped_loop.n_updates_owed, model.lr_scale = th.tensor(9.0), 3, 0.5
    model.roll_back(state)
    assert (float(model._target_range.upper), model._overlapped_loop.n_updates_owed, model.lr_scale) == (2.0, 3, 0.5)
