"""Test that settings supply what the event file does not show, and that the notes say so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import load_criteria
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import Status, Verdict
from sb3_visual_td3.report.analysis import Analysis, analyse
from sb3_visual_td3.report.event_reader import RunData
from sb3_visual_td3.report.render_html import render_html
from sb3_visual_td3.report.render_json import render_json
from sb3_visual_td3.report.run_settings import Layer, run_settings

from .synthetic_runs import Values, as_series, healthy, leaking, write_events

Report = Callable[..., int]


def without(run: Values, *names: str) -> Values:
    return {tag: points for tag, points in run.items() if tag not in names}


def shared_run() -> Values:
    """Return a healthy run with a shared encoder, without the tag that says that the encoder is shared."""
    return without(healthy(shared_encoder=True), tags.ENCODER_IS_SHARED)


def silent_on_rewards(make: Callable[[], Values] = healthy) -> Values:
    return without(make(), tags.REWARD_IS_NORMALIZED)


def analysed(run: Values, **content: Any) -> Analysis:
    settings, _ = run_settings(Layer.of("mine.yml", content) if content else None, None, None)
    return analyse(RunData(Path("run"), as_series(run), (), 1), load_criteria(), name="run", settings=settings)


def statuses(analysis: Analysis) -> dict[str, tuple[Status, bool]]:
    return {r.id: (r.status, r.blocking) for r in analysis.criteria}


def test_a_shared_encoder_known_only_from_settings_changes_the_verdict_and_is_noted() -> None:
    alone, told = analysed(shared_run()), analysed(shared_run(), policy_kwargs={"encoder": "shared"})
    assert alone.verdict is Verdict.INSUFFICIENT
    assert told.verdict is Verdict.GO
    assert statuses(told)["actor_cnn_norm_mean"] == (Status.NOT_APPLICABLE, True)
    first, second = told.notes
    assert first.startswith(
        "The event file does not show these properties, so they are taken from the settings: actor and critic "
        "share one encoder (according to mine.yml)."
    )
    assert "actor_cnn_norm_mean, actor_cnn_norm_no_go" in first
    assert second == "From the event file alone the verdict would be INSUFFICIENT, not GO"
    assert [(a.tag, a.source) for a in told.stated_properties] == [(tags.ENCODER_IS_SHARED, "mine.yml")]


def test_the_page_and_the_json_say_whether_settings_were_used() -> None:
    alone, told = analysed(shared_run()), analysed(shared_run(), policy_kwargs={"encoder": "shared"})
    assert "Judged from the event files alone." in render_html([alone])
    assert "Judged from the event files, and where the notes say so from the run's settings." in render_html([told])
    stated = {"tag": tags.ENCODER_IS_SHARED, "meaning": "actor and critic share one encoder", "source": "mine.yml"}
    assert json.loads(render_json([alone]))["run"]["answers"] == []
    assert json.loads(render_json([told]))["run"]["answers"] == [stated]


def test_the_event_file_takes_precedence_over_settings_that_claim_a_shared_encoder() -> None:
    run = without(leaking(), tags.ENCODER_IS_SHARED)
    told = analysed(run, encoder="shared")
    assert told.verdict is Verdict.NO_GO
    assert told.diagnoses[0].id == "feature_leak"
    assert told.stated_properties == ()
    assert "the event file takes precedence" in told.notes[0]
    assert statuses(told) == statuses(analysed(run))


def test_a_logged_flag_takes_precedence_over_the_settings() -> None:
    run = healthy(shared_encoder=False)
    told = analysed(run, encoder="shared", reward_is_normalized=True)
    assert told.stated_properties == ()
    assert statuses(told) == statuses(analysed(run))


def test_normalised_rewards_known_from_settings_unblock_scale_dependent_criteria() -> None:
    run = silent_on_rewards()
    steps, loss = run[tags.CRITIC_LOSS]
    run[tags.CRITIC_LOSS] = (steps, loss * 100)
    assert analysed(run).verdict is Verdict.NO_GO
    told = analysed(run, normalize={"norm_reward": True})
    assert told.verdict is Verdict.GO
    assert statuses(told)["critic_loss_mean"] == (Status.FAIL, False)
    assert "the rewards are normalised (according to mine.yml)" in told.notes[0]
    assert "critic_loss_mean" in told.notes[0]
    assert told.notes[1] == "From the event file alone the verdict would be NO-GO, not GO"


@pytest.mark.parametrize("content", [{"normalize": False}, {"encoder": "separate"}, {"tau": 0.005}, {}])
def test_settings_without_shared_encoder_or_normalised_rewards_change_no_result(content: dict[str, Any]) -> None:
    run = without(shared_run(), tags.REWARD_IS_NORMALIZED)
    told = analysed(run, **content)
    assert told.notes == ()
    assert statuses(told) == statuses(analysed(run))


def test_a_note_names_a_diagnosis_that_the_settings_rule_out() -> None:
    run = {tag: points for tag, points in leaking().items() if "actor_cnn" not in tag and tag != tags.ENCODER_IS_SHARED}
    assert analysed(run).diagnoses[0].id == "feature_leak"
    told = analysed(run, encoder="shared")
    assert "feature_leak" not in {d.id for d in told.diagnoses}
    assert "feature_leak" in told.notes[0]
    assert told.verdict is Verdict.NO_GO


def test_a_flag_known_only_from_settings_is_listed_as_a_missing_tag() -> None:
    told = analysed(shared_run(), encoder="shared")
    assert tags.ENCODER_IS_SHARED not in told.metrics
    assert tags.ENCODER_IS_SHARED in told.missing
    assert told.series.n_steps == analysed(shared_run()).series.n_steps


def test_known_flags_are_used_only_for_tags_that_were_not_logged() -> None:
    series = as_series(healthy(shared_encoder=False))
    assert SeriesSet(series.series, {tags.ENCODER_IS_SHARED: True}).flag(tags.ENCODER_IS_SHARED) is False
    assert SeriesSet({}, {tags.ENCODER_IS_SHARED: True}).flag(tags.ENCODER_IS_SHARED) is True
    assert SeriesSet().flag(tags.ENCODER_IS_SHARED) is None


def test_pairs_instead_of_a_file_of_hyperparameters_are_explained(report: Report, tmp_path: Path, capsys: Any) -> None:
    write_events(shared_run(), tmp_path / "run")
    assert report(tmp_path / "run", "--hyperparams", "gamma:0.9") == 2
    assert "Here the flag takes a file of names and values" in capsys.readouterr().err


def test_reports_say_whether_the_verdict_used_settings_besides_the_event_files(report: Report, tmp_path: Path) -> None:
    write_events(shared_run(), tmp_path / "run")
    (tmp_path / "mine.yml").write_text("encoder: shared\n")
    assert report(tmp_path / "run") == 3
    assert "Judged from the event files alone." in (tmp_path / "out" / "report.html").read_text()
    assert report(tmp_path / "run", "--hyperparams", tmp_path / "mine.yml") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Judged from the event files alone." not in page
    for text in (page, (tmp_path / "out" / "report.md").read_text()):
        assert "From the event file alone the verdict would be INSUFFICIENT, not GO" in text
    run = json.loads((tmp_path / "out" / "report.json").read_text())["run"]
    assert run["answers"] == [
        {
            "tag": tags.ENCODER_IS_SHARED,
            "meaning": "actor and critic share one encoder",
            "source": "mine.yml",
        }
    ]


def test_the_q_bound_does_not_apply_to_undiscounted_returns_known_from_any_source() -> None:
    """A logged flag, an infinite Q bound (earlier versions) or gamma in the settings shows undiscounted returns."""
    unbounded = without(healthy(), tags.Q_BOUND)
    steps, bound = healthy()[tags.Q_BOUND]
    flagged = {**unbounded, tags.RETURN_IS_UNDISCOUNTED: (steps, bound / bound)}
    infinite = {**unbounded, tags.Q_BOUND: (steps, np.full(steps.size, np.inf))}
    for analysis in (analysed(flagged), analysed(infinite), analysed(unbounded, gamma=1.0)):
        assert statuses(analysis)["q_within_bound"][0] is Status.NOT_APPLICABLE
        assert statuses(analysis)["no_nan_or_inf"][0] is Status.PASS
        assert "non_finite" not in {diagnosis.id for diagnosis in analysis.diagnoses}
        assert analysis.verdict is Verdict.GO
    assert statuses(analysed(unbounded, gamma=0.99))["q_within_bound"][0] is Status.UNKNOWN


def frozen_encoder(run: Values, begin: int = 0) -> Values:
    """Return the run with an actor's encoder that is frozen from step ``begin`` on.

    From this step on, no gradients of the encoder are logged.
    """
    steps = run[tags.ACTOR_LOSS][0]
    ended = {tag: tuple(part[run[tag][0] < begin] for part in run[tag]) for tag in run if "gradients/actor_cnn" in tag}
    run = {**run, **{tag: (at, values) for tag, (at, values) in ended.items()}}
    return {**run, tags.GROUP_FROZEN["actor_cnn"]: (steps, (steps >= begin).astype(float))}


def test_criteria_on_the_gradients_of_an_always_frozen_encoder_do_not_apply() -> None:
    analysis = analysed(frozen_encoder(healthy()))
    assert statuses(analysis)["actor_cnn_norm_mean"][0] is Status.NOT_APPLICABLE
    assert analysis.verdict is Verdict.GO
    assert "encoder_frozen" not in {diagnosis.id for diagnosis in analysis.diagnoses}
    details = {result.id: result.detail for result in analysis.criteria}
    assert details["actor_cnn_norm_mean"] == "these weights are not trained"


def test_a_group_that_is_frozen_later_is_judged_by_its_earlier_points() -> None:
    late = frozen_encoder(healthy(), begin=3000)
    analysis = analysed(late)
    assert statuses(analysis)["actor_cnn_norm_mean"][0] is Status.PASS
    assert analysis.verdict is Verdict.GO
    untold = analysed(without(late, tags.GROUP_FROZEN["actor_cnn"]))
    assert statuses(untold)["actor_cnn_norm_mean"][0] is Status.UNKNOWN, "a series that breaks off proves nothing"
