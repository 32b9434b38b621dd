"""The plots of a run as plain plotly figures: data in, dictionaries out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.series import Series
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.thinning import thinned

Figure = dict[str, Any]

# Okabe & Ito: told apart with every common colour vision.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#B3261E",
    "#333333",
)
_DASHES = ("solid", "dot", "dash", "dashdot")
_ALERT_COLOURS = {tags.ALERT_WARNING: "rgba(230,159,0,0.16)", tags.ALERT_CRITICAL: "rgba(179,38,30,0.13)"}


@dataclass(frozen=True)
class Line:
    """One curve of a plot."""

    tag: str
    label: str
    colour: str
    magnitude: bool = False
    dash: str = "solid"


@dataclass(frozen=True)
class Mark:
    """A horizontal threshold, named by the criterion that it belongs to."""

    criterion: str
    label: str


@dataclass(frozen=True)
class Panel:
    """What one plot shows; it appears where at least one of its lines was logged."""

    id: str
    title: str
    caption: str
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...] = ()
    log: bool = False
    unit: str = ""
    x_title: str = "environment step"
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Plot:
    """A panel with its figure."""

    id: str
    title: str
    caption: str
    figure: Figure


_GROUP_COLOURS = {"actor_cnn": ORANGE, "actor_mlp": PURPLE, "critic_cnn": BLUE, "critic_mlp": SKY}

PANELS = (
    Panel(
        "actor_loss",
        "Actor loss against the Q values that support it",
        "Magnitudes on a log axis. A healthy loss stays of the order of Q; where the lines part, the actor earns value "
        "that the critics do not see on replayed pairs.",
        (
            Line(tags.ACTOR_LOSS, "|actor loss|", ORANGE, magnitude=True),
            Line(tags.Q1_VALUE, "|Q1| on replayed pairs", BLUE, magnitude=True),
            Line(tags.POLICY_Q_VALUE, "|Q1| of the policy's actions", GREEN, magnitude=True, dash="dash"),
            Line(tags.Q_BOUND, "largest |Q| that rewards allow", BLACK, magnitude=True, dash="dot"),
        ),
        log=True,
        unit="return",
    ),
    Panel(
        "gradients",
        "Gradient norms of the four groups",
        "Log axis.",
        tuple(
            Line(tags.GRADIENT_NORM[group], group, _GROUP_COLOURS[group], magnitude=True, dash=_DASHES[i % 2])
            for i, group in enumerate(tags.GROUPS)
        ),
        (Mark("actor_cnn_norm_mean", "GO: actor_cnn mean below"), Mark("actor_cnn_norm_no_go", "NO-GO: mean above")),
        log=True,
    ),
    Panel(
        "q_values",
        "Q values",
        "The twin critics on replayed pairs, the first one on the policy's own actions, and the target.",
        (
            Line(tags.Q1_VALUE, "Q1", BLUE),
            Line(tags.Q2_VALUE, "Q2", SKY, dash="dot"),
            Line(tags.POLICY_Q_VALUE, "Q1 of the policy's actions", GREEN, dash="dash"),
            Line(tags.TARGET_Q_MEAN, "target", PURPLE, dash="dashdot"),
        ),
        unit="return",
    ),
    Panel(
        "critic_loss",
        "Critic loss",
        "Mean squared temporal-difference error of the critics.",
        (Line(tags.CRITIC_LOSS, "critic loss", BLUE),),
        (Mark("critic_loss_mean", "GO: mean below"),),
    ),
    Panel(
        "policy",
        "Is the policy alive?",
        "Fraction of actions at the ends of their range, and the smallest spread of an action over a batch.",
        (
            Line(tags.ACTION_SATURATION, "saturated actions", ORANGE),
            Line(tags.ACTION_STD_MIN, "smallest action std", BLUE, dash="dash"),
        ),
        (Mark("policy_is_alive", "dead from"),),
        y_range=(-0.03, 1.05),
    ),
    Panel(
        "driving",
        "Metres driven, against drivers that know nothing",
        "Per evaluation episode.",
        (
            Line(tags.EVAL_DISTANCE, "policy", GREEN),
            Line(tags.EVAL_RANDOM_DISTANCE, "random actions", ORANGE, dash="dash"),
            Line(tags.EVAL_BRAKE_DISTANCE, "full brake", BLACK, dash="dot"),
        ),
        unit="m",
    ),
    Panel(
        "clipping",
        "Clipped updates",
        "Fraction of updates in which the group's gradient was clipped. A group near 1 gets a normalised gradient: its "
        "clipped norm says nothing.",
        tuple(
            Line(tags.CLIP_FRACTION[group], group, _GROUP_COLOURS[group], dash=_DASHES[i % 2])
            for i, group in enumerate(tags.GROUPS)
        ),
        y_range=(-0.03, 1.05),
    ),
    Panel(
        "episode_length",
        "Episode length",
        "One point per episode; log axis.",
        (Line(tags.EPISODE_LENGTH, "steps", BLUE, magnitude=True),),
        log=True,
        unit="steps",
        x_title="episode",
    ),
    Panel(
        "episode_reward",
        "Episode reward",
        "One point per episode: the environment's own rewards, summed.",
        (Line(tags.EPISODE_REWARD, "reward", GREEN),),
        unit="reward",
        x_title="episode",
    ),
)


def plots(analysis: Analysis) -> tuple[Plot, ...]:
    """Return the plots for which the run logged something."""
    return tuple(
        Plot(panel.id, panel.title, panel.caption, _figure(panel, analysis))
        for panel in PANELS
        if any(len(analysis.series[line.tag].finite) for line in panel.lines)
    )


def _figure(panel: Panel, analysis: Analysis) -> Figure:
    lines = [(line, analysis.series[line.tag].finite) for line in panel.lines]
    lines = [(line, series) for line, series in lines if len(series)]
    floor = _log_floor([series for _, series in lines]) if panel.log else None
    traces = [_trace(line, series, floor) for line, series in lines]
    thresholds = {r.id: r.threshold for r in analysis.criteria}
    shapes: list[Figure] = []
    annotations: list[Figure] = []
    for i, mark in enumerate(panel.marks):
        threshold = thresholds.get(mark.criterion)
        if threshold is not None:
            shapes.append(_horizontal(threshold))
            annotations.append(_threshold_label(mark, threshold, panel, above=i % 2 == 1))
    if panel.x_title != "episode":
        shapes += _alert_bands(analysis)
        _add_onset(analysis, shapes, annotations)
    return {"data": traces, "layout": _layout(panel, shapes, annotations, n_lines=len(traces))}


def _trace(line: Line, series: Series, floor: float | None) -> Figure:
    thin = thinned(series)
    values = np.abs(thin.values) if line.magnitude else thin.values
    shown = values if floor is None else np.maximum(values, floor)
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(thin) <= 60 else "lines",
        "name": line.label,
        "x": thin.steps.tolist(),
        "y": shown.tolist(),
        "customdata": thin.values.tolist(),
        "hovertemplate": f"{line.tag}<br>%{{x:,}}: <b>%{{customdata:,.5g}}</b><extra></extra>",
        "line": {"color": line.colour, "width": 2, "dash": line.dash},
        "marker": {"size": 4, "color": line.colour},
    }


def _log_floor(series: Sequence[Series]) -> float:
    """Return where zeros are drawn on a log axis: a decade below the smallest value, within eight of the largest."""
    magnitudes = np.abs(np.concatenate([s.values for s in series]))
    positive = magnitudes[magnitudes > 0]
    if positive.size == 0:
        return 1e-3
    return float(max(positive.min() / 10, min(1e-4, positive.max() / 1e8)))


def _horizontal(y: float) -> Figure:
    line = {"color": RED, "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": y, "y1": y, "line": line}


def _threshold_label(mark: Mark, threshold: float, panel: Panel, *, above: bool) -> Figure:
    return {
        "xref": "paper",
        "x": 0.005,
        "yref": "y",
        "y": float(np.log10(threshold)) if panel.log else threshold,
        "text": f"{mark.label} {number(threshold)}",
        "showarrow": False,
        "xanchor": "left",
        "yanchor": "bottom" if above or len(panel.marks) == 1 else "top",
        "font": {"size": 11, "color": RED},
        "bgcolor": "rgba(255,255,255,0.75)",
    }


def _alert_bands(analysis: Analysis) -> list[Figure]:
    bands = []
    for tag, colour in _ALERT_COLOURS.items():
        series = analysis.series[tag]
        active = series.values == 1.0
        edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
        for begin, end in zip(edges[::2], edges[1::2], strict=True):
            last = min(end, len(series) - 1)
            x0, x1 = int(series.steps[begin]), int(series.steps[last])
            bands.append(_band(x0, x1, colour))
    return bands


def _band(x0: int, x1: int, colour: str) -> Figure:
    place = {"type": "rect", "xref": "x", "x0": x0, "x1": x1, "yref": "paper", "y0": 0, "y1": 1}
    return {**place, "fillcolor": colour, "line": {"width": 0}, "layer": "below"}


def _add_onset(analysis: Analysis, shapes: list[Figure], annotations: list[Figure]) -> None:
    cause = analysis.cause
    if cause is None or cause.first_step is None:
        return
    x = cause.first_step
    line = {"color": BLACK, "width": 1.5, "dash": "dot"}
    shapes.append({"type": "line", "xref": "x", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line})
    annotations.append(
        {
            "xref": "x",
            "x": x,
            "yref": "paper",
            "y": 1,
            "text": f"{cause.id} from {x:,}",
            "showarrow": False,
            "xanchor": "left",
            "yanchor": "bottom",
            "font": {"size": 11, "color": BLACK},
        }
    )


def _layout(panel: Panel, shapes: list[Figure], annotations: list[Figure], *, n_lines: int) -> Figure:
    y_axis: Figure = {"title": {"text": panel.unit}, "gridcolor": "#e6e8eb", "automargin": True}
    if panel.log:
        y_axis |= {"type": "log", "exponentformat": "power", "nticks": 8}
    if panel.y_range is not None:
        y_axis["range"] = list(panel.y_range)
    return {
        "height": 340,
        "margin": {"l": 64, "r": 16, "t": 28, "b": 84 if n_lines > 1 else 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "#ffffff",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#1f2933"},
        "xaxis": {"title": {"text": panel.x_title}, "gridcolor": "#eef0f2", "tickformat": ",", "zeroline": False},
        "yaxis": y_axis,
        "showlegend": n_lines > 1,
        "legend": {"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"},
        "hovermode": "closest",
        "shapes": shapes,
        "annotations": annotations,
    }
