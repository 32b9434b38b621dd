"""Render the table of settings that VisualTD3 adds to TD3.

The table is generated from the class, the policy and the presets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from docstrings import keyword_comments, parameters
from markdown_pieces import code, table

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.visual_td3 import presets
from sb3_visual_td3.visual_td3.policies import VisualTD3Policy
from sb3_visual_td3.visual_td3.presets import PRESETS, Settings

_OF_NO_PRESET = "as stock"


class Setting(NamedTuple):
    """A row of the table."""

    name: str
    meaning: str
    stock: str
    visual: str
    source: str


def settings() -> list[Setting]:
    """Return the keyword-only arguments of VisualTD3, followed by the keys that it adds to ``policy_kwargs``."""
    return [*_arguments(), *_policy_keywords()]


def _arguments() -> Iterator[Setting]:
    meanings = parameters(VisualTD3)
    comments = keyword_comments(presets, "Settings", "max_grad_norm")
    known = {f.name for f in fields(Settings)}
    for name, default in _defaults(VisualTD3).items():
        stock = visual = _shown(default)
        if name in known:
            stock, visual = (_shown(getattr(PRESETS[preset], name)) for preset in ("td3", "visual"))
        differs = stock != visual
        yield Setting(name, meanings[name], stock, visual if differs else _OF_NO_PRESET, comments.get(name, ""))


def _policy_keywords() -> Iterator[Setting]:
    meanings = parameters(VisualTD3Policy)
    comment = keyword_comments(presets, "Settings", "max_grad_norm").get("policy_kwargs", "")
    chosen = PRESETS["visual"].policy_kwargs
    for name, default in _defaults(VisualTD3Policy).items():
        is_set = name in chosen
        visual, source = (_shown(chosen[name]), comment) if is_set else (_OF_NO_PRESET, "")
        yield Setting(f"policy_kwargs.{name}", meanings[name], _shown(default), visual, source)


def _defaults(of: type) -> dict[str, Any]:
    """Return the defaults of the keyword-only arguments.

    They are not read from the signature, because autodoc changes signatures during the build.
    """
    return of.__init__.__kwdefaults__ or {}  # type: ignore[misc]


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def settings_table() -> str:
    """Return the table as Markdown."""
    rows = [
        (code(s.name), s.meaning, code(s.stock), s.visual if s.visual == _OF_NO_PRESET else code(s.visual), s.source)
        for s in settings()
    ]
    return table(("setting", "meaning", '`"td3"` (stock)', '`"visual"`', "source of the value"), rows)
