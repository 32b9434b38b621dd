"""What the command says on the console: lines, complaints, and how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from sb3_visual_td3.common.errors import reader_is_gone as reader_is_gone  # noqa: PLC0414 - cli reads it here
from sb3_visual_td3.report.document import visible_line

Advance = Callable[[float], None]
"""Tells a progress bar of so much more."""

BeginPart = Callable[[str, float], Advance]
"""Begins a part of the work, of that name and size."""


def no_progress(_description: str, _total: float) -> Advance:
    """Begin a part of the work that no progress bar shows."""
    return lambda _amount: None


def print_lines(lines: Iterable[str]) -> None:
    """Write lines to stdout, at once: whoever reads a pipe wants them when they are said."""
    for line in lines:
        sys.stdout.write(_written(line, sys.stdout) + "\n")
    sys.stdout.flush()


def complain(error: object) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"visual-td3 report: {_written(one_line(error), sys.stderr)}\n")


def one_line(error: object) -> str:
    """Return an error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file'}: {error.strerror}"
    return " ".join(str(error).split())


@contextmanager
def progress(is_worth_it: bool) -> Iterator[BeginPart]:
    """Show progress bars, one a part, where somebody sees them: on a terminal's stderr."""
    if not (is_worth_it and sys.stderr.isatty()):
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:

        def begin(description: str, total: float) -> Advance:
            task = bars.add_task(description, total=total)
            return lambda amount: bars.advance(task, amount)

        yield begin


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Show one line that is written over, on a terminal's stderr; elsewhere nothing.

    :return: what takes the line.
    """
    if not sys.stderr.isatty():
        yield lambda _line: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    spinner = Spinner("dots", Text("looking"))
    # What is said meanwhile goes above the line; a stdout that is no terminal must not be led there.
    is_shared = sys.stdout.isatty()
    with Live(spinner, console=Console(stderr=True), transient=True, redirect_stdout=is_shared, redirect_stderr=True):
        yield lambda line: spinner.update(text=Text(visible_line(line, 200)))


def _written(line: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    return visible_line(line).encode(encoding, "replace").decode(encoding)
