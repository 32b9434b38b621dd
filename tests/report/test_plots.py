from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import load_criteria
from sb3_visual_td3.diagnosis.series import Series
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.panels import PANELS, Line
from sb3_visual_td3.report.plots import (
    CRITICAL,
    MAX_BANDS,
    OTHER,
    WARNING,
    Figure,
    Plot,
    alert_bands,
    curves,
    in_pairs,
    joined_stretches,
    overlays,
    plots,
)
from sb3_visual_td3.report.sections.alerts import Alert
from sb3_visual_td3.report.wording import answers_line
from tests.report.synthetic_runs import complete, foreign, healthy, leaking
from tests.report.test_renderers import analysed


def ids(analysis: Analysis) -> list[str]:
    return [plot.id for plot in plots(analysis)]


def figure(analysis: Analysis, name: str) -> Figure:
    return next(plot.figure for plot in plots(analysis) if plot.id == name)


def test_plots_appear_only_if_they_have_data() -> None:
    assert ids(analysed(foreign())) == ["returns", "actor_loss", "critic_loss"]
    assert ids(analysed(healthy())) == [
        "actor_loss",
        "gradients",
        "q_values",
        "q_bound",
        "critic_loss",
        "policy",
        "pre_tanh",
        "driving",
        "clipping",
        "update_ratios",
        "episode_length",
    ]


def x_title(drawn: Figure) -> str:
    return str(drawn["layout"]["xaxis"]["title"]["text"])


def rising(n_steps: int = 60_000) -> tuple[np.ndarray, np.ndarray]:
    steps = np.arange(1000, n_steps + 1, 1000)
    return steps, steps / 600.0 + np.random.default_rng(0).normal(0, 2, steps.size)


def test_the_returns_plot_is_there_unless_another_plot_shows_the_judged_curve() -> None:
    ours = healthy()
    for tag in (tags.EVAL_DISTANCE, tags.EVAL_RANDOM_DISTANCE, tags.EVAL_BRAKE_DISTANCE):
        del ours[tag]
    ours |= {"rollout/ep_rew_mean": rising(), tags.EVAL_REWARD: rising()}
    assert ids(analysed(ours))[:2] == ["actor_loss", "returns"]
    names = {line["name"] for line in figure(analysed(ours), "returns")["data"]}
    assert names == {"rollout/ep_rew_mean", tags.EVAL_REWARD}
    episodes = {tags.EPISODE_REWARD: (np.arange(60), rising()[1]), tags.CRITIC_LOSS: (rising()[0], np.ones(60))}
    assert ids(analysed(episodes)) == ["episode_reward", "critic_loss"]


@pytest.mark.parametrize(
    ("axis", "returns", "loss"),
    [
        ("environment steps", "environment step", "environment step"),
        ("epochs", "epoch", "epoch"),
        ("episodes", "episode", "step"),
        ("steps", "episode", "step"),
    ],
)
def test_the_x_axis_says_environment_step_only_if_this_is_known(axis: str, returns: str, loss: str) -> None:
    steps = np.arange(300)
    run = {"Episode/Return": (steps, steps + np.random.default_rng(0).normal(0, 3, 300))}
    analysis = analysed({**run, "reward/speed": (steps, np.ones(300))})
    analysis = replace(analysis, data=replace(analysis.data, axis=axis))
    assert x_title(figure(analysis, "returns")) == returns
    assert x_title(figure(analysis, "reward_terms")) == loss


@pytest.mark.parametrize(("last", "unit"), [(10_000, "environment step"), (200_000, "episode")])
def test_the_x_axis_of_returns_at_equal_intervals_is_that_of_the_judgement(last: int, unit: str) -> None:
    steps, losses = np.arange(50, 10_001, 50), np.linspace(50, last, 200).astype(int)
    returns = np.minimum(steps, 5000) / 50 + np.random.default_rng(0).normal(0, 3, 200)
    analysis = analysed({"episode_reward": (steps, returns), tags.ACTOR_LOSS: (losses, np.ones(200))})
    assert x_title(figure(analysis, "returns")) == unit
    assert f"best near {unit.removeprefix('environment ')} " in answers_line(analysis)


def test_the_judged_curves_of_several_runs_are_drawn_together_if_their_units_agree() -> None:
    first = analysed({"rollout/ep_rew_mean": rising()}, "a")
    second = analysed({"rollout/ep_rew_mean": rising(), tags.EVAL_REWARD: rising()}, "b")
    (plot,) = overlays([first, second])
    assert (plot.id, x_title(plot.figure)) == ("runs_returns", "environment step")
    assert [line["name"] for line in plot.figure["data"]] == ["a: rollout/ep_rew_mean", "b: eval/mean_reward"]
    (plot,) = overlays([first, replace(first, name="e")])
    assert [line["name"] for line in plot.figure["data"]] == ["a", "e"]
    by_episode = analysed({tags.EPISODE_REWARD: (np.arange(60), rising()[1])}, "c")
    assert overlays([first, by_episode]) == ()
    (plot,) = overlays([second, replace(second, name="d")])
    assert plot.id == "runs_eval_mean_reward"


