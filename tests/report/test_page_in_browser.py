"""Test the page in Debian's chromium: with a mouse, with a keyboard, on a phone, and printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import load_criteria
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.report.analysis import Analysis, analyse
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import read_run
from sb3_visual_td3.report.over_time import Prefix, VerdictOverTime
from sb3_visual_td3.report.plots import overlays, plots
from sb3_visual_td3.report.render_html import PLOTLY_FILE, render_html
from sb3_visual_td3.report.run_settings import run_settings
from sb3_visual_td3.runs.manifest import RunManifest

from .browser import DESKTOP, PHONE, Page, browser, needs_chromium
from .synthetic_runs import REAL_RUNS, complete, dead_policy, healthy, leaking, needs_real_runs
from .test_renderers import MARKUP, analysed, hostile

PAPER = int((210 - 2 * 13) / 25.4 * 96)
"""Width in pixels between the margins of A4, which is narrower than US Letter."""

pytestmark = [pytest.mark.browser, needs_chromium]


def with_settings(folder: Path) -> Analysis:
    """Return the analysis of a dead policy; its page shows a diff and a comparison of hyperparameters."""
    hyperparams = {"learning_rate": 0.1, "pre_tanh_penalty": 0.0, "policy_kwargs": {"trunk_dim": None}, "tau": 0.5}
    manifest = RunManifest("VisualTD3", "LiteDriving-v0", 1, 5000, hyperparams, versions={"torch": "2.13.0"})
    known, _ = run_settings(None, manifest, folder)
    return analysed({**complete(), **dead_policy()}, "with settings", manifest=manifest, settings=known)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


def show(page: Page, folder: Path, *analyses: Analysis, size: tuple[int, int] = DESKTOP) -> None:
    file = folder / "report.html"
    file.write_text(render_html(analyses), encoding="utf-8")
    page.events.clear()
    page.open(file.as_uri(), size)


def requests(page: Page) -> list[str]:
    return [event["params"]["request"]["url"] for event in page.happened("Network.requestWillBeSent")]


def complaints(page: Page) -> list[Any]:
    """Return what the browser reported: exceptions, errors, and violations of the page's security policy."""
    return page.happened("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


def visible(page: Page, selector: str) -> bool:
    """Return whether an element is completely inside the window."""
    box = page.evaluate(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
    width, height = page.evaluate("[innerWidth, innerHeight]")
    return bool(box["top"] >= 0 and box["left"] >= 0 and box["bottom"] <= height and box["right"] <= width)


@pytest.mark.parametrize("is_beside", [False, True], ids=["inline", "directory"])
def test_plots_are_drawn_with_plotly_inside_or_beside_the_page(page: Page, tmp_path: Path, is_beside: bool) -> None:
    text = render_html([analysed(healthy())], plotly_beside=is_beside)
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    if is_beside:
        assert len(text) < 1_500_000
        (tmp_path / PLOTLY_FILE).write_text(get_plotlyjs(), encoding="utf-8")
    page.events.clear()
    page.open((tmp_path / "report.html").as_uri(), DESKTOP)
    assert page.evaluate("typeof Plotly") == "object"
    page.draw(".plot")
    assert page.evaluate("document.querySelectorAll('.plot .main-svg').length") > 0
    assert complaints(page) == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize(("make", "verdict"), [(leaking, "NO-GO"), (healthy, "GO")])
def test_the_verdict_is_read_without_scrolling(
    page: Page, tmp_path: Path, size: tuple[int, int], make: Any, verdict: str
) -> None:
    show(page, tmp_path, analysed(make()), size=size)
    assert page.evaluate("document.getElementById('verdict').innerText") == verdict
    assert page.evaluate("scrollY") == 0
    assert visible(page, "#verdict")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if size == DESKTOP:
        assert visible(page, ".card.first .remedy")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_verdict_over_time_is_a_strip_of_marks_that_fit_their_cells(
    page: Page, tmp_path: Path, size: tuple[int, int]
) -> None:
    verdicts = [None, *[Verdict.INSUFFICIENT] * 4, *[Verdict.GO] * 5, *[Verdict.NO_GO] * 10]
    prefixes = tuple(Prefix(250 * i, verdict) for i, verdict in enumerate(verdicts, start=1))
    show(page, tmp_path, analysed(leaking(), over_time=VerdictOverTime(prefixes)), size=size)
    cells = page.evaluate(
        """[...document.querySelectorAll('.over-time .strip li')].map(function (cell) {
            var mark = document.createRange(), box = cell.getBoundingClientRect(), style = getComputedStyle(cell);
            mark.selectNodeContents(cell.querySelector('[aria-hidden]'));
            var text = mark.getBoundingClientRect();
            return {mark: cell.firstElementChild.textContent, says: cell.title, top: box.top, width: box.width,
                    fits: text.left >= box.left && text.right <= box.right && text.height <= box.height,
                    pixels: parseFloat(style.fontSize), ink: style.color, paper: style.backgroundColor};
        })"""
    )
    assert "".join(cell["mark"] for cell in cells) == "·????✓✓✓✓✓✗✗✗✗✗✗✗✗✗✗"
    assert cells[0]["says"] == "as it stood at step 250: nothing logged yet"
    assert cells[-1]["says"] == "as it stood at step 5,000: NO-GO"
    assert all(cell["fits"] and cell["pixels"] >= 11 and cell["ink"] != cell["paper"] for cell in cells)
    # All cells are in one row and have the same width.
    assert len({cell["top"] for cell in cells}) == 1
    assert max(cell["width"] for cell in cells) - min(cell["width"] for cell in cells) < 1
    assert "When the failure could first be seen, 45% of the run was still to come." in page.evaluate(
        "document.querySelector('.over-time .told').innerText"
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_worst_verdict_of_several_runs_is_read_without_scrolling(
    page: Page, tmp_path: Path, size: tuple[int, int]
) -> None:
    analyses = [analysed(healthy(), "a"), analysed(leaking(), "b"), analysed(healthy(1), "c")]
    show(page, tmp_path, *analyses, size=size)
    assert page.evaluate("document.getElementById('verdict').innerText") == "NO-GO"
    assert visible(page, "#verdict")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_plot_is_drawn_when_it_is_scrolled_to(page: Page, tmp_path: Path, size: tuple[int, int]) -> None:
    analyses = [analysed(leaking(), "a"), analysed(healthy(), "b")]
    show(page, tmp_path, *analyses, size=size)
    n_plots = len(overlays(analyses)) + sum(len(plots(analysis)) for analysis in analyses)
    n_at_once = page.evaluate("document.querySelectorAll('.plot .main-svg').length")
    assert n_at_once < n_plots
    assert page.draw() == n_plots
    assert page.evaluate("document.querySelectorAll('.plot .xaxislayer-above').length") == n_plots
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_nothing_is_loaded_from_a_network_and_the_browser_has_no_complaint(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, analysed(complete()))
    page.draw()
    assert requests(page)[0].startswith("file://")
    assert [url for url in requests(page)[1:] if not url.startswith(("data:", "blob:"))] == []
    assert complaints(page) == []


def test_the_check_finds_a_page_that_loads_something(page: Page, tmp_path: Path) -> None:
    text = render_html([analysed(healthy())])
    loads = '<img src="http://127.0.0.1:9/x.png" alt="">'
    (tmp_path / "forbidden.html").write_text(text.replace("<main>", f"{loads}<main>"), encoding="utf-8")
    page.events.clear()
    page.open((tmp_path / "forbidden.html").as_uri())
    assert "Content Security Policy" in str(complaints(page))
    (tmp_path / "loads.html").write_text(loads, encoding="utf-8")
    page.open((tmp_path / "loads.html").as_uri())
    assert "http://127.0.0.1:9/x.png" in requests(page)


def hover(page: Page, plot: str, curve: int, point: int) -> str:
    """Move the mouse to a point of a curve, and return the text of the label there."""
    page.draw(f"#{plot}")
    x, y = place_of(page, plot, curve, point)
    page.move_mouse(2, 2)
    page.until("document.querySelectorAll('.hovertext').length === 0")
    page.move_mouse(x, y)
    page.until(f"document.querySelectorAll('#{plot} .hovertext').length > 0")
    said: str = page.evaluate(f"document.querySelector('#{plot} .hovertext').textContent")
    return said


def place_of(page: Page, plot: str, curve: int, point: int) -> tuple[float, float]:
    """Scroll a plot into view, and return the position of a point of its curve in the window."""
    x, y = page.evaluate(
        f"""(function () {{
            var plot = document.getElementById({plot!r});
            plot.scrollIntoView({{ block: "center" }});
            var area = plot.getBoundingClientRect(), layout = plot._fullLayout, curve = plot.data[{curve}];
            return [
                area.left + layout.xaxis._offset + layout.xaxis.d2p(curve.x[{point}]),
                area.top + layout.yaxis._offset + layout.yaxis.d2p(curve.y[{point}]),
            ];
        }})()"""
    )
    return x, y


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_hovering_over_a_plot_shows_the_logged_step_and_value(
    page: Page, tmp_path: Path, size: tuple[int, int]
) -> None:
    analysis = analysed(leaking())
    show(page, tmp_path, analysis, size=size)
    loss = analysis.series[tags.ACTOR_LOSS]
    said = hover(page, "run-0-plot-actor_loss", curve=0, point=20)
    assert said == f"|actor loss|, {tags.ACTOR_LOSS}{loss.steps[20]:,}: {number(loss.values[20])}"
    page.move_mouse(2, 2)
    page.until("document.querySelectorAll('.hovertext').length === 0")


@needs_real_runs
def test_the_page_of_the_first_carla_run_shows_hover_labels(page: Page, tmp_path: Path) -> None:
    (run,) = find_runs(REAL_RUNS / "seed_5k")
    analysis = analyse(read_run(run.path, run.files), load_criteria(), name="seed_5k")
    show(page, tmp_path, analysis)
    assert page.evaluate("document.getElementById('verdict').innerText") == "NO-GO"
    assert "17 are active and 5 are not" in page.evaluate("document.getElementById('run-0-alerts').innerText")
    assert "413 episodes" in page.evaluate("document.getElementById('run-0-episodes').innerText")
    last = len(analysis.series[tags.ACTOR_LOSS]) - 1
    assert hover(page, "run-0-plot-actor_loss", 0, last) == f"|actor loss|, {tags.ACTOR_LOSS}5,000: -7,607,850"
    assert complaints(page) == []
    assert [url for url in requests(page) if not url.startswith(("file:", "data:", "blob:"))] == []


def test_hovering_over_the_alert_plot_shows_when_an_alert_was_active(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, analysed(leaking()))
    stretch = analysed(leaking()).alerts["critical"].stretches[0]
    said = hover(page, "run-0-plot-alerts", curve=0, point=0)
    assert said == f"critical{stretch.n_points} active, {stretch.first_step:,} to {stretch.last_step:,}"


CONTRASTS = """(function (on_paper) {
    function channels(colour) {
        var found = colour.match(/[\\d.]+/g).map(Number);
        return found.length === 4 ? found : found.concat([1]);
    }
    function over(top, ground) {
        return [0, 1, 2].map(function (i) { return top[i] * top[3] + ground[i] * (1 - top[3]); }).concat([1]);
    }
    function ground(element) {
        if (on_paper || !element) return [255, 255, 255, 1];
        var own = channels(getComputedStyle(element).backgroundColor);
        return own[3] === 1 ? own : over(own, ground(element.parentElement));
    }
    function light(colour) {
        var c = colour.slice(0, 3).map(function (v) {
            v /= 255;
            return v <= 0.04045 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4);
        });
        return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
    }
    var n = 0, poor = [];
    document.querySelectorAll("main *").forEach(function (element) {
        if (element.closest("script, style, svg, .plot")) return;
        var text = [...element.childNodes].filter(function (node) { return node.nodeType === 3; })
            .map(function (node) { return node.textContent.trim(); }).join("");
        if (!text || !element.getClientRects().length) return;
        var behind = ground(element), style = getComputedStyle(element);
        var a = light(over(channels(style.color), behind)), b = light(behind);
        var contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        n += 1;
        if (contrast < 4.5) poor.push([text.slice(0, 40), style.color, contrast]);
    });
    return [n, poor];
})"""


@pytest.mark.parametrize("make", [leaking, None])
def test_all_text_contrasts_with_its_background_on_screen_and_paper(page: Page, tmp_path: Path, make: Any) -> None:
    show(page, tmp_path, analysed(make()) if make else with_settings(tmp_path))
    page.evaluate("document.querySelectorAll('details').forEach(function (d) { d.open = true; })")
    n_words, poor = page.evaluate(f"{CONTRASTS}(false)")
    assert n_words > 500
    assert poor == []
    page.send("Emulation.setEmulatedMedia", media="print")
    try:
        # By default, browsers print no backgrounds, so all text is on white.
        _, poor = page.evaluate(f"{CONTRASTS}(true)")
    finally:
        page.send("Emulation.setEmulatedMedia", media="")
    assert poor == []


def test_paper_has_every_detail_and_no_plot_is_cut(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, analysed(complete()))
    page.draw("#run-0-plot-actor_loss")
    closed = page.evaluate("document.querySelectorAll('details:not([open])').length")
    width = page.evaluate("document.querySelector('#run-0-plot-actor_loss .main-svg').clientWidth")
    assert closed > 5
    page.evaluate(
        """addEventListener('beforeprint', function () {
            window.printed = [
                document.querySelectorAll('details:not([open])').length,
                document.querySelectorAll('.plot .xaxislayer-above').length,
                Math.max(...[...document.querySelectorAll('.plot .main-svg')].map(function (svg) {
                    return svg.clientWidth;
                })),
            ];
        })"""
    )
    page.print(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    n_closed, n_plots, widest = page.evaluate("window.printed")
    assert n_closed == 0
    assert n_plots == len(plots(analysed(complete())))
    assert widest <= PAPER
    page.until("document.querySelectorAll('details:not([open])').length > 0")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == closed
    page.until(f"document.querySelector('#run-0-plot-actor_loss .main-svg').clientWidth === {width}")


@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_wider_than_paper(page: Page, tmp_path: Path, several: bool) -> None:
    long_name = "logs/visual_td3/" + "a_name_without_an_end" * 6
    show(page, tmp_path, *[with_settings(tmp_path), analysed(leaking(), long_name)][: 1 + several])
    page.evaluate("document.querySelectorAll('details').forEach(function (d) { d.open = true; })")
    page.resize((PAPER, 900))
    page.send("Emulation.setEmulatedMedia", media="print")
    try:
        # If an element is wider than the paper, the browser shrinks the whole document.
        wider = page.evaluate(
            f"""[...document.querySelectorAll('main table, main figure, main pre')].filter(function (element) {{
                return element.getBoundingClientRect().right > {PAPER};
            }}).map(function (element) {{ return element.textContent.trim().slice(0, 60); }})"""
        )
    finally:
        page.send("Emulation.setEmulatedMedia", media="")
    assert wider == []


def test_a_section_and_a_folded_table_can_be_opened_by_keyboard(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, analysed(complete()))
    page.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#run-0-diagnosis"
    page.press("Tab")
    page.press("Enter")
    assert page.evaluate("location.hash") == "#run-0-criteria"
    page.evaluate("document.querySelector('details.fold > summary').focus()")
    page.press("Enter")
    assert page.evaluate("document.querySelector('details.fold').open")


def test_on_a_phone_only_tables_that_scroll_can_be_focused(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, analysed(complete()), size=PHONE)
    wide, narrow = page.evaluate(
        """[true, false].map(function (is_wide) {
            return [...document.querySelectorAll('.scroll')].filter(function (box) {
                return (box.scrollWidth > box.clientWidth) === is_wide && box.clientWidth > 0;
            }).map(function (box) { return box.tabIndex; });
        })"""
    )
    assert wide
    assert set(wide) == {0}
    assert set(narrow) <= {-1}


def test_markup_in_a_log_is_shown_as_text_and_not_executed(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, hostile(), analysed(leaking(), "b"))
    page.draw(".plot[id$=actor_loss], .plot[id$=alerts], .plot[id$=reward_terms]")
    assert page.happened("Page.javascriptDialogOpening") == []
    assert complaints(page) == []
    assert page.evaluate("document.querySelectorAll('x-evil, main b x, img').length") == 0
    heading = page.evaluate("document.querySelector('#run-0 .name').textContent")
    assert heading == MARKUP
    legend = page.evaluate("document.querySelector('#all-plot-runs_train_actor_loss .legendtext').textContent")
    assert legend == MARKUP
