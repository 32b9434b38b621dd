"""The alerts of a run over its steps: one row for each that was ever active."""

from __future__ import annotations

from collections.abc import Mapping

from sb3_visual_td3.common import tags
from sb3_visual_td3.report.plots.figures import Figure, Plot, base_layout, harmless, joined_stretches, x_axis
from sb3_visual_td3.report.plots.panels import ORANGE, PURPLE, RED
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
