"""``visual-td3 report PATH...``: read, judge, write, and say it in a few lines."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sb3_visual_td3.diagnosis.criteria import Criterion, load_criteria
from sb3_visual_td3.diagnosis.verdict import EXIT_CODE_OF, ExitCode, Verdict, worst
from sb3_visual_td3.report.analysis import Analysis, analyse
from sb3_visual_td3.report.discovery import RunFiles, find_manifest, find_runs, find_zoo_folder
from sb3_visual_td3.report.event_file import OnBytes
from sb3_visual_td3.report.event_reader import UnreadableRunError, read_run
from sb3_visual_td3.report.export_csv import report_csv, series_csv
from sb3_visual_td3.report.hyperparams_found import HELP as HYPERPARAMS_HELP
from sb3_visual_td3.report.hyperparams_found import Layer, given_settings, run_settings
from sb3_visual_td3.report.tag_mapping import HELP as TAGS_HELP
from sb3_visual_td3.report.tag_mapping import TagMapping, load_tag_mapping, with_our_names
from sb3_visual_td3.report.wording import first_step_to_take, reason, reasons, run_line
from sb3_visual_td3.report.writing import output_folders, write_reports

FORMATS = ("md", "html", "json", "csv")
DEFAULT_FORMATS = FORMATS[:3]
PROGRESS_FROM_BYTES = 5_000_000
MAX_REASONS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser."""
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="a run's folder, a folder above several runs, or one event file",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for report.md, report.html and report.json "
        "(default: PATH itself where it holds a run.json, else the current folder)",
    )
    parser.add_argument("--criteria", type=Path, metavar="FILE", help="YAML file that changes or adds criteria")
    parser.add_argument("--hyperparams", type=Path, metavar="FILE", help=HYPERPARAMS_HELP)
    parser.add_argument("--tags", type=Path, metavar="FILE", help=TAGS_HELP)
    parser.add_argument(
        "--format",
        type=_formats,
        default=DEFAULT_FORMATS,
        metavar="md,html,json,csv",
        help="which reports to write (default: md,html,json); csv is report.csv, a row per tag, and series.csv, "
        "a row per point",
    )
    parser.add_argument(
        "--fail-on",
        choices=("no-go", "insufficient"),
        default="insufficient",
        help="no-go: exit 0 where the data do not suffice for a verdict (default: insufficient, exit 3)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    :return: 0 GO, 1 NO-GO, 2 unreadable input or bad usage, 3 INSUFFICIENT, 4 internal error.
    """
    try:
        return int(_report(args))
    except (ValueError, OSError) as error:
        _complain(error)
        return int(ExitCode.UNREADABLE)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        _complain(f"internal error, please report it: {type(error).__name__}: {error} ({where})")
        return int(ExitCode.INTERNAL_ERROR)


def _report(args: argparse.Namespace) -> ExitCode:
    inputs = _Inputs(
        load_criteria(args.criteria),
        None if args.tags is None else load_tag_mapping(args.tags),
        None if args.hyperparams is None else given_settings(args.hyperparams),
    )
    unreadable: list[str] = []
    runs = _find_all(args.paths, unreadable)
    analyses = _analyse_all(runs, inputs, unreadable)
    for line in unreadable:
        _complain(line)
    codes = [_exit_code(analysis.verdict, args.fail_on) for analysis in analyses]
    codes += [ExitCode.UNREADABLE] * len(unreadable)
    if analyses:
        contents = {name: text for form in args.format for name, text in _rendered(form, analyses, unreadable)}
        written = write_reports(output_folders(args.output, args.paths), contents)
        for analysis in analyses:
            _say(_summary(analysis))
        _say(["Reports:", *(f"  {path.resolve()}" for path in written)])
    return worst(codes)


def _exit_code(verdict: Verdict, fail_on: str) -> ExitCode:
    if verdict is Verdict.INSUFFICIENT and fail_on == "no-go":
        return ExitCode.GO
    return EXIT_CODE_OF[verdict]


def _find_all(paths: Iterable[Path], unreadable: list[str]) -> list[tuple[str, RunFiles]]:
    found: dict[Path, tuple[str, RunFiles]] = {}
    for path in paths:
        try:
            runs = find_runs(path)
        except (UnreadableRunError, OSError) as error:
            unreadable.append(_one_line(error))
            continue
        for files in runs:
            found.setdefault(files.path.resolve(), (_name(path, files, n_runs=len(runs)), files))
    names = [name for name, _ in found.values()]
    return [(name if names.count(name) == 1 else str(files.path), files) for name, files in found.values()]


def _name(path: Path, files: RunFiles, *, n_runs: int) -> str:
    own = path.resolve().name or str(path)
    if n_runs == 1 or files.path == path:
        return own
    return f"{own}/{files.path.relative_to(path)}"


class _Inputs(NamedTuple):
    """What the runs are read and judged with."""

    criteria: Sequence[Criterion]
    tag_mapping: TagMapping | None
    hyperparams: Layer | None


def _analyse_all(runs: Sequence[tuple[str, RunFiles]], inputs: _Inputs, unreadable: list[str]) -> list[Analysis]:
    analyses = []
    n_bytes = sum(file.stat().st_size for _, files in runs for file in files.files if file.exists())
    with _progress(n_bytes) as on_bytes:
        for name, files in runs:
            try:
                data = with_our_names(read_run(files.path, files.files, on_bytes), inputs.tag_mapping)
            except (UnreadableRunError, OSError) as error:
                unreadable.append(_one_line(error))
                continue
            manifest, note = find_manifest(files.path)
            zoo_folder, zoo_note = find_zoo_folder(files.path)
            settings, settings_notes = run_settings(inputs.hyperparams, manifest, zoo_folder)
            notes = [*filter(None, (note, zoo_note)), *settings_notes]
            analyses.append(
                analyse(data, inputs.criteria, name=name, manifest=manifest, notes=notes, settings=settings)
            )
    return analyses


@contextmanager
def _progress(n_bytes: int) -> Iterator[OnBytes | None]:
    """Show a progress bar on a terminal's stderr where there is much to read."""
    if n_bytes < PROGRESS_FROM_BYTES or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Reading event files", total=n_bytes)
        yield lambda n: progress.advance(task, n)


def _rendered(form: str, analyses: Sequence[Analysis], unreadable: Sequence[str]) -> list[tuple[str, str]]:
    """Return the files of a format, name and text."""
    if form == "csv":
        return [("report.csv", report_csv(analyses)), ("series.csv", series_csv(analyses))]
    return [(f"report.{form}", _renderer(form)(analyses, unreadable))]


def _renderer(form: str) -> Callable[[Sequence[Analysis], Sequence[str]], str]:
    """Return a format's renderer; plotly and jinja2 are imported only where a page is wanted."""
    if form == "html":
        from sb3_visual_td3.report.render_html import render_html

        return render_html
    if form == "md":
        from sb3_visual_td3.report.render_markdown import render_markdown

        return render_markdown
    from sb3_visual_td3.report.render_json import render_json

    return render_json


def _summary(analysis: Analysis) -> list[str]:
    lines = [f"{analysis.verdict.value}  {analysis.name}  ({run_line(analysis)})"]
    why = reasons(analysis)
    lines += [f"  {r.status.value}: {r.title}. {reason(r)}" for r in why[:MAX_REASONS]]
    if len(why) > MAX_REASONS:
        lines.append(f"  and {len(why) - MAX_REASONS} more")
    if analysis.cause:
        cause = analysis.cause
        since = "" if cause.first_step is None else f", first seen at step {cause.first_step:,}"
        lines.append(f"  Likely cause: {cause.id} (confidence {cause.confidence:.0%}{since}): {cause.title}")
    lines.append(f"  Do first: {first_step_to_take(analysis)}")
    lines += [f"  Note: {note}" for note in analysis.notes]
    return lines


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = [part for part in chosen if part not in FORMATS]
    if wrong or not chosen:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected one or more of {', '.join(FORMATS)}, comma-separated")
    return chosen


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(_printable(line) + "\n")


def _complain(error: object) -> None:
    sys.stderr.write(f"visual-td3 report: {_printable(_one_line(error))}\n")


def _one_line(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file'}: {error.strerror}"
    return " ".join(str(error).split())


def _printable(text: str) -> str:
    """Return text without control characters: a tag or a folder's name may hold a terminal's escape codes."""
    visible = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    encoding = sys.stdout.encoding or "utf-8"
    return visible.encode(encoding, "replace").decode(encoding)
