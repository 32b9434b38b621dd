import pytest
import torch as th

from sb3_visual_td3.visual_td3 import losses
from sb3_visual_td3.visual_td3.losses import TargetRange


def column(*values):
    return th.tensor(values, dtype=th.float32)[:, None]


def test_smoothing_noise_is_clipped_and_actions_stay_in_range():
    actions = th.tensor([[0.0, 0.9]])
    noise = th.tensor([[-3.0, 0.3]])
    th.testing.assert_close(losses.smoothed_actions(actions, noise, 0.5), th.tensor([[-0.5, 1.0]]))


def test_the_target_bootstraps_from_the_smaller_critic_until_the_episode_ends():
    next_q = th.tensor([[10.0, 8.0], [10.0, 8.0]])
    target = losses.td_target(column(1, 1), column(0, 1), 0.9, next_q)
    th.testing.assert_close(target, column(1 + 0.9 * 8, 1))


def test_each_transition_may_have_a_discount_of_its_own():
    target = losses.td_target(column(1, 1), column(0, 0), column(0.9, 0.5), th.full((2, 2), 10.0))
    th.testing.assert_close(target, column(10, 6))


def test_the_critics_loss_is_the_squared_error_or_hubers_loss():
    q_values, target = [column(1, 3), column(0, 0)], column(0, 0)
    assert [float(x) for x in losses.critic_losses(q_values, target)] == [5.0, 0.0]
    assert [float(x) for x in losses.critic_losses(q_values, target, "huber")] == [(0.5 + 2.5) / 2, 0.0]


@pytest.mark.parametrize(("objective", "expected"), [("q1", -2.0), ("min", -1.0), ("mean", -2.0)])
def test_the_actor_maximises_the_requested_objective(objective, expected):
    q_values = [column(1, 3), column(3, 1)]
    assert float(losses.actor_loss(q_values, objective)) == expected


def test_the_pre_tanh_penalty_is_the_mean_square_of_its_inputs():
    assert float(losses.pre_tanh_penalty(th.tensor([[1.0, 3.0], [0.0, 0.0]]))) == 2.5


def test_endless_rewards_of_1_have_a_return_of_100():
    lower, upper = losses.possible_range(column(1, 0.5), 0.99)
    assert float(upper) == pytest.approx(100, rel=1e-4)
    assert float(lower) == 0.0


def test_the_range_takes_the_number_of_summed_steps_into_account():
    rewards = column(1 + 0.99 + 0.99**2)
    _, upper = losses.possible_range(rewards, column(0.99**3))
    assert float(upper) == pytest.approx(100, rel=1e-4)


def test_the_target_range_only_grows():
    target_range = TargetRange(True)
    high = column(1e6)
    assert float(target_range.clamp(high, column(1.0), 0.5)) == 2.0
    assert float(target_range.clamp(high, column(0.1), 0.5)) == 2.0
    assert float(target_range.clamp(-high, column(-3.0), 0.5)) == -6.0


def test_targets_are_clamped_to_a_fixed_limit_or_not_at_all():
    assert float(TargetRange(5.0).clamp(column(7.0), column(0.0), 0.9)) == 5.0
    assert float(TargetRange(5.0).clamp(column(-7.0), column(0.0), 0.9)) == -5.0
    assert float(TargetRange(False).clamp(column(7.0), column(0.0), 0.9)) == 7.0
