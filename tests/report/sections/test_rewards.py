from __future__ import annotations

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.document import Code, Flag
from sb3_visual_td3.report.sections.rewards import DOMINATES, rewards, rewards_section


def of(**terms: list[float]) -> SeriesSet:
    return SeriesSet.of(Series(f"reward/{name}", np.arange(len(v)), np.array(v)) for name, v in terms.items())


def test_shares_are_of_the_sum_of_magnitudes_as_computed_by_hand() -> None:
    found = rewards(of(progress=[4.0, 8.0], comfort=[-1.0, 1.0], safety=[0.0, -6.0]))
    assert [(term.name, term.mean, term.mean_magnitude) for term in found.terms] == [
        ("progress", 6.0, 6.0),
        ("safety", -3.0, 3.0),
        ("comfort", 0.0, 1.0),
    ]
    assert [term.share for term in found.terms] == [0.6, 0.3, 0.1]
    assert found.dominating is None


def test_the_shares_of_all_terms_sum_to_1() -> None:
    rng = np.random.default_rng(0)
    found = rewards(of(**{f"t{i}": rng.normal(size=20).tolist() for i in range(7)}))
    assert sum(term.share or 0.0 for term in found.terms) == pytest.approx(1.0)


@pytest.mark.parametrize(("large", "dominates"), [(DOMINATES, True), (DOMINATES - 0.01, False)])
def test_a_reward_term_is_flagged_as_dominating_from_the_threshold_share_on(large: float, dominates: bool) -> None:
    found = rewards(of(a=[large * 100], b=[-(1 - large) * 100]))
    assert (found.dominating is not None) is dominates
    section = rewards_section(found)
    assert any(isinstance(cell, Flag) for row in section.tables[0].rows for cell in row) is dominates


def test_a_reward_of_one_term_is_not_called_an_imbalance() -> None:
    assert rewards(of(only=[3.0, 3.0])).dominating is None


def test_terms_that_are_all_zero_have_no_share() -> None:
    found = rewards(of(a=[0.0], b=[0.0]))
    assert [term.share for term in found.terms] == [None, None]
    assert found.dominating is None
    assert rewards_section(found).sentences == (("The largest term of the reward is ", Code("reward/a"), "."),)


def test_without_terms_the_shares_are_unknown() -> None:
    section = rewards_section(rewards(SeriesSet()))
    assert section.sentences[0] == ("Unknown: no term was logged under ", Code("reward/"), ".")
    assert section.tables == ()


def test_a_return_is_not_a_term_of_the_reward() -> None:
    assert rewards(of(eval=[90.0, 300.0], train=[9.0, 30.0])).terms == ()
    episodes = Series("rollout/ep_rew_mean", np.array([1]), np.array([1.0]))
    terms = rewards(SeriesSet.of([*of(total=[3.0], speed=[1.0]).series.values(), episodes])).terms
    assert [term.name for term in terms] == ["total", "speed"]


@pytest.mark.parametrize("tag", ["charts/episodic_return", "eval/mean_reward", "rollout/ep_rew_mean"])
def test_terms_with_the_names_of_returns_count_if_the_returns_are_logged_elsewhere(tag: str) -> None:
    returns = Series(tag, np.array([1]), np.array([1.0]))
    series = of(env=[5.0], agent=[4.0], all=[3.0], collision=[2.0]).series
    terms = rewards(SeriesSet.of([*series.values(), returns])).terms
    assert [term.name for term in terms] == ["env", "agent", "all", "collision"]
    if tag != "rollout/ep_rew_mean":
        of_returns = of(mean=[5.0], eval=[4.0], episode=[3.0], score=[2.0], env=[1.0]).series
        assert [term.name for term in rewards(SeriesSet.of([*of_returns.values(), returns])).terms] == ["env"]


def test_the_range_of_the_critics_rewards_is_reported() -> None:
    points = {tags.REWARD_MIN: [-2.0, -5.0], tags.REWARD_MAX: [1.0, 3.0], tags.REWARD_IS_NORMALIZED: [1.0, 1.0]}
    data = SeriesSet.of(Series(tag, np.array([1, 2]), np.array(v)) for tag, v in points.items())
    assert rewards(data).critic_range == (-5.0, 3.0)
    assert "trained on scaled rewards. They range from -5 to 3." in str(rewards_section(rewards(data)).sentences)
