"""Several runs in one plot: one quantity, one line per run."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_visual_td3.common import tags
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.plots.figures import Plot, curves, in_pairs, layout
from sb3_visual_td3.report.plots.panels import DASHES, EPISODE_AXIS, FRACTION, LINE_COLOURS, STEP_AXIS, Line, Panel


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
    found = (_drawn(panel, analyses) for panel in OVERLAYS)
    return in_pairs([plot for plot in found if plot is not None])


def _drawn(panel: Panel, analyses: Sequence[Analysis]) -> Plot | None:
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
