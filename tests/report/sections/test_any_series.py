"""Test that every section can be computed and rendered for any log, and that its counts match the log."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import callbacks_that_fit
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.analysis import RunSections
from sb3_visual_td3.report.document import Section
from sb3_visual_td3.report.plots import overlays, plots
from sb3_visual_td3.report.render_html import render_html
from sb3_visual_td3.report.render_json import render_json
from sb3_visual_td3.report.render_markdown import MAX_CHARACTERS, render_markdown
from sb3_visual_td3.report.sections.availability import availability, logged_section, missing_section
from tests.report.test_renderers import analysed

NAMES = st.sampled_from([*tags.TAGS, "rollout/ep_len_mean", "reward/own", "alerts/own", "a|b`<x>", "../../x"])
VALUES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324]),
)
STEPS = st.integers(-5, 20_000)
POINTS = st.lists(st.tuples(STEPS, VALUES), min_size=1, max_size=15)
RUNS = st.dictionaries(NAMES, POINTS, max_size=30)
Points = dict[str, list[tuple[int, float]]]

ANY = settings(max_examples=150)


def series_of(points: Points) -> SeriesSet:
    return SeriesSet.of(Series(t, np.array([s for s, _ in p]), np.array([v for _, v in p])) for t, p in points.items())


def finite(points: Points, tag: str) -> list[float]:
    return [value for _, value in points.get(tag, []) if math.isfinite(value)]


@ANY
@given(RUNS)
def test_every_section_can_be_computed_and_rendered(points: Points) -> None:
    found = RunSections.of(series_of(points))
    for section in found.as_document():
        assert isinstance(section, Section)
        assert section.sentences or section.tables
        cells = [cell for table in section.tables for row in table.rows for cell in row]
        assert all(isinstance(cell, str) or cell.text for cell in cells)


@ANY
@given(RUNS)
def test_the_counts_match_the_log(points: Points) -> None:
    data = series_of(points)
    found = RunSections.of(data)
    logged = {one.tag: one.n for kind in found.availability.kinds for one in kind.logged}
    assert logged == {tag: len(p) for tag, p in points.items()}
    missing = {one.tag for kind in found.availability.kinds for one in kind.missing}
    fits = callbacks_that_fit(data)
    assert missing == {name for name, tag in tags.TAGS.items() if name not in points and tag.owner in fits}
    for alert in found.alerts.values():
        assert alert.n_active == sum(value == 1.0 for _, value in points[alert.tag])
        assert sum(stretch.n_points for stretch in alert.stretches) == alert.n_active
    shares = [term.share for term in found.rewards.terms]
    if shares and None not in shares:
        assert math.isclose(sum(share or 0.0 for share in shares), 1.0, rel_tol=1e-9)
    episodes = [*found.episodes.first, *found.episodes.last]
    assert len({episode.episode for episode in episodes}) == len(episodes) <= 20
    assert {one.tag for one in found.growth.timelines} == {
        tag
        for tag in (*tags.GRADIENT_NORM.values(), tags.ACTOR_LOSS, tags.CRITIC_LOSS, tags.Q1_VALUE)
        if finite(points, tag)
    }


@settings(max_examples=40)
@given(RUNS.filter(bool))
def test_every_format_and_every_plot_can_be_made(points: Points) -> None:
    run = {t: (np.array([s for s, _ in p]), np.array([v for _, v in p])) for t, p in points.items()}
    analysis = analysed(run)
    for plot in (*plots(analysis), *overlays([analysis, analysis])):
        json.dumps(plot.figure, allow_nan=False)
    json.loads(render_json([analysis]), parse_constant=lambda constant: 1 / 0)
    assert len(render_markdown([analysis])) <= MAX_CHARACTERS
    assert f'id="verdict">{analysis.verdict.value}<' in render_html([analysis])


def test_an_empty_log_has_only_the_section_on_unknown_reward_shares() -> None:
    found = RunSections.of(SeriesSet())
    assert [section.id for section in found.as_document()] == ["rewards"]
    assert logged_section(found.availability, {}).tables[0].rows
    missing = missing_section(availability(SeriesSet()))
    assert missing is not None
    fits = callbacks_that_fit(SeriesSet())
    assert len(missing.tables[0].rows) == sum(tag.owner in fits for tag in tags.TAGS.values()) > 0
