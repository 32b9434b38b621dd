"""Data that are taken away: what was NO-GO never becomes GO by it, as far as that can be said.

docs/gating.md says in words what is held here, and what cannot hold.
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
HEALTHY = {shared: healthy(shared_encoder=shared) for shared in (False, True)}
BY_ID = {criterion.id: criterion for criterion in BUILT_IN}


def verdict(run: Values, criteria: tuple[Criterion, ...] = BUILT_IN) -> Verdict:
    return decide(judge(criteria, as_series(run)))


def result(identifier: str, run: Values) -> CriterionResult:
    (only,) = (r for r in judge(BUILT_IN, as_series(run)) if r.id == identifier)
    return only


def without(run: Values, names: set[str]) -> Values:
    return {tag: points for tag, points in run.items() if tag not in names}


def fails_by_a_stray_nan_alone(run: Values, removed: set[str], criteria: tuple[Criterion, ...]) -> bool:
    """The one exception: all that failed is that a tag which nothing asks for was not finite, and it is gone."""
    failed = {r.id for r in judge(criteria, as_series(run)) if r.blocking and r.status is Status.FAIL}
    broken = {tag for tag, (_, values) in run.items() if not np.isfinite(values).all()}
    return failed == {"no_nan_or_inf"} and broken <= removed


CHANGES = ("scale", "end", "nan", "cut", "further", "thin", "zero", "flip")


@st.composite
def damaged_runs(draw: st.DrawFn) -> Values:
    """A healthy run, a few tags of which are changed: scaled, broken off, longer than the others, NaN, mixed up."""
    run = dict(HEALTHY[draw(st.booleans())])
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
        else:
            values = np.where(np.arange(len(values)) % 2 == 0, 1.0 - values, values)
        run[tag] = (steps, values)
    return run


def all_blocking(criteria: tuple[Criterion, ...]) -> tuple[Criterion, ...]:
    return tuple(dataclasses.replace(criterion, blocking=True) for criterion in criteria)


@pytest.mark.parametrize("criteria", [BUILT_IN, all_blocking(BUILT_IN)], ids=["built in", "all blocking"])
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_taking_whole_tags_away_never_makes_go_of_no_go(
    criteria: tuple[Criterion, ...], data: st.DataObject
) -> None:
    run = data.draw(damaged_runs())
    assume(verdict(run, criteria) is Verdict.NO_GO)
    removed = set(data.draw(st.lists(st.sampled_from(sorted(run)), min_size=1, max_size=4, unique=True)))
    if verdict(without(run, removed), criteria) is Verdict.GO:
        assert fails_by_a_stray_nan_alone(run, removed, criteria)
