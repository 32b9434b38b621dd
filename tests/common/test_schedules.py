import math
import pickle

import pytest

from sb3_visual_td3.common.schedules import parse_schedule


@pytest.mark.parametrize(
    ("value", "start", "middle", "end"),
    [
        (3e-4, 3e-4, 3e-4, 3e-4),
        (0, 0.0, 0.0, 0.0),
        ("1e-3", 1e-3, 1e-3, 1e-3),
        ("lin_3e-4", 3e-4, 1.5e-4, 0.0),
        ("lin_0.5_0.1", 0.5, 0.3, 0.1),
        ("cos_2e-4", 2e-4, 1e-4, 0.0),
        ("cos_0.5_0.1", 0.5, 0.3, 0.1),
    ],
)
def test_a_schedule_has_the_expected_values_at_start_middle_and_end(value, start, middle, end):
    schedule = parse_schedule(value)
    assert [schedule(1.0), schedule(0.5), schedule(0.0)] == pytest.approx([start, middle, end], abs=1e-12)


def test_a_cosine_is_flat_at_both_ends():
    schedule = parse_schedule("cos_1")
    assert 1 - schedule(0.99) == pytest.approx(0.5 * (1 - math.cos(math.pi * 0.01)))
    assert schedule(0.01) < 0.001


@pytest.mark.parametrize(("value", "end"), [("lin_3e-4", 0.0), ("lin_0.5_0.1", 0.1), ("cos_0.5_0.1", 0.1)])
def test_a_schedule_stays_at_its_end_value_after_the_planned_steps(value, end):
    """The last rollout may exceed the planned steps; the remaining progress is then below 0."""
    assert parse_schedule(value)(-0.2) == pytest.approx(end)


@pytest.mark.parametrize("start", [float("nan"), -1e-4, float("inf"), None, "fast"])
def test_a_callable_with_an_invalid_start_is_refused(start):
    with pytest.raises(ValueError, match=r"actor_lr returns .* at the start of training"):
        parse_schedule(lambda progress: start, "actor_lr")


def test_a_callable_is_taken_as_it_is():
    def own(progress):
        return 2 * progress

    assert parse_schedule(own) is own


@pytest.mark.parametrize(
    "value",
    [-1e-4, "exp_3e-4", "lin_", "lin_a", "lin_1_2_3", "nan", float("nan"), float("inf"), True, None, "", [1], "-1"],
)
def test_an_invalid_schedule_is_refused_with_the_name_of_the_argument(value):
    with pytest.raises(ValueError, match="actor_lr"):
        parse_schedule(value, "actor_lr")


def test_schedules_can_be_pickled():
    assert pickle.loads(pickle.dumps(parse_schedule("lin_3e-4")))(0.5) == 1.5e-4
