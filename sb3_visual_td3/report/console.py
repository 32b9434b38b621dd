"""Write the console output of the report command: lines, errors and progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from sb3_visual_td3.common.errors import in_one_line
from sb3_visual_td3.report.document import visible_line

Advance = Callable[[float], None]
"""Function that advances a progress bar by an amount."""

BeginPart = Callable[[str, float], Advance]
"""Function that starts a progress bar for a part of the work, given its name and its size."""


def no_progress(_description: str, _total: float) -> Advance:
    """Show no progress bar: return an :data:`Advance` function that does nothing."""
    return lambda _amount: None


def print_lines(lines: Iterable[str]) -> None:
    """Write lines to stdout and flush it, so that another program that reads this output gets them at once."""
    for line in lines:
        sys.stdout.write(_written(line, sys.stdout) + "\n")
    sys.stdout.flush()


def complain(error: object) -> None:
    """Write an error to stderr, as one line."""
    sys.stderr.write(f"visual-td3 report: {_written(one_line(error), sys.stderr)}\n")


def one_line(error: object) -> str:
    """Format an error as one line; an OSError becomes its file and its reason."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file'}: {error.strerror}"
    return in_one_line(error)


@contextmanager
def progress(is_worth_it: bool) -> Iterator[BeginPart]:
    """Show a progress bar for each part of the work on stderr, if stderr is a terminal.

    :param is_worth_it: whether the work takes long enough for a progress bar
    :return: the function that starts a part of the work
    """
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
    """Show a status line that is overwritten in place on stderr, if stderr is a terminal.

    :return: the function that takes the text of the line
    """
    if not sys.stderr.isatty():
        yield lambda _line: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    spinner = Spinner("dots", Text("reading"))
    # Other output appears above the line. A stdout that is a file or a pipe must not be redirected to the terminal.
    is_shared = sys.stdout.isatty()
    with Live(spinner, console=Console(stderr=True), transient=True, redirect_stdout=is_shared, redirect_stderr=True):
        yield lambda line: spinner.update(text=Text(visible_line(line, 200)))


def _written(line: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    return visible_line(line).encode(encoding, "replace").decode(encoding)
