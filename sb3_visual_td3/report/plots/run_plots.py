"""The plots of one run and of several runs over each other, with the strip of alerts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sb3_visual_td3.common import tags
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.plots.figures import (
    Figure,
    Plot,
    alert_bands,
    base_layout,
    curves,
    harmless,
    in_pairs,
    joined_stretches,
    layout,
    onset,
    thresholds,
    x_axis,
)
from sb3_visual_td3.report.plots.panels import (
    DASHES,
    EPISODE_AXIS,
    FRACTION,
    LINE_COLOURS,
    ORANGE,
    PANELS,
    PURPLE,
    RED,
    STEP_AXIS,
    Line,
    Panel,
    reward_panel,
)
from sb3_visual_td3.report.sections.alerts import Alert

ROW_HEIGHT = 28
_COLOURS = {tags.ALERT_WARNING: ORANGE, tags.ALERT_CRITICAL: RED}


def alert_strip(alerts: Mapping[str, Alert]) -> Plot | None:
    """Return the plot; None where no alert was ever active."""
    fired = {name: alert for name, alert in alerts.items() if alert.n_active}
    if not fired:
        return None
    n_silent = len(alerts) - len(fired)
    caption = "From the first active point to the next that is not. " + (
        f"{n_silent} more were logged and never active." if n_silent else "No other alert was logged."
    )
    begin, end = min(a.logged[0] for a in alerts.values()), max(a.logged[1] for a in alerts.values())
    margin = max(1.0, 0.02 * (end - begin))
    rows = [_row(name, alert) for name, alert in fired.items()]
    layout = {
        **base_layout(90 + ROW_HEIGHT * len(rows)),
        "margin": {"l": 16, "r": 16, "t": 12, "b": 48},
        "xaxis": {
            **x_axis(),
            "title": {"text": "environment step", "standoff": 6},
            "range": [begin - margin, end + margin],
        },
        "yaxis": {"type": "category", "automargin": True, "autorange": "reversed", "ticklabelstandoff": 6},
        "showlegend": False,
        "hovermode": "closest",
    }
    return Plot("alerts", "Alerts over the run", caption, {"data": rows, "layout": layout}, is_wide=True)


def _row(name: str, alert: Alert) -> Figure:
    label, colour = harmless(name), _COLOURS.get(alert.tag, PURPLE)
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
    *(_overlay(tags.GRADIENT_NORM[group], f"Gradient norm of {group}", log=True) for group in tags.GROUPS),
    _overlay(tags.Q1_VALUE, "Q1 on replayed pairs", unit="return"),
    _overlay(tags.CRITIC_LOSS, "Critic loss", log=True, unit="return²"),
    _overlay(tags.ACTION_SATURATION, "Saturated actions", y_range=FRACTION),
    _overlay(tags.EPISODE_LENGTH, "Episode length", log=True, unit="steps", x_title=EPISODE_AXIS),
    _overlay(tags.EVAL_DISTANCE, "Metres driven in evaluations", unit="m"),
    _overlay(tags.EVAL_REWARD, "Return in evaluations", unit="reward"),
)


def overlays(analyses: Sequence[Analysis]) -> tuple[Plot, ...]:
    """Return a plot of each quantity that at least two of the runs logged, and not only once."""
    found = (_overlay_plot(panel, analyses) for panel in OVERLAYS)
    return in_pairs([plot for plot in found if plot is not None])


def _overlay_plot(panel: Panel, analyses: Sequence[Analysis]) -> Plot | None:
    (of,) = panel.lines
    lines = [
        (Line(of.tag, analysis.name, _colour(i), of.magnitude, _dash(i)), series)
        for i, analysis in enumerate(analyses)
        if len(series := analysis.series[of.tag].finite)
    ]
    if len(lines) < 2 or all(len(series) == 1 for _, series in lines):
        return None
    drawn = curves(lines, log=panel.log)
    return Plot(panel.id, panel.title, panel.caption, {"data": drawn, "layout": layout(panel, [], [], drawn)})


def _colour(i: int) -> str:
    return LINE_COLOURS[i % len(LINE_COLOURS)]


def _dash(i: int) -> str:
    """Return a dash; with the colour it is the run's own among two dozen."""
    return DASHES[(i + i // len(LINE_COLOURS)) % len(DASHES)]


FIRST = "actor_loss"


def plots(analysis: Analysis) -> tuple[Plot, ...]:
    """Return the plots for which the run logged something; the alerts stand under the first one."""
    terms = tuple(term.tag for term in analysis.sections.rewards.terms)
    drawn = [plot for panel in (*PANELS, reward_panel(terms)) if (plot := _drawn(panel, analysis)) is not None]
    leading = [replace(plot, is_wide=True) for plot in drawn if plot.id == FIRST]
    strip = alert_strip(analysis.alerts)
    rest = [plot for plot in drawn if plot.id != FIRST]
    return in_pairs([*leading, *([] if strip is None else [strip]), *rest])


def _drawn(panel: Panel, analysis: Analysis) -> Plot | None:
    lines = [(line, analysis.series[line.tag].finite) for line in panel.lines]
    lines = [(line, series) for line, series in lines if len(series)]
    if not lines or (panel.requires is not None and len(analysis.series[panel.requires].finite) == 0):
        return None
    shapes, labels = thresholds(panel, {r.id: r.threshold for r in analysis.criteria})
    if panel.has_alerts:
        line, label = onset(analysis.cause, analysis.series.n_steps)
        shapes += [*alert_bands(analysis.alerts.values()), *line]
        labels += label
    drawn = curves(lines, log=panel.log)
    return Plot(panel.id, panel.title, panel.caption, {"data": drawn, "layout": layout(panel, shapes, labels, drawn)})
