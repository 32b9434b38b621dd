"""Test the criterion no_sure_cause, which fails if a diagnosis has high confidence."""

from __future__ import annotations

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import judge, load_criteria
from sb3_visual_td3.diagnosis.live import CRITICAL_FROM
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.verdict import CriterionResult, Status
from tests.report.synthetic_runs import Values, as_series, dead_policy, healthy, leaking

(CRITERION,) = (criterion for criterion in load_criteria() if criterion.id == "no_sure_cause")


def judged(run: Values | SeriesSet) -> CriterionResult:
    (result,) = judge([CRITERION], run if isinstance(run, SeriesSet) else as_series(run))
    return result


def with_points(run: Values, **values: float) -> Values:
    """Return a run with some of its series replaced by constants; ``__`` stands for the slash of a tag."""
    steps = run[tags.Q1_VALUE][0]
    return {**run, **{name.replace("__", "/"): (steps, np.full(steps.size, v)) for name, v in values.items()}}


def test_a_cause_that_would_stop_a_run_also_prevents_a_go() -> None:
    assert CRITERION.threshold == CRITICAL_FROM


@pytest.mark.parametrize("shared_encoder", [False, True])
def test_a_healthy_run_passes_if_it_logged_every_tag_that_the_rules_read(shared_encoder: bool) -> None:
    assert judged(healthy(shared_encoder=shared_encoder)).status is Status.PASS


@pytest.mark.parametrize(
    ("cause", "broken"),
    [
        ("stale_target_network", {"agent__critic_target_moved": 0.0}),
        ("dead_camera", {"agent__frame_std": 0.2}),
        ("encoder_frozen", {"gradients__critic_cnn_norm": 0.0}),
        ("vanishing_actor_gradient", {"gradients__actor_mlp_norm": 0.0}),
    ],
)
def test_a_cause_with_high_confidence_fails_an_otherwise_healthy_run(cause: str, broken: dict[str, float]) -> None:
    result = judged(with_points(healthy(shared_encoder=True), **broken))
    assert result.status is Status.FAIL
    assert result.blocking
    assert cause in result.detail
    assert result.value is not None
    assert result.value >= CRITICAL_FROM


def test_a_run_with_a_feature_leak_or_a_dead_policy_fails() -> None:
    assert judged(leaking()).status is Status.FAIL
    assert judged(dead_policy()).status is Status.FAIL


@pytest.mark.parametrize("tag", CRITERION.tags)
def test_the_criterion_is_unknown_if_a_tag_that_it_reads_was_not_logged(tag: str) -> None:
    run = healthy()
    del run[tag]
    result = judged(run)
    assert result.status is Status.UNKNOWN
    assert tag in result.detail


def test_a_run_without_encoder_tags_passes_only_if_has_encoder_is_logged_as_0() -> None:
    run = {
        tag: points
        for tag, points in healthy().items()
        if "_cnn" not in tag and "frame" not in tag and tag != tags.ENCODER_IS_SHARED
    }
    assert judged(with_points(run, agent__has_encoder=0.0)).status is Status.PASS
    del run[tags.HAS_ENCODER]
    assert judged(run).status is Status.UNKNOWN


def test_a_cause_with_confidence_0_7_does_not_fail_the_criterion() -> None:
    """If the actor's head still receives a gradient, actor_saturation has a confidence of at most 0.7."""
    result = judged(with_points(healthy(), agent__action_saturation=1.0))
    assert result.status is Status.PASS
    assert result.value == 0.7


def test_the_criterion_is_unknown_if_the_run_logged_only_a_single_point() -> None:
    assert judged(SeriesSet.of([Series(tags.Q1_VALUE, np.array([1]), np.array([0.0]))])).status is Status.UNKNOWN
