from __future__ import annotations

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.document import Flag, Section
from sb3_visual_td3.report.sections.critics import TWINS_SAY_NOTHING, Critics, critics, critics_section
from tests.report.synthetic_runs import as_series, healthy, leaking


def of(**values: list[float]) -> SeriesSet:
    names = {"q1": tags.Q1_VALUE, "q2": tags.Q2_VALUE, "bound": tags.Q_BOUND, "gap": tags.Q_GAP}
    return SeriesSet.of(Series(names[key], np.arange(len(v)) * 10, np.array(v)) for key, v in values.items())


def told(found: Critics) -> Section:
    section = critics_section(found)
    assert section is not None
    return section


def text(section: Section) -> str:
    return " ".join(
        "".join(part if isinstance(part, str) else part.text for part in line) for line in section.sentences
    )


def test_differences_between_the_twin_critics_equal_values_computed_by_hand() -> None:
    twins = critics(of(q1=[1.0, 10.0, -20.0], q2=[2.0, 7.0, -20.0])).twins
    assert twins is not None
    assert twins.mean_distance == pytest.approx(4 / 3)
    assert (twins.max_distance, twins.max_step) == (3.0, 10)
    assert twins.mean_difference == pytest.approx(2 / 3)
    assert twins.scale == 20.0
    assert twins.part_of_scale == pytest.approx(4 / 60)
    assert [(row.q1, row.q2) for row in twins.rows] == [(1.0, 2.0), (10.0, 7.0), (-20.0, -20.0)]


def test_the_q_scale_is_at_least_1() -> None:
    found = critics(of(q1=[0.1], q2=[0.2]))
    assert found.twins is not None
    assert found.twins.scale == 1.0
    said = "10 % of the Q scale (the largest |Q| of both critics, but at least 1), which is 1 here. The largest"
    assert said in text(told(found))
    assert "of the Q scale (the largest |Q| of both critics, but at least 1), which is 2 here. " in text(
        told(critics(of(q1=[1.0], q2=[2.0])))
    )


def test_the_largest_ratio_of_q_to_its_bound_at_the_same_step_is_reported() -> None:
    found = critics(of(q1=[5.0, -30.0, 10.0], bound=[100.0, 100.0, 20.0]))
    (use,) = found.bound_use
    assert (use.tag, use.part) == (tags.Q1_VALUE, 0.5)
    assert "at most 50 % of its bound" in text(told(found))


def test_a_q_value_beyond_its_bound_is_flagged_as_overestimation() -> None:
    section = told(critics(of(q1=[5.0, 60.0], bound=[20.0, 20.0])))
    assert "reaches 3x its bound. The rewards allow no |Q| above it, so the critic overestimates" in text(section)
    assert any(isinstance(cell, Flag) for row in section.tables[0].rows for cell in row)


def test_the_section_says_that_agreeing_critics_may_still_overestimate() -> None:
    section = told(critics(of(q1=[5.0, 6.0], q2=[5.0, 6.0])))
    assert TWINS_SAY_NOTHING in text(section)
    assert "is not known whether Q lies beyond what the rewards allow: train/q_bound was not logged" in text(section)


def test_agreement_of_the_critics_is_unknown_if_only_q1_was_logged() -> None:
    assert "not known whether the critics agree, because Q1 and Q2 were never logged at the same step" in text(
        told(critics(of(q1=[5.0])))
    )


def test_the_final_q_gap_is_reported_with_its_percentage_of_the_q_scale() -> None:
    found = critics(of(q1=[10.0] * 8, q2=[10.0] * 8, gap=[9.0] * 6 + [2.0, 2.0]))
    assert found.gap == 2.0
    said = text(told(found))
    assert "train/q_gap ends at +2 (median of the last quarter). " in said
    assert (
        "much higher than replayed actions. This is 20 % of the Q scale "
        "(the largest |Q| of both critics, but at least 1), which is 10 here." in said
    )


def test_a_negative_q_gap_without_q2_is_called_lower_and_has_no_scale() -> None:
    said = text(told(critics(of(q1=[10.0], gap=[-2.0]))))
    assert said.endswith("The critic rates the policy's own actions this much lower than replayed actions.")


def test_an_actor_loss_that_is_too_large_for_the_q_values_is_reported() -> None:
    leak, sound = (told(critics(as_series(run))) for run in (leaking(), healthy()))
    assert "the loss became too large for these Q values" in text(leak)
    assert "too large for these Q values" not in text(sound)


def test_without_critics_there_is_no_section() -> None:
    assert critics_section(critics(SeriesSet())) is None
