from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import load_criteria
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.series import Series
from sb3_visual_td3.report.analysis import Analysis, RunSections, analyse
from sb3_visual_td3.report.document import Code, Column, Flag, Section, Table
from sb3_visual_td3.report.event_reader import RunData
from sb3_visual_td3.report.plots import overlays, plots, thinned
from sb3_visual_td3.report.render_html import figure_json, render_html
from sb3_visual_td3.report.render_json import render_json
from sb3_visual_td3.report.render_markdown import MAX_CHARACTERS, render_markdown
from sb3_visual_td3.runs.manifest import RunManifest

from .synthetic_runs import Values, as_series, complete, foreign, healthy, leaking, with_nan

MARKUP = "\"'><x-evil onmouseover=alert(1)></script><script>alert(1)</script><b>|`![x](http://example.org/x.png)%{x}\\|"


def analysed(run: Values, name: str = "run", **keywords: object) -> Analysis:
    series = as_series(run)
    data = RunData(Path(name), series, (Path("events.out.tfevents.1"),), 100)
    return analyse(data, keywords.pop("criteria", load_criteria()), name=name, **keywords)  # type: ignore[arg-type]


def outside_plotly(page: str) -> str:
    """Return the page without plotly's own source."""
    return re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.S)


def test_the_json_has_exactly_the_keys_of_the_contract() -> None:
    found = json.loads(render_json([analysed(leaking())]))
    of_version_1 = {"format_version", "verdict", "criteria", "diagnoses", "alerts", "metrics", "run"}
    of_version_2 = {"stable", "learning", "evidence", "checks", "kind", "curve", "until", "verdict_over_time"}
    assert set(found) == of_version_1 | of_version_2 | {"next_step", "near_misses"}
    assert found["format_version"] == 2
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


def test_the_json_has_the_values_of_the_sections_under_the_key_run() -> None:
    run = json.loads(render_json([analysed(complete())]))["run"]
    assert [kind["id"] for kind in run["availability"]][:2] == ["episode", "update"]
    assert run["growth"][tags.ACTOR_LOSS]["rows"][0].keys() >= {"step", "value", "multiplier"}
    assert {ratio["numerator"] for ratio in run["norms"]["ratios"]} == {"actor_cnn", "critic_cnn"}
    assert run["critics"]["twins"]["n"] == 40
    assert run["rewards"]["terms"][0]["share"] == pytest.approx(0.3)
    assert len(run["episodes"]["first"]) == 10
    assert run["alert_history"]["policy_extrapolation"]["longest_stretch"]["n_points"] == 4


@pytest.mark.parametrize("make", [healthy, leaking, complete, foreign, with_nan])
def test_markdown_and_page_have_the_same_sections(make: Callable[[], Values]) -> None:
    analysis = analysed(make())
    titles = [section.title for section in analysis.sections.as_document()]
    in_markdown = re.findall(r"^## (.*)$", render_markdown([analysis]), flags=re.M)
    on_page = re.findall(r"<h2>(.*?)</h2>", outside_plotly(render_html([analysis])))
    assert [title for title in in_markdown if title in titles] == titles
    assert [title for title in on_page if title in titles] == titles


@pytest.mark.parametrize(
    ("n_runs", "has_folded", "has_criteria"), [(1, True, True), (3, False, True), (12, False, False)]
)
def test_markdown_fits_into_a_pull_request_and_says_that_detail_is_left_out(
    n_runs: int, has_folded: bool, has_criteria: bool
) -> None:
    analyses = [analysed(complete(seed), name=f"run {seed}") for seed in range(n_runs)]
    text = render_markdown(analyses)
    assert len(text) <= MAX_CHARACTERS
    assert ("<details>" in text) is has_folded
    assert ("this text leaves out details" in text) is not has_folded
    assert ("## Criteria" in text) is has_criteria
    for analysis in analyses:
        assert f"# GO: {analysis.name}\n" in text


