from __future__ import annotations

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import GROUP_NAMES
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.document import Flag
from sb3_visual_td3.report.sections.norms import Norms, norms, norms_section
from tests.report.synthetic_runs import as_series, complete, dead_policy, healthy, leaking


def of(**groups: list[float]) -> SeriesSet:
    return SeriesSet.of(
        Series(tags.GRADIENT_NORM[group], np.arange(len(values)) * 100, np.array(values))
        for group, values in groups.items()
    )


def test_ratios_are_those_of_the_common_steps_as_computed_by_hand() -> None:
    found = norms(of(actor_cnn=[10.0, 40.0, 90.0], critic_cnn=[5.0, 10.0, 30.0]))
    (ratio,) = found.ratios
    assert (ratio.numerator, ratio.denominator, ratio.n, ratio.n_zero) == ("actor_cnn", "critic_cnn", 3, 0)
    assert ratio.mean == pytest.approx((2 + 4 + 3) / 3)
    assert (ratio.median, ratio.max, ratio.max_step) == (3.0, 4.0, 100)
    assert ratio.ratio_of_means == pytest.approx(140 / 45)
    assert [row.ratio for row in ratio.rows] == [2.0, 4.0, 3.0]


def test_a_denominator_of_zero_is_left_out_of_the_ratios_and_reported() -> None:
    found = norms(of(actor_cnn=[10.0, 20.0, 30.0], actor_mlp=[2.0, 0.0, 0.0]))
    (ratio,) = found.ratios
    assert (ratio.mean, ratio.max, ratio.n_zero) == (5.0, 5.0, 2)
    assert [row.ratio for row in ratio.rows] == [5.0, None, None]
    section = norms_section(found)
    assert section is not None
    assert any("0 at 2 of 3 common steps" in str(sentence) for sentence in section.sentences)


def test_a_denominator_that_is_always_zero_leaves_no_ratio() -> None:
    (ratio,) = norms(of(actor_cnn=[1.0, 2.0], actor_mlp=[0.0, 0.0])).ratios
    assert (ratio.mean, ratio.max, ratio.max_step, ratio.ratio_of_means) == (None, None, None, None)


def test_norms_without_a_common_step_have_no_ratio() -> None:
    data = of(actor_cnn=[1.0, 2.0])
    other = Series(tags.GRADIENT_NORM["critic_cnn"], np.array([5, 7]), np.array([1.0, 1.0]))
    assert norms(SeriesSet({**data.series, other.name: other})).ratios == ()


def taken(data: SeriesSet) -> str:
    return norms(data, diagnose(data)).taken


def test_the_section_says_when_the_norms_were_taken() -> None:
    assert taken(as_series(healthy())) == "before"  # it logged what was clipped
    assert taken(as_series(complete())) == "optimizer"  # it says so itself
    bare = leaking()
    for group in GROUP_NAMES:
        bare.pop(tags.CLIP_FRACTION[group], None)
    assert taken(as_series(bare)) == "not said"
    masked = leaking(clipped_norms=True)
    for group in GROUP_NAMES:
        masked.pop(tags.CLIP_FRACTION[group], None)
    assert taken(as_series(masked)) == "after, by its look"


def last_of(found: Norms) -> dict[str, object]:
    section = norms_section(found)
    assert section is not None
    table = section.tables[0]
    at = [column.heading for column in table.columns].index("Last")
    return {row[0].text: row[at] for row in table.rows}  # type: ignore[union-attr]


def test_a_head_without_a_gradient_is_flagged_and_a_healthy_one_is_not() -> None:
    assert isinstance(last_of(norms(as_series(dead_policy())))["actor_mlp"], Flag)
    assert not any(isinstance(cell, Flag) for cell in last_of(norms(as_series(healthy()))).values())


def test_clip_fractions_and_steps_stand_beside_the_norms() -> None:
    groups = {group.group: group for group in norms(as_series(complete())).groups}
    assert set(groups) == set(GROUP_NAMES)
    assert groups["critic_cnn"].clip_fraction == 1.0
    assert groups["critic_cnn"].mean_clipped == 10.0
    assert groups["actor_cnn"].update_ratio == pytest.approx(6e-4, rel=0.2)
    bare = norms(of(actor_cnn=[1.0])).groups[0]
    assert (bare.clip_fraction, bare.mean_clipped, bare.update_ratio) == (None, None, None)
    assert norms_section(norms(SeriesSet())) is None
