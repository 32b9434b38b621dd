from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import load_criteria
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.series import Series
from sb3_visual_td3.report.analysis import Analysis, analyse
from sb3_visual_td3.report.event_reader import RunData
from sb3_visual_td3.report.plots.run_plots import plots
from sb3_visual_td3.report.render_html import figure_json, render_html
from sb3_visual_td3.report.render_json import render_json
from sb3_visual_td3.report.render_markdown import render_markdown
from sb3_visual_td3.report.thinning import thinned
from sb3_visual_td3.runs.manifest import RunManifest

from .synthetic_runs import Values, as_series, foreign, healthy, leaking, with_nan

MARKUP = "</script><script>alert(1)</script><b>|`![x](http://example.org/x.png)"


def analysed(run: Values, name: str = "run", **keywords: object) -> Analysis:
    series = as_series(run)
    data = RunData(Path(name), series, (Path("events.out.tfevents.1"),), 100)
    return analyse(data, load_criteria(), name=name, **keywords)  # type: ignore[arg-type]


def outside_plotly(page: str) -> str:
    """Return the page without plotly's own source."""
    return re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.S)


def test_the_json_has_exactly_the_keys_of_the_contract() -> None:
    found = json.loads(render_json([analysed(leaking())]))
    assert set(found) == {"format_version", "verdict", "criteria", "diagnoses", "alerts", "metrics", "run"}
    assert found["format_version"] == 1
    assert {frozenset(c) for c in found["criteria"]} == {
        frozenset({"id", "title", "status", "blocking", "value", "threshold", "source"})
    }
    assert {frozenset(d) for d in found["diagnoses"]} == {
        frozenset({"id", "title", "confidence", "evidence", "remedy", "first_step"})
    }
    assert {frozenset(m) for m in found["metrics"].values()} == {
        frozenset({"n", "first", "last", "mean", "std", "min", "max", "first_step", "last_step"})
    }
    assert {c["status"] for c in found["criteria"]} <= {"pass", "fail", "unknown", "not_applicable"}


def test_nan_becomes_null_and_leaves_the_mean_of_the_rest() -> None:
    run = with_nan()
    run["only/nan"] = (np.array([1, 2]), np.array([np.nan, np.inf]))
    text = render_json([analysed(run)])
    metrics = json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} in the JSON"))["metrics"]
    assert metrics[tags.CRITIC_LOSS]["last"] is None
    assert metrics[tags.CRITIC_LOSS]["n"] == 40
    assert 4 < metrics[tags.CRITIC_LOSS]["mean"] < 12
    assert metrics["only/nan"]["mean"] is None


def test_alerts_are_null_where_the_run_did_not_log_them() -> None:
    assert json.loads(render_json([analysed(foreign())]))["alerts"] == {"warning": None, "critical": None}


@pytest.mark.parametrize("make", [healthy, leaking, foreign, with_nan])
def test_every_format_says_the_verdict_first(make: Callable[[], Values]) -> None:
    analysis = analysed(make())
    page = outside_plotly(render_html([analysis]))
    assert f'<span class="verdict" id="verdict">{analysis.verdict.value}</span>' in page
    assert page.index('id="verdict"') < page.index("<h2>Why</h2>") < page.index("<h2>What to do first</h2>")
    assert page.index("<h2>What to do first</h2>") < page.index("<h2>Criteria</h2>") < page.index("<h2>Metrics</h2>")
    assert render_markdown([analysis]).startswith(f"# {analysis.verdict.value}: run\n")


def test_the_page_loads_nothing() -> None:
    page = outside_plotly(render_html([analysed(leaking())]))
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)|url\(|@import""", page)
    assert "default-src 'none'" in page


def test_markup_in_tags_names_and_hyperparameters_is_inert() -> None:
    run = leaking()
    run[f"x/{MARKUP}"] = (np.array([1]), np.array([1.0]))
    manifest = RunManifest(MARKUP, MARKUP, hyperparams={MARKUP: {MARKUP: MARKUP}}, versions={MARKUP: MARKUP})
    analysis = analysed(run, name=MARKUP, manifest=manifest, notes=[MARKUP])
    page = outside_plotly(render_html([analysis, analysed(healthy())], [MARKUP]))
    assert "alert(1)</script>" not in page
    assert "<b>|" not in page
    text = render_markdown([analysis], [MARKUP])
    assert "<script" not in text
    assert "<b>" not in text
    assert "![x](" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in {3, 5, 8, 11}, line


def test_a_figure_cannot_end_the_script_element_it_stands_in() -> None:
    text = str(figure_json({"title": MARKUP}))
    assert not {"<", ">", "&"} & set(text)
    assert json.loads(text) == {"title": MARKUP}


def test_plots_appear_only_where_something_was_logged() -> None:
    assert [plot.id for plot in plots(analysed(foreign()))] == ["actor_loss", "critic_loss"]
    assert len(plots(analysed(healthy()))) == 8


def test_the_plots_mark_thresholds_alerts_and_the_onset_of_the_cause() -> None:
    analysis = analysed(leaking())
    figure = next(plot.figure for plot in plots(analysis) if plot.id == "gradients")
    shapes = figure["layout"]["shapes"]
    assert [s["y0"] for s in shapes if s["type"] == "line" and s["yref"] == "y"] == [10_000.0, 50_000.0]
    (band,) = [s for s in shapes if s["type"] == "rect"]
    critical = analysis.series[tags.ALERT_CRITICAL]
    assert band["x0"] == critical.steps[critical.values == 1.0][0]
    assert band["x1"] == 5000
    (onset,) = [s for s in shapes if s["type"] == "line" and s["xref"] == "x"]
    assert onset["x0"] == analysis.diagnoses[0].first_step


def test_a_long_series_is_thinned_without_losing_its_spike() -> None:
    values = np.zeros(1_000_000)
    values[123_457] = 9.0
    thin = thinned(Series("a", np.arange(values.size), values))
    assert len(thin) <= 2002
    assert thin.values.max() == 9.0
    assert thin.steps[thin.values.argmax()] == 123_457
    assert (thin.steps[0], thin.steps[-1]) == (0, 999_999)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("nan"), "NaN"),
        (float("-inf"), "-∞"),
        (0.0, "0"),
        (1e-7, "1e-07"),
        (0.05, "0.05"),
        (81.26856, "81.27"),
        (1234.56, "1,234.6"),
        (8_199_994.5, "8,199,994"),
        (5000, "5,000"),
    ],
)
def test_numbers_are_short_and_never_a_false_zero(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_draws_every_plot_and_shows_the_verdict(tmp_path: Path) -> None:
    analysis = analysed(leaking())
    (tmp_path / "report.html").write_text(render_html([analysis]), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=8000"]
    command = ["chromium", *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    page = (tmp_path / "report.html").as_uri()
    done = subprocess.run([*command, page], capture_output=True, text=True, timeout=120, check=False)
    assert '<span class="verdict" id="verdict">NO-GO</span>' in done.stdout
    assert done.stdout.count('class="main-svg"') >= len(plots(analysis))
