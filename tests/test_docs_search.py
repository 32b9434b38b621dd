"""The search of the built documentation lists the needed page first, tested in Debian's chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from tests.report.browser import Page, browser, needs_chromium

BUILT = Path(__file__).resolve().parents[1] / "docs" / "_build" / "html"

pytestmark = [
    pytest.mark.browser,
    needs_chromium,
    pytest.mark.skipif(not BUILT.is_dir(), reason="needs the pages that make docs builds"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


def results(page: Page, query: str) -> list[str]:
    """Return the pages, or sections of pages, that a query finds, the best one first."""
    page.open(f"{(BUILT / 'search.html').as_uri()}?q={quote_plus(query)}")
    page.until("document.querySelectorAll('#search-results ul.search li').length > 0")
    links = page.evaluate("[...document.querySelectorAll('#search-results ul.search li > a')].map(a => a.href)")
    return [link.rpartition("/")[2].replace(f"?highlight={quote_plus(query)}", "") for link in links]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("own environment", "own_environment.html"),
        ("add reward", "own_reward.html"),
        ("GPU", "hardware.html"),
        ("resume", "quickstart.html#resume-a-killed-run"),
        ("out of memory", "troubleshooting.html#out-of-memory"),
        ("NaN", "troubleshooting.html#a-loss-is-nan-or-infinite"),
        ("threshold", "criteria.html#your-own-thresholds"),
    ],
)
def test_a_users_word_finds_its_page_first(page: Page, query: str, first: str) -> None:
    found = results(page, query)
    assert found[0].startswith(first), found[:6]