def test_a_complete_run_has_every_plot_with_every_line() -> None:
    analysis = analysed(complete())
    assert set(ids(analysis)) == {panel.id for panel in PANELS} | {"alerts", "reward_terms"}
    for panel in PANELS:
        assert len(figure(analysis, panel.id)["data"]) == len(panel.lines)
    assert [line["name"] for line in figure(analysis, "reward_terms")["data"]] == list(tags.REWARD_TERMS)


def test_the_plots_mark_thresholds_alerts_and_the_onset_of_the_cause() -> None:
    analysis = analysed(leaking())
    shapes = figure(analysis, "gradients")["layout"]["shapes"]
    assert [s["y0"] for s in shapes if s["type"] == "line" and s["yref"] == "y"] == [10_000.0, 50_000.0]
    (band,) = [s for s in shapes if s["type"] == "rect"]
    critical = analysis.series[tags.ALERT_CRITICAL]
    assert band["x0"] == critical.steps[critical.values == 1.0][0]
    assert band["x1"] == 5000
    (onset,) = [s for s in shapes if s["type"] == "line" and s["xref"] == "x"]
    assert onset["x0"] == analysis.diagnoses[0].first_step


def alert(tag: str, *values: float) -> Alert:
    return Alert.of(Series(tag, np.arange(len(values)) * 10, np.array(values)))


@pytest.mark.parametrize("tag", [tags.ALERT_WARNING, tags.ALERT_CRITICAL, "alerts/non_finite", "alerts/new"])
def test_every_alert_is_drawn_as_a_band_in_the_style_of_its_kind(tag: str) -> None:
    (band,) = alert_bands([alert(tag, 0, 1, 1, 0, 0)])
    assert (band["x0"], band["x1"]) == (10, 30)
    style = {tags.ALERT_WARNING: WARNING, tags.ALERT_CRITICAL: CRITICAL}.get(tag, OTHER)
    assert (band["fillcolor"], band["y1"], band["line"]["dash"]) == (style.fill, style.top, style.dash)


def test_alerts_differ_without_their_colours() -> None:
    assert len({(style.dash, style.top) for style in (WARNING, CRITICAL, OTHER)}) == 3


def test_the_periods_of_a_flickering_alert_are_joined_into_few_bands() -> None:
    flickering = alert("alerts/x", *([0.0, 1.0] * 50_000))
    assert len(flickering.stretches) == 50_000
    drawn = joined_stretches(flickering.stretches)
    assert len(drawn) <= MAX_BANDS + 1
    assert sum(stretch.n_points for stretch in drawn) == flickering.n_active
    assert (drawn[0].first_step, drawn[-1].last_step) == (flickering.first_step, flickering.last_step)


def test_a_few_active_periods_of_an_alert_are_not_joined() -> None:
    few = alert("alerts/x", 1, 0, 0, 1, 0, 1)
    assert joined_stretches(few.stretches) == list(few.stretches)
    assert joined_stretches([]) == []


def test_the_alert_plot_has_one_row_for_each_alert_that_was_active() -> None:
    analysis = analysed(complete())
    strip = figure(analysis, "alerts")
    assert [row["name"] for row in strip["data"]] == ["constant_clipping", "policy_extrapolation"]
    (steps,) = [row["x"] for row in strip["data"] if row["name"] == "policy_extrapolation"]
    stretch = analysis.alerts["policy_extrapolation"].stretches[0]
    assert steps == [stretch.first_step, stretch.until_step, None]
    begin, end = strip["layout"]["xaxis"]["range"]
    assert begin < analysis.alerts["critical"].logged[0] == 1100
    assert end > analysis.alerts["critical"].logged[1] == 5000
    assert "alerts" not in ids(analysed(healthy()))


@pytest.mark.parametrize("limit", ["0", "-5.0", ".inf"])
def test_a_threshold_that_cannot_be_shown_on_a_log_axis_is_not_drawn(tmp_path: Path, limit: str) -> None:
    (tmp_path / "own.yml").write_text(f"format_version: 1\ncriteria: {{actor_cnn_norm_mean: {{threshold: {limit}}}}}\n")
    analysis = analysed(healthy(), criteria=load_criteria(tmp_path / "own.yml"))
    drawn = figure(analysis, "gradients")
    assert [s["y0"] for s in drawn["layout"]["shapes"] if s["yref"] == "y"] == [50_000.0]
    json.dumps(drawn, allow_nan=False)


