"""Contrast as WCAG 2.2 defines it: at least 4.5 : 1 for text, 3 : 1 for lines and marks."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from sb3_visual_td3.report import panels, plots

STYLE = resources.files("sb3_visual_td3.report").joinpath("templates/style.css").read_text(encoding="utf-8")
COLOURS = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", STYLE))
WHITE = "#ffffff"


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_computed_as_wcag_defines_it() -> None:
    assert contrast("#000000", WHITE) == pytest.approx(21)
    assert contrast("#777777", WHITE) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("ground", ["paper", "card", "head"])
@pytest.mark.parametrize("text", ["ink", "soft", "link", "nogo", "go", "insufficient"])
def test_text_contrasts_with_every_background(text: str, ground: str) -> None:
    assert contrast(COLOURS[text], COLOURS[ground]) >= 4.5


@pytest.mark.parametrize("verdict", ["go", "nogo", "insufficient"])
def test_verdict_colours_contrast_with_white_and_with_their_pale_backgrounds(verdict: str) -> None:
    assert contrast(WHITE, COLOURS[verdict]) >= 4.5
    assert contrast(COLOURS[verdict], COLOURS[f"{verdict}-pale"]) >= 4.5


def test_lines_and_text_of_plots_contrast_with_white() -> None:
    lines = {line.colour for panel in panels.PANELS for line in panel.lines} | set(panels.LINE_COLOURS)
    assert {colour: contrast(colour, WHITE) for colour in lines if contrast(colour, WHITE) < 3} == {}
    for colour in (panels.RED, panels.BLACK, str(plots._FONT["color"])):
        assert contrast(colour, WHITE) >= 4.5
