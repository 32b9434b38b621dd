"""Run ``visual-td3 report PATH...``: read the runs, judge them, write the reports, and print a summary."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from sb3_visual_td3.common.errors import ExitCode, check_output, is_input_error, report_bug, show_traceback_if_debugging
from sb3_visual_td3.diagnosis.criteria import Criterion, load_criteria
from sb3_visual_td3.diagnosis.two_questions import EvidenceLevel
from sb3_visual_td3.diagnosis.verdict import EXIT_CODE_OF, Verdict, worst
from sb3_visual_td3.report.analysis import Analysis, analyse, verdict_on
from sb3_visual_td3.report.console import BeginPart, complain, no_progress, one_line, print_lines, progress, status
from sb3_visual_td3.report.discovery import RunFiles, find_manifest, find_resumable, find_runs, find_zoo_folder
from sb3_visual_td3.report.document import visible
from sb3_visual_td3.report.event_file import OnBytes
from sb3_visual_td3.report.event_reader import RunData, UnreadableRunError, read_run, read_runs
from sb3_visual_td3.report.hyperparam_comparison import implausible, misspelled
from sb3_visual_td3.report.next_step import next_step
from sb3_visual_td3.report.over_time import verdict_over_time
from sb3_visual_td3.report.overview import overview_lines
from sb3_visual_td3.report.run_settings import HELP as HYPERPARAMS_HELP
from sb3_visual_td3.report.run_settings import Layer, read_given_settings, run_settings
from sb3_visual_td3.report.tag_mapping import HELP as TAGS_HELP
from sb3_visual_td3.report.tag_mapping import WRITE_HELP as WRITE_TAGS_HELP
from sb3_visual_td3.report.tag_mapping import TagMapping, load_tag_mapping, mapping_to_start_from, with_our_names
from sb3_visual_td3.report.watch import DEFAULT_INTERVAL_S, ONGOING, Ending, FoundRuns, split_command, watch
from sb3_visual_td3.report.wording import (
    answers_line,
    diagnosis_line,
    findings_beside_go,
    how_to_relax,
    near_misses,
    over_time_line,
    reason,
    reasons,
    run_line,
    until_line,
)
from sb3_visual_td3.report.writing import output_folders, report_csv, series_csv, write_reports
from sb3_visual_td3.runs.manifest import RunManifest

FORMATS = ("md", "html", "json", "csv")
DEFAULT_FORMATS = FORMATS[:3]
PROGRESS_FROM_BYTES = 5_000_000
"""A progress bar is shown if the log files have at least this many bytes in total. Reading smaller files takes less
than a second."""
_PLOTLY_BYTES = 4_800_000
"""A report.html of more bytes than this is assumed to contain plotly.js, which alone has about 4,816,000 bytes."""
MAX_SUMMARIES = 10
"""If there are at most this many runs, the command prints a summary of each run. For more runs, it prints only a table,
and the report files do not show how the verdict changed over a run."""
MAX_REASONS = 4
"""Number of criteria that the summary of a run lists; the reports list all of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``visual-td3 report`` to a parser."""
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="a run's folder, a folder above several runs, or one log file. A log file is an event file, a CSV file "
        "with a step column, or SB3's progress.csv, monitor.csv or evaluations.npz",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for report.md, report.html and report.json "
        "(default: PATH itself if it holds a run.json, otherwise the current folder)",
    )
    parser.add_argument("--criteria", type=Path, metavar="FILE", help="YAML file that changes or adds criteria")
    parser.add_argument("--hyperparams", type=Path, metavar="FILE", help=HYPERPARAMS_HELP)
    parser.add_argument("--tags", type=Path, metavar="FILE", help=TAGS_HELP)
    parser.add_argument("--write-tags", type=Path, metavar="FILE", help=WRITE_TAGS_HELP)
    parser.add_argument(
        "--format",
        type=_formats,
        default=DEFAULT_FORMATS,
        metavar="md,html,json,csv",
        help="which reports to write (default: md,html,json); csv writes report.csv, with a row per tag, and "
        "series.csv, with a row per point",
    )
    parser.add_argument(
        "--plotlyjs",
        choices=("inline", "directory"),
        default="inline",
        help="where to put plotly.js (4.8 MB). inline: into report.html, which then needs no other file. directory: "
        "into the file plotly.min.js in the folder of report.html; all reports in this folder share plotly.min.js. "
        "Both work without a network (default: inline)",
    )
    parser.add_argument(
        "--fail-on",
        choices=("no-go", "insufficient"),
        default="insufficient",
        help=(
            "which verdicts give an exit code other than 0. no-go: the exit code is 1 for NO-GO, and 0 for "
            "INSUFFICIENT. insufficient: the exit code is 1 for NO-GO, and 3 for INSUFFICIENT (default: insufficient)"
        ),
    )
    parser.add_argument(
        "--require-evidence",
        choices=("thin", "standard", "full"),
        default="thin",
        help="the least evidence for a GO; with less evidence the verdict is INSUFFICIENT. thin: any log. standard: "
        "training returns and evaluation returns were logged, and all stability checks for the run's algorithm could "
        "be made. full: the callbacks of this package ran, evaluation returns were logged, and every criterion that "
        "can block a GO could be judged. For algorithms that these callbacks do not support, such as PPO and DQN, full "
        "needs the same as standard (default: thin)",
    )
    parser.add_argument(
        "--until",
        type=_step,
        metavar="STEP",
        help="judge only what the runs logged up to this step of their x-axis. STEP has the unit of the x-axis, which "
        "is usually environment steps, and in some runs another unit, such as episodes",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="keep judging runs while they train: print each change of a verdict, and keep the reports up to date. "
        "The watch ends on Ctrl-C, or when every run.json says that its run has finished or was stopped by a callback. "
        "The watch waits for runs that crashed or were interrupted, because they can be resumed. The exit code is that "
        "of the worst verdict at the end of the watch",
    )
    parser.add_argument(
        "--interval",
        type=_seconds,
        metavar="SECONDS",
        help=f"with --watch: seconds between two checks (default: {DEFAULT_INTERVAL_S:g})",
    )
    parser.add_argument(
        "--on-change",
        metavar="CMD",
        help="with --watch: program and arguments to run, without a shell, when the verdict or cause of a run changes. "
        "These environment variables describe the run: VISUAL_TD3_RUN, VISUAL_TD3_PATH, VISUAL_TD3_VERDICT, "
        "VISUAL_TD3_CAUSE, VISUAL_TD3_STEP, and VISUAL_TD3_BEFORE, which holds the previous verdict and cause",
    )


def run(args: argparse.Namespace) -> int:
    """Run ``visual-td3 report``.

    :param args: the parsed arguments of :func:`add_arguments`
    :return: 0 GO, 1 NO-GO, 2 unreadable input or bad usage, 3 INSUFFICIENT, 4 internal error
    """
    try:
        return int(_report(args))
    except BrokenPipeError:  # the command line handles a closed stdout
        raise
    except Exception as error:
        if not is_input_error(error):
            return report_bug("report", error)
        show_traceback_if_debugging(error)
        complain(error)
        return int(ExitCode.BAD_USAGE)


def _report(args: argparse.Namespace) -> ExitCode:
    analyses: Sequence[Analysis]
    _check_combinations(args)
    on_change = () if args.on_change is None else split_command(args.on_change)
    job = _Job(
        paths=tuple(args.paths),
        output=args.output,
        formats=tuple(args.format),
        criteria=load_criteria(args.criteria),
        tag_mapping=None if args.tags is None else load_tag_mapping(args.tags),
        hyperparams=None if args.hyperparams is None else read_given_settings(args.hyperparams),
        require_evidence=args.require_evidence,
        until=args.until,
        plotlyjs=args.plotlyjs,
    )
    if args.watch:
        watched = watch(job, args.interval or DEFAULT_INTERVAL_S, status, on_change=on_change)
        analyses, written = watched.analyses, watched.written
        is_unreadable = watched.is_refused or job.has_unreadable_path(analyses)
    else:
        analyses, unreadable, is_unreadable = job.judge_once()
    # The program that reads stdout, such as head, may have ended. The reports are written nevertheless, and the
    # exit code shows the verdict. The verdict is printed even if the reports cannot be written.
    with suppress(BrokenPipeError):
        if len(analyses) <= MAX_SUMMARIES:
            for analysis in analyses:
                print_lines(_summary(analysis))
        if len(analyses) > 1:
            print_lines(overview_lines(analyses))
    if not args.watch:
        with progress(_n_bytes(file for each in analyses for file in each.data.files) >= PROGRESS_FROM_BYTES) as begin:
            written = job.publish(analyses, unreadable, begin) if analyses else ()
        if args.write_tags is not None:
            written = [*written, job.write_tags(args.write_tags)]
    with suppress(BrokenPipeError):
        if written:
            print_lines(["Reports:", *(_listed(path, args.plotlyjs) for path in written)])
    codes = [_exit_code(analysis.verdict, args.fail_on) for analysis in analyses]
    if is_unreadable:
        codes.append(ExitCode.BAD_USAGE)
    return worst(codes)


def _listed(path: Path, plotlyjs: str) -> str:
    """Return the line that names a written file; if the file is a page that contains plotly.js, the line says so."""
    line = f"  {path.resolve()}"
    n_bytes = path.stat().st_size
    if path.suffix == ".html" and plotlyjs == "inline" and n_bytes > _PLOTLY_BYTES:
        line += f"  ({n_bytes / 1e6:.1f} MB, 4.8 MB of it plotly.js; --plotlyjs directory writes it beside the page)"
    return line


def _check_combinations(args: argparse.Namespace) -> None:
    """Refuse arguments that cannot be combined.

    :raises ValueError: if two arguments cannot be combined
    """
    if args.interval is not None and not args.watch:
        raise ValueError(
            f"--interval {args.interval:g} sets how often --watch checks the runs: add --watch, or leave --interval out"
        )
    if args.on_change is not None and not args.watch:
        raise ValueError("--on-change CMD is run by --watch: add --watch, or leave --on-change out")
    if args.until is not None and args.watch:
        raise ValueError(
            f"--until {args.until} judges a run up to that step, but --watch follows a run while it grows: leave one "
            "of them out"
        )
    if args.write_tags is not None and args.watch:
        raise ValueError(
            "--write-tags writes a file once, with the tags of a run, so it cannot be combined with --watch: leave one "
            "of them out"
        )
    if args.write_tags is not None and args.write_tags.exists():
        raise ValueError(f"--write-tags {args.write_tags}: the file already exists; give another name, or remove it")
    if args.write_tags is not None:
        check_output("--write-tags", args.write_tags)
    if args.output is not None and args.output.exists() and not args.output.is_dir():
        raise ValueError(f"--output {args.output}: this is a file; give a folder for the reports")


def _exit_code(verdict: Verdict, fail_on: str) -> ExitCode:
    if verdict is Verdict.INSUFFICIENT and fail_on == "no-go":
        return ExitCode.GO
    return EXIT_CODE_OF[verdict]


@dataclass(frozen=True)
class _Job:
    """Find the runs, judge them and write the reports for one call of ``visual-td3 report``."""

    paths: tuple[Path, ...]
    output: Path | None
    formats: tuple[str, ...]
    criteria: Sequence[Criterion]
    tag_mapping: TagMapping | None
    hyperparams: Layer | None
    require_evidence: EvidenceLevel = "thin"
    until: int | None = None
    plotlyjs: str = "inline"
    _found_below: dict[Path, set[Path]] = field(default_factory=dict, init=False)
    """The resolved paths of all runs that were found below each requested path."""

    def judge_once(self) -> tuple[Sequence[Analysis], Sequence[str], bool]:
        """Read the runs and judge them once.

        :return: the analyses, one line for each problem, and a flag. The flag is True if a requested path holds nothing
            to judge, and also if a run could be read but not judged
        """
        found = self.find()
        unreadable = [*found.waiting, *found.problems]
        n_bytes = _n_bytes(file for _, files in found.runs for file in files.files)
        with progress(n_bytes >= PROGRESS_FROM_BYTES) as begin:
            analyses, is_refused = self._analyse_all(found.runs, unreadable, n_bytes, begin)
        for line in unreadable:
            complain(line)
        return analyses, unreadable, is_refused or self.has_unreadable_path(analyses)

    def write_tags(self, path: Path) -> Path:
        """Write the tags of the first readable run to a file for --tags, and return the path of the file."""
        content = self._tags_to_start_from()
        if content is None:
            raise ValueError(
                f"--write-tags {path}: the file was not written, because no run could be read from any PATH"
            )
        path.write_text(visible(content), encoding="utf-8")
        return path

    def _tags_to_start_from(self) -> str | None:
        for name, files in self.find().runs:
            with suppress(UnreadableRunError, OSError):
                return mapping_to_start_from(self._read(files, lambda _: None)[0], name)
        return None

    def has_unreadable_path(self, analyses: Sequence[Analysis]) -> bool:
        """Return whether one of the PATH arguments holds no run that could be judged."""
        judged = {analysis.data.path.resolve() for analysis in analyses}
        return any(judged.isdisjoint(self._found_below.get(path, ())) for path in self.paths)

    def find(self) -> FoundRuns:
        """Find the runs below all requested paths; return each run once, even if two of the paths contain it."""
        # Runs are identified by their resolved path, so a run below two of the paths, or behind a link, is judged once.
        found: dict[Path, tuple[str, RunFiles]] = {}
        waiting: list[str] = []
        errors: list[OSError] = []
        for path in self.paths:
            try:
                runs = find_runs(path, errors)
            except UnreadableRunError as error:
                waiting.append(one_line(error))
                continue
            except OSError as error:
                errors.append(error)
                continue
            for files in runs:
                real = files.path.resolve()
                self._found_below.setdefault(path, set()).add(real)
                found.setdefault(real, (_name(path, files, n_runs=len(runs)), files))
        # Two runs with the same name are shown by their whole paths.
        names = [name for name, _ in found.values()]
        named = [(name if names.count(name) == 1 else str(files.path), files) for name, files in found.values()]
        # Two of the paths may contain the same folder that cannot be searched.
        problems = list(dict.fromkeys(one_line(error) for error in errors))
        return FoundRuns(named, waiting, problems)

    def ending(self, files: RunFiles) -> Ending:
        """Return how the run ended according to its run.json."""
        manifest, _ = find_manifest(files.path)
        if manifest is None:
            return ONGOING
        return Ending(manifest.how_it_ended, is_over=manifest.finished is not None or manifest.end == "stopped")

    def analyse(self, name: str, files: RunFiles, data: RunData, *, is_one_of_few: bool = True) -> Analysis:
        """Judge a run by its event files and the files in their folder: run.json and rl-zoo's settings.

        :param is_one_of_few: whether to compute the verdicts at earlier steps too, which takes longer
        """
        manifest, note = find_manifest(files.path)
        if self.until is not None:
            whole, data = data, data.until(self.until)
            # With --until, the report must not show how the run ended.
            if manifest is not None and data is not whole:
                manifest = replace(manifest, finished=None, end=None, ended=None, end_reason=None)
        zoo_folder, zoo_note = find_zoo_folder(files.path)
        settings, settings_notes = run_settings(self.hyperparams, manifest, zoo_folder)
        notes = [*filter(None, (_end_note(manifest), note, zoo_note)), *settings_notes, *files.notes]
        if self.hyperparams is not None:
            notes += [*misspelled(self.hyperparams), *implausible(self.hyperparams)]

        def verdict_at(part: RunData) -> Verdict:
            series = with_our_names(part, self.tag_mapping).series
            return verdict_on(series, self.criteria, settings, self.require_evidence)

        named = with_our_names(data, self.tag_mapping)
        return analyse(
            named,
            self.criteria,
            name=name,
            manifest=manifest,
            notes=notes,
            settings=settings,
            require_evidence=self.require_evidence,
            until=self.until,
            over_time=verdict_over_time(data, verdict_at) if is_one_of_few else None,
            resumable=find_resumable(files.path),
        )

    def publish(
        self, analyses: Sequence[Analysis], unreadable: Sequence[str], begin: BeginPart = no_progress
    ) -> Sequence[Path]:
        """Write the reports and return their paths."""
        advance = begin("Writing reports", len(self.formats))
        contents: dict[str, str] = {}
        for form in self.formats:
            contents |= _rendered(form, analyses, unreadable, self.plotlyjs)
            advance(1)
        return write_reports(output_folders(self.output, self.paths), contents)

    def _analyse_all(
        self, runs: Sequence[tuple[str, RunFiles]], unreadable: list[str], n_bytes: int, begin: BeginPart
    ) -> tuple[list[Analysis], bool]:
        """Judge all runs; return the analyses, and whether a run could be read but not judged."""
        analyses: list[Analysis] = []
        is_refused = False
        read: Sequence[RunData]
        on_bytes, on_run = begin("Reading logs", n_bytes), begin("Judging", len(runs))
        for name, files in runs:
            try:
                read = self._read(files, on_bytes)
            except (UnreadableRunError, OSError) as error:
                unreadable.append(one_line(error))
                read = ()
            is_one_of_few = max(len(runs), len(read)) <= MAX_SUMMARIES
            for data in read:
                if self.until is not None and data.until(self.until).n_points == 0:
                    unreadable.append(_begins_later(data, self.until))
                    continue
                try:
                    analyses.append(self.analyse(run_name(name, data), files, data, is_one_of_few=is_one_of_few))
                except (UnreadableRunError, OSError) as error:
                    # The run itself can be read, but a file that the user gave for it, such as the file of --tags, does
                    # not fit.
                    unreadable.append(one_line(error))
                    is_refused = True
            # A run that could not be read is counted too; otherwise the bar would never reach its end.
            on_run(1)
        return analyses, is_refused

    def _read(self, files: RunFiles, on_bytes: OnBytes) -> Sequence[RunData]:
        """Read the files of a folder, and return every run that they hold."""
        # A folder with a run.json holds one run: if steps seem to start again, the run was resumed from a very early
        # checkpoint.
        if find_manifest(files.path)[0] is not None:
            return (read_run(files.path, files.files, on_bytes),)
        return read_runs(files.path, files.files, on_bytes)


def _n_bytes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.exists())


def _end_note(manifest: RunManifest | None) -> str | None:
    """Return a note on a run that ended early; None for a run that finished or has not ended."""
    if manifest is None or manifest.end in {None, "finished"}:
        return None
    return f"the run was not trained to its end: {manifest.how_it_ended}"


def _begins_later(data: RunData, until: int) -> str:
    first, _ = data.span
    return f"{data.path}: --until {until}: nothing was logged up to this step, the first point is at step {first}"


def run_name(name: str, data: RunData) -> str:
    """Return the name of a run, with its number if its folder holds several runs."""
    if data.n_runs == 1:
        return name
    return f"{name} (run {data.number} of {data.n_runs})"


def _name(path: Path, files: RunFiles, *, n_runs: int) -> str:
    own = path.resolve().name or str(path)
    if n_runs == 1 or files.path == path:
        return own
    return f"{own}/{files.path.relative_to(path)}"


def _rendered(form: str, analyses: Sequence[Analysis], unreadable: Sequence[str], plotlyjs: str) -> dict[str, str]:
    """Return the report files of a format, as a mapping from file name to content."""
    if form == "csv":
        return {"report.csv": report_csv(analyses), "series.csv": series_csv(analyses)}
    if form == "html" and plotlyjs == "directory":
        from plotly.offline import get_plotlyjs

        from sb3_visual_td3.report.render_html import PLOTLY_FILE, render_html

        return {"report.html": render_html(analyses, unreadable, plotly_beside=True), PLOTLY_FILE: get_plotlyjs()}
    return {f"report.{form}": _renderer(form)(analyses, unreadable)}


def _renderer(form: str) -> Callable[[Sequence[Analysis], Sequence[str]], str]:
    """Return the renderer of a format; import Plotly and jinja2 only for HTML, because their import takes a second."""
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
    until = until_line(analysis)
    if until is not None:
        lines.append(f"  {until}")
    lines.append(f"  {answers_line(analysis)}")
    why = reasons(analysis)
    lines += [f"  {r.status.value}: {r.title}. {reason(r)}" for r in why[:MAX_REASONS]]
    if len(why) > MAX_REASONS:
        lines.append(f"  and {len(why) - MAX_REASONS} more")
    lines += [f"  Near a limit: {near}" for near in near_misses(analysis)]
    lines += [f"  Found, but does not block: {found}" for found in findings_beside_go(analysis)]
    if analysis.cause:
        lines.append(f"  Likely cause: {diagnosis_line(analysis.cause)}")
    step = next_step(analysis)
    lines.append(f"  Do first: {step.text}")
    for snippet in step.snippets:
        lines.append(f"    {snippet.caption}")
        lines += [f"      {line}".rstrip() for line in snippet.text.splitlines()]
    over_time = over_time_line(analysis)
    if over_time is not None:
        lines.append(f"  Over time: {over_time}")
    relax = how_to_relax(analysis)
    if relax is not None:
        lines.append(f"  {relax}")
    lines += [f"  Note: {note}" for note in analysis.notes]
    return lines


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = [part for part in chosen if part not in FORMATS]
    if wrong or not chosen:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected one or more of {', '.join(FORMATS)}, comma-separated")
    return chosen


def _step(text: str) -> int:
    try:
        # A million steps are often written as 1e6.
        step = float(text)
    except ValueError:
        step = math.nan
    if not (0 <= step < 2**53 and step.is_integer()):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a step, an integer >= 0")
    return int(step)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a number of seconds above 0")
    return seconds
