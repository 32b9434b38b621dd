"""Test that removing data from a log does not turn NO-GO into GO.

All runs use our callbacks. docs/gating.md describes for which removals this holds, and the exceptions.
test_evidence.py tests runs without our callbacks.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import Criterion, judge, load_criteria
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import CriterionResult, Status, Verdict, decide
from tests.report.synthetic_runs import Values, as_series, dead_policy, healthy, leaking, with_nan

BUILT_IN = load_criteria()
HEALTHY = [healthy(last_step=last, shared_encoder=shared) for last in (2400, 5000) for shared in (False, True)]
BY_ID = {criterion.id: criterion for criterion in BUILT_IN}


def verdict(run: Values, criteria: tuple[Criterion, ...] = BUILT_IN) -> Verdict:
    return decide(judge(criteria, as_series(run)))


def result(identifier: str, run: Values) -> CriterionResult:
    (only,) = (r for r in judge(BUILT_IN, as_series(run)) if r.id == identifier)
    return only


def without(run: Values, names: set[str]) -> Values:
    return {tag: points for tag, points in run.items() if tag not in names}


def fails_by_a_stray_nan_alone(run: Values, removed: set[str], criteria: tuple[Criterion, ...]) -> bool:
    """Return whether only the criterion no_nan_or_inf blocks the run, and only because of tags in ``removed``.

    Values of derived tags do not count: they may be infinite or NaN in a healthy run.
    """
    failed = {r.id for r in judge(criteria, as_series(run)) if r.blocking and r.status is Status.FAIL}
    broken = {tag for tag, (_, values) in run.items() if not np.isfinite(values).all()} - tags.DERIVED
    return failed == {"no_nan_or_inf"} and broken <= removed


CHANGES = ("scale", "end", "nan", "cut", "further", "thin", "zero", "flip", "collapse")
COLLAPSED = np.repeat([50.0, 3.0], [20, 700])


@st.composite
def damaged_runs(draw: st.DrawFn) -> Values:
    """Draw a healthy run with some tags changed: scaled, cut short, longer than the others, NaN, or mixed up."""
    run = dict(draw(st.sampled_from(HEALTHY)))
    extra = draw(st.sampled_from(["", "other/tag", tags.PROGRESS_BUFFER_SIZE, tags.TOTAL_ITERATIONS]))
    if extra:
        last = draw(st.sampled_from([100, 2400, 2600, 5000, 9000, 12_000]))
        run[extra] = (np.array([1, last]), np.array([0.0, 1.0]))
    for _ in range(draw(st.integers(1, 3))):
        tag = draw(st.sampled_from(sorted(run)))
        steps, values = run[tag]
        change = draw(st.sampled_from(CHANGES))
        part = draw(st.floats(0.0, 1.0))
        at = int(part * len(steps))
        if change == "scale":
            values = values * draw(st.sampled_from([-1.0, 0.0, 0.1, 30.0, 1e4, 1e8]))
        elif change == "end":
            values = np.where(np.arange(len(values)) >= at, 1e7, values)
        elif change == "nan":
            values = np.where(np.arange(len(values)) == at, np.nan, values)
        elif change == "cut":
            steps, values = steps[: at + 1], values[: at + 1]
        elif change == "further":
            steps = steps * 3
        elif change == "thin":
            steps, values = steps[:: at + 1], values[:: at + 1]
        elif change == "zero":
            values = np.zeros_like(values)
        elif change == "collapse":
            tag, steps, values = tags.EPISODE_LENGTH, np.arange(COLLAPSED.size), COLLAPSED
        else:
            values = np.where(np.arange(len(values)) % 2 == 0, 1.0 - values, values)
        run[tag] = (steps, values)
    return run


def all_blocking(criteria: tuple[Criterion, ...]) -> tuple[Criterion, ...]:
    return tuple(dataclasses.replace(criterion, blocking=True) for criterion in criteria)


def names_to_remove(draw: st.DrawFn, run: Values, criteria: tuple[Criterion, ...]) -> set[str]:
    """Draw up to three tags, and sometimes add every tag that no blocking criterion names."""
    few = draw(st.lists(st.sampled_from(sorted(run)), max_size=3, unique=True))
    named = {tag for criterion in criteria if criterion.blocking for tag in criterion.tags}
    return {*few, *(run.keys() - named if draw(st.booleans()) else ())}


@pytest.mark.parametrize("criteria", [BUILT_IN, all_blocking(BUILT_IN)], ids=["built in", "all blocking"])
@settings(max_examples=150)
@given(data=st.data())
def test_removal_turns_no_go_into_go_only_by_hiding_a_nan(criteria: tuple[Criterion, ...], data: st.DataObject) -> None:
    run = data.draw(damaged_runs())
    assume(verdict(run, criteria) is Verdict.NO_GO)
    removed = names_to_remove(data.draw, run, criteria)
    if verdict(without(run, removed), criteria) is Verdict.GO:
        assert fails_by_a_stray_nan_alone(run, removed, criteria)


def test_collapsed_episodes_remain_no_go_after_removing_any_other_single_tag() -> None:
    run = healthy(last_step=5000)
    run[tags.EPISODE_LENGTH] = (np.arange(COLLAPSED.size), COLLAPSED)
    assert result("episode_length_not_decreasing", run).status is Status.FAIL
    for tag in run.keys() - {tags.EPISODE_LENGTH}:
        assert verdict(without(run, {tag})) is Verdict.NO_GO, tag


def test_collapsed_episodes_remain_insufficient_if_the_length_of_the_run_is_removed() -> None:
    run = healthy(last_step=2400)
    run[tags.EPISODE_LENGTH] = (np.arange(COLLAPSED.size), COLLAPSED)
    run[tags.PROGRESS_BUFFER_SIZE] = (np.array([1, 5000]), np.array([1.0, 5000.0]))
    # The run has 5,000 steps, but the other tags end at 2,400. The criterion applies from 2,500 steps.
    for removed in (set(), {tags.PROGRESS_BUFFER_SIZE}, {tags.EPISODE_LENGTH}):
        assert result("episode_length_not_decreasing", without(run, removed)).status is Status.UNKNOWN
        assert verdict(without(run, removed)) is Verdict.INSUFFICIENT


def test_collapsed_episodes_do_not_block_go_in_a_run_below_2500_steps() -> None:
    run = healthy(last_step=2400)
    run[tags.EPISODE_LENGTH] = (np.arange(300), np.repeat([50.0, 3.0], [20, 280]))
    # The comparison with baseline policies needs three evaluations.
    evaluations = np.array([800, 1600, 2400])
    for tag, metres in ((tags.EVAL_DISTANCE, 60.0), (tags.EVAL_RANDOM_DISTANCE, 12.0), (tags.EVAL_BRAKE_DISTANCE, 3.0)):
        run[tag] = (evaluations, np.full(3, metres))
    assert result("episode_length_not_decreasing", run).status is Status.NOT_APPLICABLE
    assert result("no_sure_cause", run).status is Status.PASS
    assert verdict(run) is verdict(without(run, {tags.EPISODE_LENGTH})) is Verdict.GO


@pytest.mark.parametrize("flag", [tags.ENCODER_IS_SHARED, tags.REWARD_IS_NORMALIZED])
def test_only_a_flag_that_is_always_1_exempts_a_run_from_the_gradient_criterion(flag: str) -> None:
    run = healthy()
    steps, norm = run[tags.GRADIENT_NORM["actor_cnn"]]
    run[tags.GRADIENT_NORM["actor_cnn"]] = (steps, norm * 1e6)
    excused = {Status.NOT_APPLICABLE, Status.FAIL}
    for values, blocks in ((np.ones(40), False), (np.arange(40) % 2, True), (np.full(40, 0.5), True), (None, True)):
        flagged = without(run, {flag}) if values is None else {**run, flag: (steps, values.astype(float))}
        found = result("actor_cnn_norm_mean", flagged)
        assert found.status in excused
        assert (found.blocking and found.status is Status.FAIL) is blocks, values


def test_encoder_tags_are_required_unless_a_flag_shows_that_the_policy_has_no_encoder() -> None:
    run = healthy()
    camera = {tag for tag in run if "cnn" in tag} | {tags.FRAME_STD, tags.FRAME_CHANGE, tags.ENCODER_IS_SHARED}
    vectors = without(run, camera)
    vectors[tags.HAS_ENCODER] = (np.array([1100, 5000]), np.zeros(2))
    assert result("actor_cnn_norm_mean", vectors).status is Status.NOT_APPLICABLE
    assert verdict(vectors) is Verdict.GO
    assert verdict(without(vectors, {tags.HAS_ENCODER})) is Verdict.INSUFFICIENT


FIRST_TAGS = sorted({criterion.tags[0] for criterion in BUILT_IN if criterion.tags} - {tags.EPISODE_LENGTH})


@pytest.mark.parametrize("tag", FIRST_TAGS)
def test_a_tag_that_ends_early_proves_nothing_about_the_rest_of_the_run(tag: str) -> None:
    run = healthy()
    steps, values = run[tag]
    kept = steps <= steps[0] + (steps[-1] - steps[0]) // 3
    run[tag] = (steps[kept], values[kept])
    for criterion in BUILT_IN:
        if tag in criterion.tags:
            found = result(criterion.id, run)
            assert found.status is not Status.PASS
            if found.value is not None and found.status is Status.UNKNOWN:
                assert f"ends at {int(steps[kept][-1]):,}, the run at 5,000" in found.detail


@pytest.mark.parametrize(("last", "expected"), [(5000, Status.PASS), (4800, Status.PASS), (4700, Status.UNKNOWN)])
def test_a_twentieth_of_the_run_may_be_missing_at_the_end(last: int, expected: Status) -> None:
    run = healthy()
    steps, values = run[tags.CRITIC_LOSS]
    run[tags.CRITIC_LOSS] = (steps[steps <= last], values[steps <= last])
    assert result("critic_loss_mean", run).status is expected


def test_a_rare_evaluation_does_not_count_as_a_tag_that_ends_early() -> None:
    run = healthy()
    for tag in (tags.EVAL_DISTANCE, tags.EVAL_RANDOM_DISTANCE, tags.EVAL_BRAKE_DISTANCE):
        steps, values = run[tag]
        run[tag] = (steps[[0, 1, 3]], values[[0, 1, 3]])
    assert verdict(run) is Verdict.GO
    run[tags.EVAL_DISTANCE] = (np.array([1000]), np.array([60.0]))
    assert verdict(run) is Verdict.INSUFFICIENT


@settings(max_examples=100)
@given(data=st.data(), make=st.sampled_from([leaking, dead_policy, with_nan]), seed=st.integers(0, 3))
def test_truncating_one_tag_never_turns_a_failed_run_into_go(data: st.DataObject, make: object, seed: int) -> None:
    run = make(seed)  # type: ignore[operator]
    tag = data.draw(st.sampled_from(sorted(run)))
    steps, values = run[tag]
    last = data.draw(st.integers(int(steps[0]), int(steps[-1])))
    assume(last < 0.9 * steps[-1])
    assert verdict({**run, tag: (steps[steps <= last], values[steps <= last])}) is not Verdict.GO


@settings(max_examples=60)
@given(data=st.data())
def test_removing_q_points_never_makes_a_diverged_actor_loss_pass(data: st.DataObject) -> None:
    run = leaking()
    for tag in (tags.Q1_VALUE, tags.Q2_VALUE, tags.TARGET_Q_MEAN):
        steps, values = run[tag]
        kept = np.array(data.draw(st.lists(st.booleans(), min_size=steps.size, max_size=steps.size)))
        run[tag] = (steps[kept], values[kept])
    for identifier in ("actor_loss_stable", "actor_loss_no_exponential_growth"):
        assert result(identifier, run).status is Status.FAIL


@settings(max_examples=60)
@given(data=st.data())
def test_removing_points_of_the_q_bound_never_makes_a_too_large_q_pass(data: st.DataObject) -> None:
    run = healthy()
    steps, q = run[tags.Q1_VALUE]
    at = data.draw(st.integers(0, steps.size - 1))
    run[tags.Q_BOUND] = (steps, np.linspace(1.0, 500.0, steps.size))
    run[tags.Q1_VALUE] = (steps, np.where(np.arange(steps.size) == at, 600.0, np.clip(q, -0.5, 0.5)))
    assert result("q_within_bound", run).status is Status.FAIL
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=steps.size, max_size=steps.size)))
    run[tags.Q_BOUND] = (steps[kept], run[tags.Q_BOUND][1][kept])
    assert result("q_within_bound", run).status in {Status.FAIL, Status.UNKNOWN}


WITNESSED = {
    "no_nan_or_inf": (tags.CRITIC_LOSS, np.nan),
    "q_magnitude": (tags.Q2_VALUE, -900.0),
    "no_critical_alerts": (tags.ALERT_CRITICAL, 1.0),
}


@pytest.mark.parametrize("identifier", WITNESSED)
@settings(max_examples=40)
@given(data=st.data())
def test_one_bad_point_fails_the_criterion_whatever_other_data_is_removed(identifier: str, data: st.DataObject) -> None:
    tag, bad = WITNESSED[identifier]
    steps, values = HEALTHY[2][tag]
    at = data.draw(st.integers(0, steps.size - 1))
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=steps.size, max_size=steps.size)))
    kept[at] = True
    values = np.where(np.arange(steps.size) == at, bad, values)
    others = data.draw(st.lists(st.sampled_from(sorted(HEALTHY[2].keys() - {tag})), unique=True))
    run = {**{name: HEALTHY[2][name] for name in others}, tag: (steps[kept], values[kept])}
    assert result(identifier, run).status is Status.FAIL


@settings(max_examples=60)
@given(n_points=st.integers(1, 4), data=st.data())
def test_a_run_with_at_most_four_points_per_tag_never_gets_go(n_points: int, data: st.DataObject) -> None:
    run = {}
    for tag, (steps, values) in healthy(data.draw(st.integers(0, 5))).items():
        chosen = sorted(data.draw(st.sets(st.integers(0, steps.size - 1), min_size=1, max_size=n_points)))
        run[tag] = (steps[chosen], values[chosen])
    assert verdict(run) is not Verdict.GO


def test_a_criterion_passes_only_if_all_its_tags_are_logged() -> None:
    both = ("gradients/actor_cnn_clip_fraction", "gradients/actor_mlp_clip_fraction")
    for kind in ("tail_mean_below", "all_finite", "abs_max_at_most", "smooth"):
        criterion = Criterion("mine", "t", kind, both, True, "me", threshold=0.9)
        (whole,) = judge([criterion], as_series(HEALTHY[2]))
        (half,) = judge([criterion], as_series(without(HEALTHY[2], {both[0]})))
        assert (whole.status, half.status) == (Status.PASS, Status.UNKNOWN), kind


def test_removing_an_unused_tag_that_has_the_only_nan_turns_no_go_into_go() -> None:
    """If the only NaN is in a tag that no criterion reads, the verdict without this tag is GO."""
    run = healthy()
    run["other/tag"] = (np.array([1]), np.array([np.nan]))
    assert verdict(run) is Verdict.NO_GO
    assert verdict(without(run, {"other/tag"})) is Verdict.GO


def test_an_empty_series_set_has_no_run_length() -> None:
    assert SeriesSet().length_from(["nothing"]) is None
