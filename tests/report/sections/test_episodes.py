from __future__ import annotations

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.document import Section
from sb3_visual_td3.report.sections.episodes import Episodes, episodes, episodes_section


def of(
    lengths: list[float] | None = None,
    rewards: list[float] | None = None,
    collisions: list[float] | None = None,
    first: int = 0,
) -> SeriesSet:
    points = {tags.EPISODE_LENGTH: lengths, tags.EPISODE_REWARD: rewards, tags.EPISODE_COLLISIONS: collisions}
    return SeriesSet.of(
        Series(tag, np.arange(first, first + len(values)), np.array(values)) for tag, values in points.items() if values
    )


def text(found: Episodes) -> str:
    section = episodes_section(found)
    assert isinstance(section, Section)
    return " ".join(
        "".join(part if isinstance(part, str) else part.text for part in line) for line in section.sentences
    )


def test_lengths_rewards_and_incidents_are_as_computed_by_hand() -> None:
    found = episodes(of([10.0, 20.0, 70.0], [5.0, 10.0, 185.0], [1.0, 0.0, 2.0]))
    assert (found.n, found.n_steps) == (3, 100.0)
    assert found.mean_length == pytest.approx(100 / 3)
    assert (found.median_length, found.shortest, found.longest) == (20.0, 10.0, 70.0)
    assert found.reward_per_step == 2.0
    assert found.collisions is not None
    assert (found.collisions.total, found.collisions.per_episode, found.collisions.per_1000_steps) == (3.0, 1.0, 30.0)
    assert found.lane_invasions is None
    assert [e.end_step for e in found.first] == [10, 30, 100]
    assert [e.reward_per_step for e in found.first] == [0.5, 0.5, 185 / 70]


@pytest.mark.parametrize(("n", "n_last"), [(3, 0), (10, 0), (12, 2), (20, 10), (413, 10)])
def test_the_first_ten_and_the_last_ten_episodes_do_not_overlap(n: int, n_last: int) -> None:
    found = episodes(of([5.0] * n))
    assert [e.episode for e in found.first] == list(range(min(n, 10)))
    assert [e.episode for e in found.last] == list(range(n - n_last, n))


def test_the_last_ten_of_the_summary_are_the_last_ten_of_the_run() -> None:
    section = episodes_section(episodes(of([100.0, 100.0, *[1.0] * 10])))
    assert section is not None
    summary = {row[0]: row[1] for row in section.tables[0].rows}
    assert summary == {"First ten": "20.8", "All": "17.5", "Last ten": "1"}


def test_a_collapse_is_flagged_with_the_gain_in_reward_per_step() -> None:
    lengths = [60.0] * 20 + [3.0] * 300
    found = episodes(of(lengths, [length * (1.0 if length > 10 else 4.0) for length in lengths]))
    assert found.trend == 0.05
    assert found.has_collapsed is True
    said = "Collapsed: the median length is 60 in the first third of the run's steps and 3 in the last third (0.05x)."
    assert said in text(found)
    assert "rose from 1 in the first ten episodes to 4 in the last ten" in text(found)


def test_episodes_that_grow_have_not_collapsed() -> None:
    found = episodes(of([10.0] * 20 + [40.0] * 20))
    assert found.has_collapsed is False
    assert "Collapsed" not in text(found)


def test_too_few_episodes_have_no_trend() -> None:
    found = episodes(of([10.0, 20.0]))
    assert (found.trend, found.has_collapsed) == (None, None)
    assert "too few episodes" in text(found)


def test_end_steps_of_episodes_are_unknown_after_a_missing_episode() -> None:
    gap = Series(tags.EPISODE_LENGTH, np.array([0, 1, 3]), np.array([4.0, 5.0, 6.0]))
    assert [e.end_step for e in episodes(SeriesSet.of([gap])).first] == [4, 9, None]
    assert [e.end_step for e in episodes(of([4.0, 5.0], first=7)).first] == [None, None]


def test_rewards_are_reported_without_lengths() -> None:
    found = episodes(of(rewards=[1.0, 2.0]))
    assert (found.n, found.mean_length, found.reward_per_step) == (2, None, None)
    assert "their lengths were not logged" in text(found)


def test_the_moving_mean_of_a_stock_run_is_named_as_such() -> None:
    means = Series("rollout/ep_len_mean", np.array([100, 200]), np.array([30.0, 45.0]))
    found = episodes(SeriesSet.of([means]))
    assert found.moving_mean == (30.0, 45.0)
    assert "a moving mean, went from 30 to 45. The lengths of single episodes were not logged" in text(found)
    assert episodes_section(episodes(SeriesSet())) is None
