"""The plots of one run."""

from __future__ import annotations

from dataclasses import replace

from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.plots.alert_strip import alert_strip
from sb3_visual_td3.report.plots.figures import Plot, alert_bands, curves, in_pairs, layout, onset, thresholds
from sb3_visual_td3.report.plots.panels import PANELS, Panel, reward_panel

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
