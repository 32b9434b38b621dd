"""Read texts of the repository for documentation pages, and rewrite the links in these texts."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"

PAGES = {
    "README.md": "docs/index.md",
    "README.md#how-well-does-it-drive": "docs/results.md",
    "CHANGELOG.md": "docs/changelog.md",
    "CONTRIBUTING.md": "docs/contributing.md",
    "SECURITY.md": "docs/security.md",
    "benchmarks/README.md": "docs/benchmarks.md",
}
"""Maps files of the repository to the documentation pages that show them. A key with an anchor stands for one section
of a file. A link to another section keeps its anchor."""

_LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^()\s]+)\)")
_FENCE = re.compile(r"^(```|~~~)")


def read(path: str) -> str:
    """Read a text file.

    :param path: its path, relative to the repository's root
    :return: the text
    """
    return (ROOT / path).read_text(encoding="utf-8")


def section(path: str, title: str) -> str:
    """Return the text below a heading of the second level, up to the next such heading.

    :param path: the path of a Markdown file, relative to the repository's root
    :param title: the text of the heading
    :return: the text, without the heading
    :raises ValueError: if there is no such heading
    """
    parts = re.split(r"^## (.*)$", read(path), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    if title not in sections:
        raise ValueError(f"{path} has no section {title!r}; it has {', '.join(sections)}")
    return sections[title].strip()


def relinked(text: str, written_in: str, shown_in: str) -> str:
    """Rewrite the links of a Markdown text for the page that shows the text.

    A file that the documentation shows as a page is linked as that page. Other files stay files, and Sphinx offers them
    for download. Sphinx cannot do so with a folder, so only the text of its link stays.

    :param text: Markdown; fenced code is not changed
    :param written_in: the folder that the links are relative to, from the repository's root
    :param shown_in: the folder of the page that shows the text
    :return: the same text with other link targets
    """
    parts: list[str] = []
    prose: list[str] = []

    def finish_prose() -> None:
        # All lines together, because the text of a link may continue on the next line.
        if prose:
            parts.append(_LINK.sub(lambda match: _relinked(match, written_in, shown_in), "\n".join(prose)))
            prose.clear()

    is_code = False
    for line in text.split("\n"):
        is_fence = bool(_FENCE.match(line.lstrip()))
        if is_fence or is_code:
            finish_prose()
            parts.append(line)
        else:
            prose.append(line)
        is_code ^= is_fence
    finish_prose()
    return "\n".join(parts)


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
