"""Implement ``--watch``: follow runs while they train, and judge a run again when it has logged new points."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from sb3_visual_td3.common.errors import is_input_error
from sb3_visual_td3.diagnosis.verdict import Verdict, worst_verdict
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.console import complain, one_line, print_lines
from sb3_visual_td3.report.discovery import RunFiles
from sb3_visual_td3.report.document import visible_line
from sb3_visual_td3.report.event_reader import RunData, RunReader, UnreadableRunError
from sb3_visual_td3.report.wording import reason, reasons

DEFAULT_INTERVAL_S = 10.0
NOTHING_YET = "no verdict"
ON_CHANGE_TIMEOUT_S = 60.0
"""A command of --on-change is ended after this many seconds, because the watch waits for it."""


class FoundRuns(NamedTuple):
    """Hold the runs below the requested paths.

    :ivar runs: name and files of each run
    :ivar waiting: one line for each path without an event file yet
    :ivar problems: one line for each path, and for each folder below a path, that cannot be read
    """

    runs: Sequence[tuple[str, RunFiles]]
    waiting: Sequence[str]
    problems: Sequence[str]


class Ending(NamedTuple):
    """Describe the end of a run.

    :ivar words: description such as ``finished at ...``; None while the run trains, or if it was killed
    :ivar is_over: whether no further points are expected; False for a crashed or interrupted run, which can be resumed
    """

    words: str | None
    is_over: bool


ONGOING = Ending(None, is_over=False)


class Job(Protocol):
    """Define what :class:`Watch` needs from the report command: find runs, judge them and write the reports."""

    def find(self) -> FoundRuns:
        """Find the runs below the requested paths."""

    def ending(self, files: RunFiles) -> Ending:
        """Return how the run ended according to its run.json."""

    def analyse(self, name: str, files: RunFiles, data: RunData) -> Analysis:
        """Judge a run."""

    def publish(self, analyses: Sequence[Analysis], unreadable: Sequence[str]) -> Sequence[Path]:
        """Write the reports and return their paths."""


@dataclass
class _Watched:
    """Hold the state of one watched run at the last check.

    :param files: the run's files at the last check
    :param analysis: result of the last check; None if the run's files hold no point yet, or if it could not be judged
    :param problem: why the points that were read could not be judged; None if they could
    :param is_refused: whether the points were read, but could not be judged
    :param said: the last verdict and cause that were printed
    :param notes: remarks on how the files of the folder were assigned to runs
    """

    reader: RunReader
    files: Sequence[Path] = ()
    analysis: Analysis | None = None
    problem: str | None = None
    is_refused: bool = False
    said: str = NOTHING_YET
    ending: Ending = ONGOING
    notes: tuple[str, ...] = ()


class Watch:
    """Watch several runs; :meth:`look` makes one check of all of them, and never waits.

    :param job: the work to do at each check
    :param quiet_s: a finished run is no longer checked once its newest file is at least this many seconds old, or once
        a check has found nothing new
    :param on_change: program and arguments to run when a run gets another verdict, or when the likely cause of the
        verdict changes
    """

    def __init__(self, job: Job, quiet_s: float, on_change: Sequence[str] = ()) -> None:
        self._job = job
        self._on_change = on_change
        self._quiet_s = quiet_s
        self._watched: dict[Path, _Watched] = {}
        self._complaints: set[str] = set()
        self.written: Sequence[Path] = ()
        self._must_write = False
        self.is_over = False

    @property
    def analyses(self) -> list[Analysis]:
        """Return the runs that could be judged at the last check."""
        return [run.analysis for run in self._watched.values() if run.analysis is not None]

    @property
    def is_refused(self) -> bool:
        """Return whether a run could be read but not judged."""
        return any(run.is_refused for run in self._watched.values())

    def look(self) -> None:
        """Read new points, judge the runs, write the reports, and print every change."""
        found = self._job.find()
        problems = list(found.problems)
        places = {files.path.resolve(): (name, files) for name, files in found.runs}
        is_changed = self._drop_vanished_runs({place: files for place, (_, files) in places.items()})
        are_finished = bool(places) and not found.waiting
        for place, (name, files) in places.items():
            run = self._watched.setdefault(place, _Watched(RunReader(files.path)))
            run.files = files.files
            # Read run.json before the event files. In the other order, a run could log points and end in between, and
            # these points would be missed.
            ending = self._job.ending(files)
            try:
                has_new = self._read(run, name, files, ending)
            except BrokenPipeError:  # A line could not be printed; the files of the run are not the cause.
                raise
            except (ValueError, OSError) as error:
                if not is_input_error(error):
                    raise
                problems.append(one_line(error))
                are_finished = False
                continue
            if run.problem is not None:
                problems.append(run.problem)
            if run.analysis is not None and run.analysis.name != name:  # a second run has appeared beside this one
                run.analysis = replace(run.analysis, name=name)
                is_changed = True
            is_changed |= has_new
            are_finished &= ending.is_over and (not has_new or self._is_quiet(files))
        lines = [*(f"waiting: {line}" for line in found.waiting), *problems]
        # Writing the reports only on a change keeps their modification times meaningful for other programs.
        self._must_write |= is_changed
        if self._must_write and self.analyses:
            try:
                self.written = self._job.publish(self.analyses, problems)
                self._must_write = False
            except OSError as error:
                # An error before any report was written, such as a wrong --output, ends the watch. A later error may be
                # temporary, such as a full disk, so the next check tries again.
                if not self.written or are_finished:
                    raise
                lines.append(f"the reports could not be written: {one_line(error)}")
        self._complain_once(lines)
        self.is_over = are_finished

    def _read(self, run: _Watched, name: str, files: RunFiles, ending: Ending) -> bool:
        has_new = run.reader.read_new(files.files)
        # run.json and the runs beside this one may change without a new point, and are part of the report.
        if not has_new and ending == run.ending and files.notes == run.notes:
            return False
        run.notes = files.notes
        if ending != run.ending:
            _say_ending(name, ending)
        run.ending = ending
        # The problem is kept until the run has new points, because every report and the exit code show it.
        run.analysis, run.problem, run.is_refused = None, None, False
        try:
            data = run.reader.data(is_growing=not ending.is_over)
        except UnreadableRunError as error:
            # A run that has just started has no points yet, which is a problem only once it is over.
            if ending.is_over:
                run.problem = one_line(error)
        else:
            try:
                run.analysis = self._job.analyse(name, files, data)
            except (UnreadableRunError, OSError) as error:
                run.problem, run.is_refused = one_line(error), True
        self._say_change(run, name)
        return True

    def _say_change(self, run: _Watched, name: str) -> None:
        new = NOTHING_YET if run.analysis is None else _state(run.analysis)
        if new != run.said:
            print_lines([_change_line(name, run, new)])
            if self._on_change:
                run_on_change(self._on_change, change_variables(name, run.reader.path, run.analysis, run.said))
            run.said = new

    def _drop_vanished_runs(self, found: Mapping[Path, RunFiles]) -> bool:
        gone = self._watched.keys() - found.keys()
        for place in sorted(gone):
            run = self._watched.pop(place)
            # If seed2.csv appears beside seed1.csv, the run of the folder becomes the run of seed1.csv. The verdict of
            # this run has been printed already.
            successors = [successor for successor, files in found.items() if not set(run.files).isdisjoint(files.files)]
            for successor in successors:
                self._watched.setdefault(successor, _Watched(RunReader(found[successor].path), said=run.said))
            if run.said != NOTHING_YET and not successors:
                print_lines([f"{_now()}  {place.name}: {run.said} -> {NOTHING_YET}: its event files are gone"])
        return bool(gone)

    def _complain_once(self, lines: Sequence[str]) -> None:
        for line in lines:
            if line not in self._complaints:
                complain(line)
        # Only problems of the last check are remembered: a problem that disappears and comes back is printed again.
        self._complaints = set(lines)

    def _is_quiet(self, files: RunFiles) -> bool:
        return time.time() - max(file.stat().st_mtime for file in files.files) >= self._quiet_s

    def in_one_line(self) -> str:
        """Return the state of the runs as a status line."""
        analyses = self.analyses
        if not analyses:
            return "Waiting for a first point"
        steps = max((analysis.series.n_steps or 0 for analysis in analyses), default=0)
        runs = f"{len(analyses)} runs" if len(analyses) > 1 else analyses[0].name
        return f"Watching {runs} · step {steps:,} · {worst_verdict(a.verdict for a in analyses).value} · Ctrl-C ends"


def watch(
    job: Job,
    interval_s: float,
    status: Callable[[], AbstractContextManager[Callable[[str], None]]],
    wait: Callable[[float], None] = time.sleep,
    on_change: Sequence[str] = (),
) -> Watch:
    """Check the runs repeatedly, until every run is finished or stopped, or the user presses Ctrl-C.

    :param job: the work to do at each check
    :param interval_s: seconds between two checks; more if a check takes longer
    :param status: function that opens a status line
    :param wait: function that waits for a number of seconds
    :param on_change: program and arguments to run when a run gets another verdict, or when the likely cause of the
        verdict changes
    :return: the runs in the state of the last check
    """
    watched = Watch(job, interval_s, on_change)
    try:
        with status() as show:
            while True:
                began = time.monotonic()
                watched.look()
                if watched.is_over:
                    return watched
                show(watched.in_one_line())
                # A slow check of many runs must leave time on the processor for training runs on the same machine.
                wait(max(interval_s, time.monotonic() - began))
    except (KeyboardInterrupt, BrokenPipeError):  # a broken pipe: the program that reads stdout has ended
        return watched


def split_command(text: str) -> tuple[str, ...]:
    """Split the command of --on-change as a shell does, without running a shell.

    :param text: the command, such as ``"notify-send 'the verdict has changed'"``
    :raises ValueError: if a quotation mark is missing, or the text is empty
    """
    try:
        parts = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"--on-change {text!r}: expected a program and its arguments ({error})") from error
    if not parts:
        raise ValueError(f"--on-change {text!r}: expected a program and its arguments")
    return parts


def change_variables(name: str, path: Path, analysis: Analysis | None, before: str) -> dict[str, str]:
    """Return the environment variables in which the command of --on-change finds what has changed.

    :param name: name of the run
    :param path: folder or file of the run
    :param analysis: the run now; None if it no longer has any point
    :param before: verdict and cause before the change
    """
    verdict, cause, step = NOTHING_YET, "", ""
    if analysis is not None:
        verdict = analysis.verdict.value
        cause = analysis.cause.id if analysis.cause else ""
        step = "" if analysis.series.n_steps is None else str(analysis.series.n_steps)
    variables = {
        "VISUAL_TD3_RUN": name,
        "VISUAL_TD3_PATH": str(path),
        "VISUAL_TD3_VERDICT": verdict,
        "VISUAL_TD3_CAUSE": cause,
        "VISUAL_TD3_STEP": step,
        "VISUAL_TD3_BEFORE": before,
    }
    # Names of folders may hold control characters, and a script may print them to a terminal.
    return {key: visible_line(value, 4000) for key, value in variables.items()}


def run_on_change(command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Run the command of --on-change and wait for its end; a failure is reported and never ends the watch.

    Text from a log is passed only in environment variables, so it can never become a program or an argument.

    :param command: program and arguments
    :param variables: additional environment variables
    """
    try:
        process = subprocess.Popen(
            list(command), env={**os.environ, **variables}, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        complain(f"--on-change: {one_line(error)}")
        return
    try:
        code = process.wait(ON_CHANGE_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        _end(process)
        complain(f"--on-change: {one_line(error)}")
        return
    except KeyboardInterrupt:
        _end(process)
        raise
    if code:
        complain(f"--on-change: {command[0]} ended with exit code {code}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program together with the programs that it started, such as the commands of a shell script."""
    # With start_new_session=True, the program leads a process group, whose id equals the program's process id.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _say_ending(name: str, ending: Ending) -> None:
    if ending.words is None:
        print_lines([f"{_now()}  {name}: the run was resumed"])
    elif ending.is_over:
        print_lines([f"{_now()}  {name}: {ending.words}"])
    else:
        print_lines([f"{_now()}  {name}: {ending.words}. It can be resumed, so the watch continues; Ctrl-C ends it"])


def _state(analysis: Analysis) -> str:
    return analysis.verdict.value + (f" ({analysis.cause.id})" if analysis.cause else "")


def _change_line(name: str, run: _Watched, new: str) -> str:
    analysis = run.analysis
    if analysis is None:
        why = run.problem or "its event files no longer hold any point"
        return f"{_now()}  {name}: {run.said} -> {new}: {why}"
    n_steps = analysis.series.n_steps
    at = "" if n_steps is None else f"  step {n_steps:,}"
    return f"{_now()}  {name}{at}: {run.said} -> {new}: {_why(analysis)}"


def _why(analysis: Analysis) -> str:
    if analysis.verdict is Verdict.GO:
        return "every blocking criterion holds so far"
    first, *others = reasons(analysis) or [None]
    if first is None:
        return "no blocking criterion applies"
    more = f" (and {len(others)} more)" if others else ""
    return f"{first.title}. {reason(first)}{more}"


def _now() -> str:
    return time.strftime("%H:%M:%S")
