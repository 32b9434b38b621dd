"""Render report.html: one self-contained page.

Its content security policy forbids connections, and jinja2 escapes text from a log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.verdict import worst_verdict
from sb3_visual_td3.report import wording
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.document import Code, Flag, visible
from sb3_visual_td3.report.hyperparam_comparison import (
    comparison_table,
    hyperparam_rows,
    other_setting_rows,
    reference_sources,
)
from sb3_visual_td3.report.next_step import next_step
from sb3_visual_td3.report.overview import comparison
from sb3_visual_td3.report.plots import Figure, overlays, plots
from sb3_visual_td3.report.recommendation import zoo_diff
from sb3_visual_td3.report.sections.availability import logged_section, missing_section

MAX_CHARACTERS = 4000
"""Largest number of characters of one text on the page. Any longer text is cut."""

_TEMPLATES = resources.files(__package__).joinpath("templates")


PLOTLY_FILE = "plotly.min.js"
"""Name of the plotly.js file beside the page. Plotly's own pages use the same name."""


def render_html(analyses: Sequence[Analysis], unreadable: Sequence[str] = (), *, plotly_beside: bool = False) -> str:
    """Return report.html: the verdict with its reasons, the first remedy, the criteria, the plots and the metrics.

    :param analyses: one run, or several, which are also compared
    :param unreadable: one line per unreadable run
    :param plotly_beside: whether the page loads :data:`PLOTLY_FILE` from its folder instead of containing it
    """
    environment = _environment()
    plotted = [plots(analysis) for analysis in analyses]
    drawn_over = overlays(analyses)
    return environment.get_template("report.html.j2").render(
        analyses=analyses,
        plotted=plotted,
        unreadable=unreadable,
        verdict=worst_verdict(a.verdict for a in analyses),
        comparison=comparison(analyses) if len(analyses) > 1 else None,
        overlays=drawn_over,
        style=Markup(_source("style.css")),
        script=Markup(_source("page.js")),
        has_plots=bool(drawn_over) or any(plotted),
        plotly=None if plotly_beside else Markup(get_plotlyjs()),
        plotly_file=PLOTLY_FILE,
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        finalize=_harmless,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(wording=wording, next_step=next_step, table=tags.TAGS, hyperparam_rows=hyperparam_rows)
    environment.globals.update(
        zoo_diff=zoo_diff,
        comparison_table=comparison_table,
        reference_sources=reference_sources,
        other_setting_rows=other_setting_rows,
    )
    environment.globals.update(logged_section=logged_section, missing_section=missing_section)
    environment.globals.update(warning_tag=tags.ALERT_WARNING, critical_tag=tags.ALERT_CRITICAL)
    environment.tests["code"] = lambda part: isinstance(part, Code)
    environment.tests["flag"] = lambda part: isinstance(part, Flag)
    environment.filters["number"] = number
    environment.filters["figure_json"] = figure_json
    return environment


def _harmless(value: object) -> object:
    """Remove control characters from a text that a template shows, and limit its length; markup stays as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return visible(value if len(value) <= MAX_CHARACTERS else f"{value[:MAX_CHARACTERS]}…")


def _source(name: str) -> str:
    return _TEMPLATES.joinpath(name).read_text(encoding="utf-8")


def figure_json(figure: Figure) -> Markup:
    """Return a figure as JSON that cannot end the script element around it."""
    # "</script>" or "<!--" within a string would end the element; a JSON parser reads the escapes as the same
    # characters.
    text = json.dumps(figure, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
