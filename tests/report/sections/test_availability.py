from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import judge, load_criteria
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.document import Code
from sb3_visual_td3.report.sections.availability import KINDS, availability, kind_of, missing_section
from sb3_visual_td3.report.sections.episodes import evaluations, evaluations_section
from tests.report.synthetic_runs import as_series, complete, foreign, healthy


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        (tags.EPISODE_REWARD, "episode"),
        (tags.ACTOR_LOSS, "update"),
        (tags.GRADIENT_NORM["actor_cnn"], "norms"),
        (tags.ALERT_CRITICAL, "alerts"),
        (tags.TOTAL_ITERATIONS, "agent"),
        (tags.PROGRESS_SPEED, "progress"),
        (tags.REWARD_TERM["safety"], "reward"),
        ("reward/of_another_environment", "reward"),
        (tags.EVAL_REWARD, "eval"),
        ("rollout/ep_rew_mean", "other"),
        ("train/of_another_library", "update"),
    ],
)
def test_every_tag_has_a_kind(tag: str, kind: str) -> None:
    assert kind_of(tag) == kind


def test_every_name_is_either_logged_or_missing_and_in_one_kind() -> None:
    data = as_series(healthy())
    found = availability(data)
    logged = [one.tag for kind in found.kinds for one in kind.logged]
    missing = [one.tag for kind in found.kinds for one in kind.missing]
    assert sorted(logged) == data.names()
    assert sorted([*logged, *missing]) == sorted(tags.TAGS)
    assert [kind.id for kind in found.kinds] == [kind for kind in KINDS if kind != "other"]
    assert sum(kind.n_points for kind in found.kinds) == sum(len(series) for series in data.series.values())


def test_a_return_is_not_listed_among_the_reward_terms() -> None:
    found = availability(
        SeriesSet.of(Series(tag, np.array([1]), np.ones(1)) for tag in ("reward/eval", "reward/speed"))
    )
    kinds = {one.tag: kind.id for kind in found.kinds for one in kind.logged}
    assert kinds == {"reward/eval": "other", "reward/speed": "reward"}


def test_missing_tags_have_a_meaning_an_owner_and_their_criteria() -> None:
    data = as_series(foreign())
    found = availability(data, judge(load_criteria(), data))
    missing = {one.tag: one for kind in found.kinds for one in kind.missing}
    assert missing[tags.ACTION_SATURATION].needed_by == ("policy_is_alive", "no_sure_cause")
    assert missing[tags.ACTION_SATURATION].owner == "GradientNormCallback"
    assert missing[tags.ACTION_SATURATION].meaning == tags.TAGS[tags.ACTION_SATURATION].meaning
    assert "q_within_bound" in missing[tags.Q_BOUND].needed_by  # its check reads it beside the criterion's own tags
    assert missing[tags.FRAME_STD].needed_by == ("no_sure_cause",)
    # Nothing shows that this environment drives.
    assert tags.PROGRESS_SPEED not in missing


def test_the_criteria_that_lack_a_tag_are_named_first() -> None:
    data = as_series(foreign())
    section = missing_section(availability(data, judge(load_criteria(), data)))
    assert section is not None
    n_fit = sum(tag.owner not in {"DrivingMetricsCallback", "DrivingEvalCallback"} for tag in tags.TAGS.values())
    assert section.sentences[0] == (
        f"The report knows {n_fit} tags that fit this kind of run. The run did not log {n_fit - 2} of them.",
    )
    assert Code(tags.ACTION_SATURATION) in section.sentences[1]


def test_a_run_that_logged_everything_lacks_nothing() -> None:
    assert missing_section(availability(as_series(complete()))) is None


def test_evaluations_are_listed_by_step_with_their_figures() -> None:
    run = {
        tags.EVAL_REWARD: (np.array([1000, 2000]), np.array([5.0, 9.0])),
        tags.EVAL_DISTANCE: (np.array([2000]), np.array([44.0])),
    }
    found = evaluations(as_series(run))
    assert [(row.step, row.reward, row.distance_m) for row in found.rows] == [(1000, 5.0, None), (2000, 9.0, 44.0)]
    many = {tags.EVAL_REWARD: (np.arange(100), np.arange(100.0))}
    rows = evaluations(as_series(many)).rows
    assert (len(rows), rows[0].step, rows[-1].step) == (12, 0, 99)
    assert evaluations_section(evaluations(as_series(foreign()))) is None


def test_the_package_of_the_sections_is_part_of_the_wheel() -> None:
    root = Path(__file__).resolve().parents[3]
    listed = (root / "setup.cfg").read_text()
    packages = {p.parent.relative_to(root).as_posix().replace("/", ".") for p in root.glob("sb3_visual_td3/**/*.py")}
    assert not {package for package in packages if f"    {package}\n" not in listed}
