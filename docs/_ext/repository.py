"""The repository's own texts on pages of the documentation, and links that work in both places."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"

PAGES = {
    "README.md": "docs/index.md",
    "README.md#why-runs-explode": "docs/why.md",
    "README.md#how-well-does-it-drive": "docs/results.md",
    "CHANGELOG.md": "docs/changelog.md",
    "benchmarks/README.md": "docs/benchmarks.md",
}
"""Files of the repository that the documentation shows as pages; other anchors stay as they are."""

_LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^()\s]+)\)")
_FENCE = re.compile(r"^(```|~~~)")


def read(path: str) -> str:
    """:return: the text of a file

    :param path: from the repository's root
    """
    return (ROOT / path).read_text(encoding="utf-8")


def section(path: str, title: str) -> str:
    """:return: what stands below a heading of the second level, up to the next one

    :param path: of a Markdown file, from the repository's root
    :param title: of the heading
    :raises ValueError: if there is no such heading
    """
    parts = re.split(r"^## (.*)$", read(path), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    if title not in sections:
        raise ValueError(f"{path} has no section {title!r}; it has {', '.join(sections)}")
    return sections[title].strip()


def relinked(text: str, written_in: str, shown_in: str) -> str:
    """Change the links of a Markdown text that lead out of the documentation, or that lead from another folder.

    What the documentation shows as a page is linked as that page. Other files stay files, which Sphinx offers for
    download; of a folder, which it cannot, only the link's text stays.

    :param text: Markdown; code in fences is left alone
    :param written_in: folder that its links start from, from the repository's root
    :param shown_in: folder of the page that shows it
    :return: the same text with other targets
    """
    lines, is_code = [], False
    for line in text.split("\n"):
        is_code ^= bool(_FENCE.match(line.lstrip()))
        lines.append(line if is_code else _LINK.sub(lambda m: _relinked(m, written_in, shown_in), line))
    return "\n".join(lines)


def _relinked(match: re.Match[str], written_in: str, shown_in: str) -> str:
    target = match["target"]
    if "://" in target or target.startswith(("#", "mailto:", "/")):
        return match[0]
    path, _, anchor = target.partition("#")
    place = posixpath.normpath(posixpath.join(written_in, path))
    whole = f"{place}#{anchor}" if anchor else place
    if whole in PAGES:
        place, anchor = PAGES[whole], ""
    elif place in PAGES:
        place = PAGES[place]
    elif (ROOT / place).is_dir():
        return match["text"].removeprefix("!")[1:-1]
    new = posixpath.relpath(place, shown_in)
    return f"{match['text']}({new}#{anchor})" if anchor else f"{match['text']}({new})"