def test_a_threshold_far_above_a_curve_is_shown_as_a_label_only() -> None:
    run = healthy()
    steps, loss = run[tags.CRITIC_LOSS]
    layouts = {}
    for largest in (2.0, 50.0, 150.0):
        run[tags.CRITIC_LOSS] = (steps, loss / loss.max() * largest)
        layouts[largest] = figure(analysed(run), "critic_loss")["layout"]
    lines = {largest: [s["y0"] for s in found["shapes"] if s["yref"] == "y"] for largest, found in layouts.items()}
    assert lines == {2.0: [], 50.0: [], 150.0: [200.0]}
    labels = {largest: [label["text"] for label in found["annotations"]] for largest, found in layouts.items()}
    assert labels[2.0] == labels[50.0] == ["↑ GO: mean below 200"]
    assert labels[150.0] == ["GO: mean below 200"]
    # The axis of fractions has fixed ends.
    run[tags.ACTION_SATURATION] = (steps, np.full(steps.size, 0.01))
    run[tags.ACTION_STD_MIN] = (steps, np.full(steps.size, 0.02))
    assert [s["y0"] for s in figure(analysed(run), "policy")["layout"]["shapes"] if s["yref"] == "y"] == [0.5]


def test_a_non_blocking_threshold_is_not_drawn_above_the_curve_or_close_to_zero() -> None:
    run = foreign()
    steps, loss = run[tags.CRITIC_LOSS]
    lines = {}
    for largest in (2.0, 150.0, 5_000.0, 90_000.0):
        run[tags.CRITIC_LOSS] = (steps, loss / loss.max() * largest)
        drawn = figure(analysed(run), "critic_loss")["layout"]
        lines[largest] = [s["y0"] for s in drawn["shapes"] if s["yref"] == "y"]
        assert len(drawn["annotations"]) == len(lines[largest])
    assert lines == {2.0: [], 150.0: [200.0], 5_000.0: [200.0], 90_000.0: []}


def test_zeros_are_drawn_at_the_bottom_of_a_log_axis_and_labelled_as_0() -> None:
    points = Series("a", np.array([1, 2, 3]), np.array([-100.0, 0.0, 1.0]))
    (curve,) = curves([(Line("a", "a", "#000000", magnitude=True), points)], log=True)
    assert curve["y"] == [100.0, 0.1, 1.0]
    assert curve["customdata"] == ["-100", "0", "1"]


def test_lines_of_a_plot_differ_without_their_colours() -> None:
    for panel in PANELS:
        assert len({line.dash for line in panel.lines}) == len(panel.lines), panel.id


@pytest.mark.parametrize(("widths", "expected"), [("nn", "nn"), ("nnn", "nnw"), ("wn", "ww"), ("wnn", "wnn"), ("", "")])
def test_no_plot_is_alone_in_a_row_of_two(widths: str, expected: str) -> None:
    given = [Plot(str(i), "", "", {}, is_wide=width == "w") for i, width in enumerate(widths)]
    assert "".join("w" if plot.is_wide else "n" for plot in in_pairs(given)) == expected


def test_overlays_draw_each_run_in_its_own_style() -> None:
    analyses = [analysed(healthy(seed), f"run {seed}") for seed in range(24)]
    drawn = {plot.id: plot.figure for plot in overlays(analyses)}
    assert {"runs_train_actor_loss", "runs_gradients_actor_cnn_norm", "runs_train_q1_value"} <= set(drawn)
    assert {"runs_train_episode_length", "runs_eval_mean_distance_m"} <= set(drawn)
    looks = [(line["line"]["color"], line["line"]["dash"]) for line in drawn["runs_train_q1_value"]["data"]]
    assert len(set(looks)) == 24
    for figure_ in drawn.values():
        names = {line["name"]: (line["line"]["color"], line["line"]["dash"]) for line in figure_["data"]}
        assert names == dict(zip([a.name for a in analyses], looks, strict=True))


def test_the_axis_of_an_overlay_is_that_of_the_runs_in_it() -> None:
    curve = (np.arange(100, 10_001, 100), np.ones(100))
    runs = [analysed({tags.Q1_VALUE: curve, tags.EVAL_REWARD: curve}, name) for name in ("a", "b")]
    other = analysed({tags.EPISODE_REWARD: (np.arange(60), np.ones(60))}, "c")
    other = replace(other, data=replace(other.data, axis="epochs"))
    drawn = {plot.id: x_title(plot.figure) for plot in overlays([*runs, other])}
    assert drawn == {plot.id: "environment step" for plot in overlays(runs)}


def test_an_overlay_needs_two_runs_with_the_tag_and_more_than_one_point() -> None:
    assert overlays([analysed(healthy())]) == ()
    both = [plot.id for plot in overlays([analysed(healthy()), analysed(foreign())])]
    assert both == ["runs_train_actor_loss", "runs_train_critic_loss"]
    once = {tags.Q1_VALUE: (np.array([5]), np.array([1.0]))}
    assert overlays([analysed(once, "a"), analysed(once, "b")]) == ()
