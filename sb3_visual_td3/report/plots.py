"""Build the plots of report.html as plain dictionaries in plotly's format, without the large plotly package."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import GROUP_NAMES
from sb3_visual_td3.diagnosis.criteria import callbacks_that_ran
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.return_curve import ReturnCurve
from sb3_visual_td3.diagnosis.series import Series
from sb3_visual_td3.diagnosis.verdict import Status
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.next_step import curve_unit
from sb3_visual_td3.report.panels import (
    BLACK,
    DASHES,
    EPISODE_AXIS,
    FRACTION,
    LINE_COLOURS,
    ORANGE,
    PANELS,
    PURPLE,
    RED,
    RETURNS,
    STEP_AXIS,
    Line,
    Mark,
    Panel,
    returns_panel,
    reward_panel,
)
from sb3_visual_td3.report.sections.alerts import Alert, Stretch

MAX_POINTS = 2000


def thinned(series: Series, max_points: int = MAX_POINTS) -> Series:
    """Reduce a series to the number of points that a screen can show, without losing a peak.

    :param series: a series without NaN
    :param max_points: the most points to keep
    """
    n = len(series)
    if n <= max_points:
        return series
    # Each bucket keeps two points, so there are half as many buckets as points.
    edges = np.linspace(0, n, max_points // 2).astype(np.int64)
    kept = {0, n - 1}
    for begin, end in pairwise(edges):
        part = series.values[begin:end]
        if part.size:
            kept |= {int(begin + part.argmin()), int(begin + part.argmax())}
    chosen = np.array(sorted(kept))
    return Series(series.name, series.steps[chosen], series.values[chosen])


Figure = dict[str, Any]

HEIGHT = 340
_LEGEND_ROW = 18
LEAST_PART = 0.02
"""On a linear axis, a threshold below this fraction of the largest value is drawn only if its criterion is blocking."""
MAX_BANDS = 100
"""A plot has at most this many alert bands of one kind. If there are more, bands with small gaps between them are
joined."""

_LABEL = {"bgcolor": "#ffffff", "font": {"color": "#1f2933"}}
_FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#1f2933"}


@dataclass(frozen=True)
class Plot:
    """Hold a figure with its heading and caption; a wide figure takes a whole row of report.html."""

    id: str
    title: str
    caption: str
    figure: Figure
    is_wide: bool = False


@dataclass(frozen=True)
class BandStyle:
    """Describe the rectangles that show when an alert was active; ``top`` is their height as a fraction of the plot."""

    fill: str
    outline: str
    dash: str
    top: float = 1.0


WARNING = BandStyle("rgba(230,159,0,0.16)", "rgba(138,83,0,0.7)", "dot")
CRITICAL = BandStyle("rgba(179,38,30,0.13)", "rgba(179,38,30,0.6)", "solid")
OTHER = BandStyle("rgba(90,80,160,0.55)", "rgba(90,80,160,0.9)", "solid", top=0.03)
STYLES = {tags.ALERT_WARNING: WARNING, tags.ALERT_CRITICAL: CRITICAL}


def harmless(text: str) -> str:
    """Escape text for plotly, which interprets markup and ``%{...}`` in names, titles and labels."""
    return html.escape(text, quote=False).replace("%{", "%&#123;")


def in_pairs(plots: Sequence[Plot]) -> tuple[Plot, ...]:
    """Make the last of the narrow plots wide if it would be alone in its row."""
    narrow = [plot for plot in plots if not plot.is_wide]
    alone = narrow[-1] if len(narrow) % 2 else None
    return tuple(replace(plot, is_wide=True) if plot is alone else plot for plot in plots)


def curves(lines: Sequence[tuple[Line, Series]], *, log: bool) -> list[Figure]:
    """Return the plotly traces that draw some lines.

    :param lines: each line with its finite values, at least one
    :param log: whether the y-axis is logarithmic
    """
    floor = _log_floor([series for _, series in lines]) if log else None
    return [_curve(line, series, floor) for line, series in lines]


def _curve(line: Line, series: Series, floor: float | None) -> Figure:
    thin = thinned(series)
    shown = thin.values
    if line.magnitude:
        shown = np.abs(shown)
    if floor is not None:  # a log axis cannot show 0
        shown = np.maximum(shown, floor)
    what = harmless(line.label)
    if line.label not in series.name:
        what = f"{what}, {harmless(series.name)}"
    hover = f"{what}<br>%{{x:,}}: <b>%{{customdata}}</b><extra></extra>"
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(thin) <= 60 else "lines",
        "name": harmless(line.label),
        "x": thin.steps.tolist(),
        "y": shown.tolist(),
        # The hover label shows the logged value. The plot may show the magnitude, or a small positive value for 0.
        "customdata": [number(value) for value in thin.values.tolist()],
        "hovertemplate": hover,
        "line": {"color": line.colour, "width": 2, "dash": line.dash},
        "marker": {"size": 4, "color": line.colour},
    }


def _log_floor(series: Sequence[Series]) -> float:
    """Return the positive value at which a log axis draws 0, usually 1/10 of the smallest positive magnitude."""
    magnitudes = np.abs(np.concatenate([s.values for s in series]))
    # Close to the smallest double, a division below would underflow to 0.
    positive = magnitudes[magnitudes > 1e-300]
    if positive.size == 0:
        return 1e-3
    # A single tiny value must not stretch the axis over dozens of decades and flatten the rest of the curve.
    return float(max(positive.min() / 10, min(1e-4, positive.max() / 1e8)))


def thresholds(panel: Panel, limits: dict[str, float | None]) -> tuple[list[Figure], list[Figure]]:
    """Return the lines and the labels of a panel's thresholds.

    :param panel: description of the plot
    :param limits: the threshold of each criterion
    """
    shapes, labels = [], []
    for i, mark in enumerate(panel.marks):
        limit = limits.get(mark.criterion)
        if limit is not None and math.isfinite(limit) and (limit > 0 or not panel.log):
            shapes.append(_line(RED, "dash", xref="paper", x0=0, x1=1, yref="y", y0=limit, y1=limit))
            labels.append(_threshold_label(mark, limit, panel, above=i % 2 == 1))
    return shapes, labels


def labels_beyond(panel: Panel, limits: dict[str, float | None]) -> list[Figure]:
    """Return labels at the upper edge of a plot, for thresholds that lie far above its curves."""
    texts = []
    for mark in panel.marks:
        limit = limits.get(mark.criterion)
        if limit is not None and math.isfinite(limit):
            texts.append(f"↑ {mark.label} {number(limit)}")
    if not texts:
        return []
    return [
        {
            "xref": "paper",
            "x": 0.005,
            "yref": "paper",
            "y": 1,
            "text": harmless(", ".join(texts)),
            "showarrow": False,
            "xanchor": "left",
            "yanchor": "top",
            "font": {"size": 11, "color": RED},
            "bgcolor": "rgba(255,255,255,0.8)",
        }
    ]


def _line(colour: str, dash: str, **place: Any) -> Figure:
    return {"type": "line", **place, "line": {"color": colour, "width": 1.5, "dash": dash}}


def _threshold_label(mark: Mark, limit: float, panel: Panel, *, above: bool) -> Figure:
    return {
        "xref": "paper",
        "x": 0.005,
        "yref": "y",
        # plotly places annotations on a log axis by the logarithm, but shapes by the value itself.
        "y": float(np.log10(limit)) if panel.log else limit,
        "text": harmless(f"{mark.label} {number(limit)}"),
        "showarrow": False,
        "xanchor": "left",
        "yanchor": "bottom" if above or len(panel.marks) == 1 else "top",
        "font": {"size": 11, "color": RED},
        "bgcolor": "rgba(255,255,255,0.8)",
    }


def alert_bands(alerts: Iterable[Alert]) -> list[Figure]:
    """Return the rectangles of a plot that mark the periods in which an alert was active.

    Rectangles of gradient norm alerts are as high as the plot. Those of other alerts form a strip at the bottom.

    :param alerts: the alerts of the run
    """
    bands: list[Figure] = []
    others: list[Stretch] = []
    for alert in alerts:
        if alert.tag in STYLES:
            bands += [_band(stretch, STYLES[alert.tag]) for stretch in joined_stretches(alert.stretches)]
        else:
            others += alert.stretches
    return bands + [_band(stretch, OTHER) for stretch in joined_stretches(others)]


def joined_stretches(stretches: Iterable[Stretch], at_most: int = MAX_BANDS) -> list[Stretch]:
    """Join periods in which an alert was active, to limit the number of rectangles in a plot.

    Periods that overlap or touch are always joined.

    :param stretches: periods of one or several alerts
    :param at_most: largest number of periods to return; if there are more, periods with a short gap between them are
        joined as well
    """
    ordered = sorted(stretches)
    if not ordered:
        return []
    gap = 0.0
    if len(ordered) > at_most:
        gap = (max(stretch.until_step for stretch in ordered) - ordered[0].first_step) / at_most
    kept = [ordered[0]]
    for stretch in ordered[1:]:
        last = kept[-1]
        if stretch.first_step - last.until_step <= gap:
            n_points = last.n_points + stretch.n_points
            ends = (max(last.last_step, stretch.last_step), max(last.until_step, stretch.until_step))
            kept[-1] = Stretch(last.first_step, *ends, n_points)
        else:
            kept.append(stretch)
    return kept


def _band(stretch: Stretch, style: BandStyle) -> Figure:
    place = {"xref": "x", "x0": stretch.first_step, "x1": stretch.until_step, "yref": "paper", "y0": 0, "y1": style.top}
    outline = {"width": 1, "color": style.outline, "dash": style.dash}
    return {"type": "rect", **place, "fillcolor": style.fill, "line": outline, "layer": "below"}


def onset(cause: Diagnosis | None, last_step: int | None) -> tuple[list[Figure], list[Figure]]:
    """Return a vertical line and a label for the step at which the likely cause was first detected.

    :param cause: the first diagnosis of the run; None for no line
    :param last_step: last step of the run
    """
    if cause is None or cause.first_step is None:
        return [], []
    x = cause.first_step
    # A label to the right of a late line would be cut off at the edge of the plot.
    is_late = last_step is not None and x > last_step * 0.6
    label = {
        "xref": "x",
        "x": x,
        "yref": "paper",
        "y": 1,
        "text": harmless(f"{cause.id} from {x:,}"),
        "showarrow": False,
        "xanchor": "right" if is_late else "left",
        "yanchor": "bottom",
        "font": {"size": 11, "color": BLACK},
    }
    return [_line(BLACK, "dot", xref="x", x0=x, x1=x, yref="paper", y0=0, y1=1)], [label]


def layout(panel: Panel, shapes: list[Figure], labels: list[Figure], drawn: Sequence[Figure]) -> Figure:
    """Return the axes, the legend, the lines and the labels of a plot, as plotly's layout.

    :param panel: description of the plot
    :param shapes: lines and bands
    :param labels: text in the plot
    :param drawn: the curves that the plot shows
    """
    y_axis: Figure = {"title": {"text": harmless(panel.unit)}, "gridcolor": "#e6e8eb", "automargin": True}
    if panel.log:
        y_axis |= {"type": "log", "exponentformat": "power", **_log_ticks(drawn)}
    if panel.y_range is not None:
        y_axis["range"] = list(panel.y_range)
    return {
        # More than four entries of the legend need another row, which must not reduce the height of the plot itself.
        **base_layout(HEIGHT + _LEGEND_ROW * max(0, len(drawn) - 4)),
        "margin": {"l": 64, "r": 16, "t": 28, "b": 48},
        "xaxis": {**x_axis(), "title": {"text": harmless(panel.x_title), "standoff": 6}},
        "yaxis": y_axis,
        "showlegend": len(drawn) > 1,
        "legend": {"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"},
        "hovermode": "closest",
        "shapes": shapes,
        "annotations": labels,
    }


def _log_ticks(curves: Sequence[Figure]) -> Figure:
    """Return the plotly setting that limits the ticks of a logarithmic y-axis to about eight."""
    positive = [y for curve in curves for y in curve["y"] if y > 0]
    decades = 0.0
    if positive:
        decades = math.log10(max(positive)) - math.log10(min(positive))
    if decades < 1:
        return {"nticks": 8}
    if decades < 2:
        return {"dtick": "D2"}  # plotly's name for ticks at 1, 2 and 5
    return {"dtick": math.ceil(decades / 8)}


def base_layout(height: int) -> Figure:
    """Return the layout that all plots share."""
    return {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "#ffffff",
        "font": _FONT,
        "hoverlabel": _LABEL,
    }


def x_axis() -> Figure:
    """Return the x-axis that all plots share."""
    return {"gridcolor": "#eef0f2", "tickformat": ",", "zeroline": False, "automargin": True}


ROW_HEIGHT = 28
_COLOURS = {tags.ALERT_WARNING: ORANGE, tags.ALERT_CRITICAL: RED}


def alert_strip(alerts: Mapping[str, Alert], x_title: str = STEP_AXIS) -> Plot | None:
    """Return the plot of all alerts over the run; None if no alert was ever active."""
    fired = {name: alert for name, alert in alerts.items() if alert.n_active}
    if not fired:
        return None
    n_silent = len(alerts) - len(fired)
    caption = "Each bar reaches from the first active point to the next inactive point. "
    caption += f"{n_silent} other alerts were logged and never active." if n_silent else "No other alert was logged."
    begin, end = min(a.logged[0] for a in alerts.values()), max(a.logged[1] for a in alerts.values())
    # A margin for bars that start at the first step or end at the last step.
    margin = max(1.0, 0.02 * (end - begin))
    rows = [_row(name, alert) for name, alert in fired.items()]
    axes = {
        **base_layout(90 + ROW_HEIGHT * len(rows)),
        "margin": {"l": 16, "r": 16, "t": 12, "b": 48},
        "xaxis": {
            **x_axis(),
            "title": {"text": x_title, "standoff": 6},
            "range": [begin - margin, end + margin],
        },
        "yaxis": {"type": "category", "automargin": True, "autorange": "reversed", "ticklabelstandoff": 6},
        "showlegend": False,
        "hovermode": "closest",
    }
    return Plot("alerts", "Alerts over the run", caption, {"data": rows, "layout": axes}, is_wide=True)


def _row(name: str, alert: Alert) -> Figure:
    label, colour = harmless(name), _COLOURS.get(alert.tag, PURPLE)
    # One trace holds all stretches of an alert: a None between two stretches interrupts the line.
    x: list[int | None] = []
    said: list[str] = []
    for stretch in joined_stretches(alert.stretches):
        x += [stretch.first_step, stretch.until_step, None]
        text = f"{stretch.n_points:,} active, {stretch.first_step:,} to {stretch.last_step:,}"
        said += [text, text, ""]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label,
        "x": x,
        "y": [None if step is None else label for step in x],
        "customdata": said,
        "hovertemplate": f"{label}<br>%{{customdata}}<extra></extra>",
        "line": {"color": colour, "width": 10},
        "marker": {"size": 10, "color": colour, "symbol": "square"},
    }


def _overlay(
    tag: str,
    title: str,
    *,
    log: bool = False,
    unit: str = "",
    x_title: str = STEP_AXIS,
    y_range: tuple[float, float] | None = None,
) -> Panel:
    return Panel(
        f"runs_{tag.replace('/', '_')}",
        title,
        "Magnitudes on a log axis." if log else "",
        (Line(tag, title, LINE_COLOURS[0], magnitude=log),),
        log=log,
        unit=unit,
        x_title=x_title,
        y_range=y_range,
    )


OVERLAYS = (
    _overlay(tags.ACTOR_LOSS, "Actor loss", log=True, unit="return"),
    *(_overlay(tags.GRADIENT_NORM[group], f"Gradient norm of {group}", log=True) for group in GROUP_NAMES),
    _overlay(tags.Q1_VALUE, "Q1 on replayed pairs", unit="return"),
    _overlay(tags.CRITIC_LOSS, "Critic loss", log=True, unit="return²"),
    _overlay(tags.ACTION_SATURATION, "Saturated actions", y_range=FRACTION),
    _overlay(tags.EPISODE_LENGTH, "Episode length", log=True, unit="steps", x_title=EPISODE_AXIS),
    _overlay(tags.EVAL_DISTANCE, "Metres driven in evaluations", unit="m"),
    _overlay(tags.EVAL_REWARD, "Return in evaluations", unit="reward"),
)


def overlays(analyses: Sequence[Analysis]) -> tuple[Plot, ...]:
    """Return the plots that compare runs, one for each quantity.

    A quantity has a plot if at least two runs logged it, and at least one run logged more than one point of it.
    """
    found = [_overlay_plot(panel, analyses, [panel.lines[0].tag] * len(analyses)) for panel in OVERLAYS]
    found.append(_overlay_of_returns(analyses))
    return in_pairs([plot for plot in found if plot is not None])


def _overlay_of_returns(analyses: Sequence[Analysis]) -> Plot | None:
    """Return the plot of the judged curve of each run; None if another overlay shows it, or if their units differ."""
    judged = [_judged_return(analysis) for analysis in analyses]
    names = ["" if curve is None else curve.tag for curve in judged]
    units = {curve_unit(analysis, curve) for analysis, curve in zip(analyses, judged, strict=True) if curve is not None}
    if len(units) != 1 or set(names) <= {"", tags.EVAL_REWARD}:
        return None
    panel = _overlay(RETURNS, "Return", unit="return", x_title=_x_title(units.pop()))
    return _overlay_plot(panel, analyses, names)


def _overlay_plot(panel: Panel, analyses: Sequence[Analysis], names: Sequence[str]) -> Plot | None:
    (of,) = panel.lines
    # Some runs may be judged by their evaluations and others by the returns of their training.
    has_one_tag = len({*names} - {""}) == 1
    labels = [each.name if has_one_tag else f"{each.name}: {tag}" for each, tag in zip(analyses, names, strict=True)]
    lines = [
        (Line(name, label, _colour(i), of.magnitude, _dash(i)), series)
        for i, (analysis, name, label) in enumerate(zip(analyses, names, labels, strict=True))
        if len(series := analysis.series[name].finite)
    ]
    # A single run is not a comparison, and a single point is not a curve.
    if len(lines) < 2 or all(len(series) == 1 for _, series in lines):
        return None
    drawn = curves(lines, log=panel.log)
    panel = _with_axis(
        panel, [each for each, name in zip(analyses, names, strict=True) if len(each.series[name].finite)]
    )
    return Plot(panel.id, panel.title, panel.caption, {"data": drawn, "layout": layout(panel, [], [], drawn)})


def _with_axis(panel: Panel, analyses: Sequence[Analysis]) -> Panel:
    """Return a panel whose x-axis says "environment step" only if this is known of the runs."""
    if panel.x_title != STEP_AXIS:
        return panel
    axes = {analysis.data.axis for analysis in analyses}
    # If the x-axis of the returns counts episodes, the unit of the other tags' steps is unknown.
    if len(axes) > 1 or axes == {"episodes"}:
        return replace(panel, x_title="step")
    return replace(panel, x_title=axes.pop().removesuffix("s"))


def _colour(i: int) -> str:
    return LINE_COLOURS[i % len(LINE_COLOURS)]


def _dash(i: int) -> str:
    """Return the dash pattern of the i-th run's curve; up to 24 runs differ in colour or dash pattern."""
    # Shifting the dash after each round of colours avoids repeating a pair of colour and dash too early.
    return DASHES[(i + i // len(LINE_COLOURS)) % len(DASHES)]


FIRST = "actor_loss"


def plots(analysis: Analysis) -> tuple[Plot, ...]:
    """Return the plots for which the run has data; the plot of the alerts comes second."""
    terms = tuple(term.tag for term in analysis.sections.rewards.terms)
    panels = [*PANELS, reward_panel(terms)]
    first, curve = FIRST, _judged_return(analysis)
    if curve is not None:
        shown = [panel.id for panel in panels if any(line.tag == curve.tag for line in panel.lines)]
        if not shown:
            panels.insert(0, _returns(analysis, curve))
        if not callbacks_that_ran(analysis.series):
            first = shown[0] if shown else RETURNS
    drawn = [plot for panel in panels if (plot := _drawn(panel, analysis)) is not None]
    ordered = [replace(plot, is_wide=True) for plot in drawn if plot.id == first]
    strip = alert_strip(analysis.alerts, _with_axis(PANELS[0], [analysis]).x_title)
    if strip is not None:
        ordered.append(strip)
    ordered += [plot for plot in drawn if plot.id != first]
    return in_pairs(ordered)


def _judged_return(analysis: Analysis) -> ReturnCurve | None:
    """Return the curve that represents the run, if it is a curve of returns and no comparison with baselines."""
    curve = analysis.curve
    returns = {each.tag for each in analysis.answers.learning.curves}
    return None if curve is None or curve.tag not in returns else curve


def _returns(analysis: Analysis, curve: ReturnCurve) -> Panel:
    """Return the panel of the judged curve, and of the other return curves that have the same unit of steps."""
    unit = curve_unit(analysis, curve)
    judged = (each for each in analysis.answers.learning.curves if curve_unit(analysis, each) == unit)
    return returns_panel(tuple(each.tag for each in judged), _x_title(unit))


def _x_title(unit: str) -> str:
    return STEP_AXIS if unit == "step" else unit


class Limits(NamedTuple):
    """Hold the thresholds that apply to the curves of a panel, by criterion.

    :ivar drawn: thresholds to draw as a line
    :ivar beyond: thresholds to show as text, because they are far above the curves. Each belongs to a criterion that
        counts for the verdict
    """

    drawn: dict[str, float | None]
    beyond: dict[str, float | None]


def limits_of(panel: Panel, analysis: Analysis, series: Iterable[Series]) -> Limits:
    """Return the thresholds of a panel that are worth showing beside its curves.

    :param panel: description of the plot
    :param analysis: the judged run
    :param series: the finite values of the curves
    """
    largest = max((each.abs_max() for each in series), default=0.0)
    # A line may be at most two decades above the curves on a log axis, or half of the height on a linear axis.
    reach = 100.0 if panel.log else 2.0
    found = Limits({}, {})
    for r in analysis.criteria:
        if r.threshold is None or r.status is Status.NOT_APPLICABLE:
            continue
        # An axis with fixed ends is not stretched by a line.
        is_above = panel.y_range is None and abs(r.threshold) > reach * largest
        is_at_zero = not panel.log and abs(r.threshold) < LEAST_PART * largest
        if r.blocking and is_above:
            found.beyond[r.id] = r.threshold
        elif r.blocking or not (is_above or is_at_zero):
            found.drawn[r.id] = r.threshold
    return found


def _drawn(panel: Panel, analysis: Analysis) -> Plot | None:
    lines = [(line, analysis.series[line.tag].finite) for line in panel.lines]
    lines = [(line, series) for line, series in lines if len(series)]
    if not lines or (panel.requires is not None and len(analysis.series[panel.requires].finite) == 0):
        return None
    # Alerts and the onset of the cause are environment steps: on an axis of episodes they would be in the wrong place.
    limits = limits_of(panel, analysis, (series for _, series in lines))
    shapes, labels = thresholds(panel, limits.drawn)
    labels += labels_beyond(panel, limits.beyond)
    if panel.has_alerts:
        line, label = onset(analysis.cause, analysis.series.n_steps)
        shapes += [*alert_bands(analysis.alerts.values()), *line]
        labels += label
    drawn = curves(lines, log=panel.log)
    figure = {"data": drawn, "layout": layout(_with_axis(panel, [analysis]), shapes, labels, drawn)}
    return Plot(panel.id, panel.title, panel.caption, figure)