def test_a_page_has_its_headings_in_order_and_every_link_leads_somewhere() -> None:
    two = [analysed(complete(), "a"), analysed(leaking(), "b")]
    for analyses, unreadable in ((two, []), (two, ["c"]), (two[:1], []), (two[:1], ["c"])):
        found = Elements(outside_plotly(render_html(analyses, unreadable))).found
        levels = [int(name[1]) for name, _ in found if re.fullmatch("h[1-6]", name)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        ids = [attributes["id"] for _, attributes in found if "id" in attributes]
        assert len(ids) == len(set(ids))
        links = [attributes["href"] for name, attributes in found if name == "a"]
        assert {f"#{i}" for i in ids} >= set(links)
        assert ("html", {"lang": "en"}) in found


def test_alerts_are_null_if_the_run_did_not_log_them() -> None:
    assert json.loads(render_json([analysed(foreign())]))["alerts"] == {"warning": None, "critical": None}


@pytest.mark.parametrize("make", [healthy, leaking, foreign, with_nan])
def test_every_format_starts_with_the_verdict(make: Callable[[], Values]) -> None:
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


class Elements(HTMLParser):
    """Collects the elements of a page with their attributes, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def names(self) -> set[str]:
        return {name for name, _ in self.found}


def hostile() -> Analysis:
    """Return a complete run in which every name that comes from a log contains markup."""
    run = complete()
    at = (np.array([1, 2]), np.array([1.0, 1.0]))
    for prefix in ("x/", "alerts/", "reward/", "train/", "gradients/", "eval/"):
        run[prefix + MARKUP] = at
    run[f"../../{MARKUP}"] = at
    manifest = RunManifest(MARKUP, MARKUP, hyperparams={MARKUP: {MARKUP: MARKUP}}, versions={MARKUP: MARKUP})
    return analysed(run, name=MARKUP, manifest=manifest, notes=[MARKUP])


def test_markup_in_tags_names_and_hyperparameters_is_inert_on_the_page() -> None:
    page = render_html([hostile(), analysed(complete(), name="../../etc")], [MARKUP])
    names = set[str]()
    for name, attributes in Elements(outside_plotly(page)).found:
        names.add(name)
        assert not any(attribute.startswith("on") for attribute in attributes), attributes
        assert not {"src", "action", "formaction"} & set(attributes), attributes
        assert (attributes.get("href") or "#").startswith("#"), attributes
    assert names <= Elements(outside_plotly(render_html([analysed(complete()), analysed(leaking())], ["a"]))).names()


def test_markup_in_tags_names_and_hyperparameters_is_inert_in_markdown() -> None:
    text = render_markdown([hostile()], [MARKUP])
    assert "<details>" in text
    assert_is_inert(text)
    assert all(len(widths) == 1 for widths in table_widths(text))


def as_github_shows(text: str) -> str:
    return str(MarkdownIt("gfm-like", {"linkify": False}).render(text))


def assert_is_inert(text: str) -> None:
    elements = Elements(as_github_shows(text)).found
    tables, texts = {"table", "thead", "tbody", "tr", "th", "td"}, {"h1", "h2", "h3", "p", "strong", "code", "pre"}
    assert {name for name, _ in elements} <= tables | texts | {"ul", "li", "details", "summary"}
    assert not any(set(attributes) - {"style", "class"} for _, attributes in elements)


def test_markdown_shows_names_as_they_were_logged() -> None:
    names = (
        "train/loss[0]",
        "train/a<b",
        "train/back\\slash",
        "a|b",
        "a\\|b",
        "eval/_x_",
        "*star*",
        "a&amp;b",
        "~~gone~~",
    )
    run = {**foreign(), **{name: (np.array([1, 2]), np.array([1.0, 1.0])) for name in names if name != "a\\|b"}}
    for title in ("_old_run_", "*best*", "a&lt;b", "~~x~~", "snake_case_name"):
        page = as_github_shows(render_markdown([analysed(run, name=title)], names))
        assert f"<h1>INSUFFICIENT: {html.escape(title, quote=False)}</h1>" in page
    for name in run:
        assert f"<td><code>{html.escape(name, quote=False)}</code></td>" in page
    for name in names:
        assert f"<li>{html.escape(name, quote=False)}</li>" in page


def table_widths(text: str) -> list[set[int]]:
    """Return the number of unescaped bars in each line of each table."""
    tables: list[set[int]] = []
    inside = False
    for line in text.splitlines():
        starts = line.startswith("|")
        if starts and not inside:
            tables.append(set())
        if starts:
            tables[-1].add(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)))
        inside = starts
    return tables


def test_markup_in_a_section_is_escaped_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (MARKUP, Code(MARKUP), Flag(MARKUP))
    columns = (Column(MARKUP), Column(MARKUP, True), Column(MARKUP))
    tables = tuple(Table(columns, (parts,), parts, folded=folded) for folded in (True, False))
    section = Section("here", "Here", (parts,), tables)
    monkeypatch.setattr(RunSections, "as_document", lambda _: (section,))
    analysis = analysed(foreign())
    found = Elements(outside_plotly(render_html([analysis]))).found
    assert "x-evil" not in {name for name, _ in found}
    assert not any(attribute.startswith("on") for _, attributes in found for attribute in attributes)
    text = render_markdown([analysis])
    assert_is_inert(text)
    assert all(len(widths) == 1 for widths in table_widths(text))


def test_markup_reaches_no_plot() -> None:
    analysis = hostile()
    drawn = [*plots(analysis), *overlays([analysis, analysed(complete())])]
    assert {"alerts", "reward_terms", "runs_train_actor_loss"} <= {plot.id for plot in drawn}
    for plot in drawn:
        for text in strings_in(plot.figure):
            assert not re.search("<(?!br>|b>|/b>|extra>|/extra>)", text), text
            assert set(re.findall("%{(.*?)}", text)) <= {"x:,", "customdata"}, text


def strings_in(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings_in(item)]
    return [text for item in value for text in strings_in(item)] if isinstance(value, list) else []


def test_a_figure_cannot_end_its_script_element() -> None:
    text = str(figure_json({"title": MARKUP}))
    assert not {"<", ">", "&"} & set(text)
    assert json.loads(text) == {"title": MARKUP}


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
