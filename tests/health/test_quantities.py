import math

import pytest
import torch as th

from sb3_visual_td3.health import quantities


def parameter(values, gradient):
    p = th.nn.Parameter(th.tensor(values))
    p.grad = None if gradient is None else th.tensor(gradient)
    return p


def test_the_norm_is_over_all_gradients_together():
    parameters = [parameter([0.0, 0.0], [3.0, 0.0]), parameter([0.0], [4.0]), parameter([9.0], None)]
    assert float(quantities.gradient_norm(parameters)) == 5.0
    assert float(quantities.gradient_norm([parameter([1.0], None)])) == 0.0


def test_a_gradient_that_is_not_finite_shows():
    assert math.isnan(float(quantities.gradient_norm([parameter([0.0], [float("nan")])])))
    assert math.isinf(float(quantities.gradient_norm([parameter([0.0], [float("inf")])])))


def test_a_gradient_was_changed_where_any_number_was():
    parameters = [parameter([0.0, 0.0], [3.0, float("nan")]), parameter([0.0], None), parameter([0.0], [4.0])]
    before = quantities.gradients_of(parameters)
    assert float(quantities.were_changed(before, parameters)) == 0.0
    parameters[2].grad.mul_(0.999999)
    assert float(quantities.were_changed(before, parameters)) == 1.0
    assert float(quantities.were_changed([], [parameter([1.0], None)])) == 0.0


def test_the_update_ratio_is_the_steps_norm_over_the_weights():
    before, after = [th.tensor([3.0, 4.0])], [th.tensor([3.0, 4.5])]
    assert float(quantities.update_ratio(before, after)) == pytest.approx(0.1)
    assert float(quantities.update_ratio(before, before)) == 0.0


def test_saturation_counts_actions_near_the_end_of_their_range():
    actions = th.tensor([[1.0, 0.0], [-0.99, 0.98]])
    assert float(quantities.action_saturation(actions)) == 0.5


def test_the_dimension_that_varies_least_is_found():
    actions = th.tensor([[0.0, 0.5], [1.0, 0.5]])
    assert float(quantities.smallest_action_std(actions)) == 0.0


def test_rewards_of_minus_one_bound_q_by_a_hundred():
    bound = quantities.value_bound(th.tensor([[0.5], [-1.0]]), th.tensor(0.99))
    assert float(bound) == pytest.approx(100, rel=1e-4)
