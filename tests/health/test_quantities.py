import math

import numpy as np
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


def test_a_non_finite_gradient_gives_a_non_finite_norm():
    assert math.isnan(float(quantities.gradient_norm([parameter([0.0], [float("nan")])])))
    assert math.isinf(float(quantities.gradient_norm([parameter([0.0], [float("inf")])])))


@pytest.mark.parametrize("dtype", [th.float32, th.float64, th.bfloat16])
def test_a_gradient_counts_as_changed_if_any_number_changed(dtype):
    parameters = [parameter([0.0, 0.0], [3.0, float("nan")]), parameter([0.0], None), parameter([0.0], [4.0])]
    parameters = [p if p.grad is None else th.nn.Parameter(p.to(dtype)) for p in parameters]
    parameters[0].grad, parameters[2].grad = th.tensor([3.0, math.nan], dtype=dtype), th.tensor([4.0], dtype=dtype)
    before = quantities.gradients_of(parameters)
    assert before.tolist()[::2] == [3.0, 4.0]
    assert float(quantities.were_changed(before, parameters)) == 0.0
    parameters[2].grad.mul_(0.99)
    assert float(quantities.were_changed(before, parameters)) == 1.0
    nothing = [parameter([1.0], None)]
    assert float(quantities.were_changed(quantities.gradients_of(nothing), nothing)) == 0.0


@pytest.mark.parametrize(("old", "new", "changed"), [(1.0, math.nan, 1), (math.inf, 1.0, 1), (math.inf, math.inf, 0)])
def test_a_number_that_becomes_nan_has_changed_and_one_that_stays_nan_has_not(old, new, changed):
    for dtype in (th.float32, th.bfloat16):
        weight = th.nn.Parameter(th.zeros(2, dtype=dtype))
        weight.grad = th.tensor([0.0, new], dtype=dtype)
        before = th.tensor([math.nan, old], dtype=dtype)
        assert float(quantities.were_changed(before, [weight])) == changed


def test_a_change_is_found_at_every_place_in_any_memory_layout():
    weights = [th.nn.Parameter(th.zeros(shape)) for shape in ((2, 3, 2, 2), (3,), (2, 2))]
    weights[0].grad = th.arange(24.0).view(2, 3, 2, 2).contiguous(memory_format=th.channels_last)
    weights[1].grad, weights[2].grad = th.arange(3.0), th.arange(4.0).view(2, 2).T
    before = quantities.gradients_of(weights)
    assert float(quantities.were_changed(before, weights)) == 0.0
    for weight in weights:
        for place in np.ndindex(weight.shape):
            weight.grad[place] += 1.0
            assert float(quantities.were_changed(before, weights)) == 1.0, (weight.shape, place)
            weight.grad[place] -= 1.0
    assert float(quantities.were_changed(before, weights)) == 0.0


def test_the_norm_equals_torchs_bit_for_bit():
    generator = th.Generator().manual_seed(0)
    parts = [th.randn(shape, generator=generator) for shape in ((300, 400), (400,), (32, 4, 8, 8), (1,))]
    assert float(quantities.total_norm(parts)) == float(th.nn.utils.get_total_norm(parts))


def test_the_update_ratio_is_the_steps_norm_over_the_weights():
    before, after = [th.tensor([3.0, 4.0])], [th.tensor([3.0, 4.5])]
    assert float(quantities.update_ratio(before, after)) == pytest.approx(0.1)
    assert float(quantities.update_ratio(before, before)) == 0.0


def test_saturation_counts_actions_near_the_end_of_their_range():
    actions = th.tensor([[1.0, 0.0], [-0.99, 0.98]])
    assert float(quantities.action_saturation(actions)) == 0.5


def test_the_smallest_deviation_of_an_action_dimension_is_returned():
    actions = th.tensor([[0.0, 0.5], [1.0, 0.5]])
    assert float(quantities.smallest_action_std(actions)) == 0.0


def test_the_q_bound_is_100_for_rewards_of_minus_1_and_gamma_0_99():
    bound = quantities.value_bound(th.tensor([[0.5], [-1.0]]), th.tensor(0.99))
    assert float(bound) == pytest.approx(100, rel=1e-4)


@pytest.mark.parametrize("rewards", [[0.0], [1.0, 0.0]])
def test_undiscounted_rewards_have_no_bound(rewards):
    for discounts in (th.tensor(1.0), th.tensor(0.9999999999), th.ones(len(rewards), 1)):
        assert math.isinf(float(quantities.value_bound(th.tensor(rewards)[:, None], discounts)))


def test_rounding_the_discount_to_float32_does_not_make_the_q_bound_too_small():
    exact = 1.0 / (1.0 - 0.9999999)
    assert float(quantities.value_bound(th.ones(1, 1), th.tensor(0.9999999))) >= exact


def test_a_norm_is_finite_even_if_its_squares_overflow():
    parts = [th.tensor([3e30, 0.0]), th.tensor([4e30]), th.zeros(2)]
    assert float(quantities.total_norm(parts)) == pytest.approx(5e30)
    assert math.isinf(float(quantities.total_norm([th.tensor([math.inf]), th.ones(1)])))


def test_zero_weights_have_a_non_finite_update_ratio_if_moved_and_0_if_not():
    zero, moved = [th.zeros(2)], [th.ones(2)]
    assert not math.isfinite(float(quantities.update_ratio(zero, moved)))
    assert float(quantities.update_ratio(zero, zero)) == 0.0
