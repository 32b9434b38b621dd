"""The files that a run appends to while it trains: what a snapshot notes of them, and how they are cut back to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import HumanOutputFormat, Logger, TensorBoardOutputFormat, configure

from sb3_visual_td3.runs.durable_files import cut_own, open_own, write_durably
from sb3_visual_td3.runs.growing_files import check_lengths, copy_back, cut_back, lengths, why_not_whole

EVENT_FILES = "events.out.tfevents.*"
ALERTS = "alerts.jsonl"
_TEXTS = ("*monitor.csv", "progress.csv", "progress.json", "log.txt", ALERTS)


def flush(logger: Logger) -> None:
    """Write out what is waiting to be written to event files."""
    for writer in _event_writers(logger):
        writer.flush()


def _event_writers(logger: Logger) -> list[Any]:
    return [out.writer for out in logger.output_formats if isinstance(out, TensorBoardOutputFormat)]


def run_files_state(run_dir: Path, logger: Logger) -> dict[str, Any]:
    """Note how long the run's files are, once they are flushed.

    Event files are long and are noted by their length. Of text files, which are short, the text is kept: a script that
    is called again overwrites SB3's Monitor files and CSV logs before training starts.

    :param run_dir: the run's folder
    :param logger: the model's
    :return: plain data
    """
    flush(logger)
    folder = _event_dir(logger)
    return {
        "event_dir": None if folder is None else os.path.relpath(folder, run_dir),
        "event_files": {} if folder is None else lengths(folder, folder.glob(EVENT_FILES)),
        "texts": {name: np.fromfile(path, np.uint8) for name, path in _texts(run_dir, logger)},
    }


def _event_dir(logger: Logger) -> Path | None:
    return Path(logger.dir) if logger.dir is not None and _event_writers(logger) else None


def _texts(run_dir: Path, logger: Logger) -> Iterator[tuple[str, Path]]:
    """:return: text files of the run by their path below it; beside it, those of the logger's folder"""
    folders = dict.fromkeys([run_dir.resolve(), *([Path(logger.dir).resolve()] if logger.dir else [])])
    for folder in folders:
        for pattern in _TEXTS:
            for path in sorted(folder.glob(pattern)):
                yield os.path.relpath(path, run_dir), path


@dataclass(frozen=True)
class ResumedFiles:
    """The files that a run had written when its snapshot was taken, found again.

    Event files inside RUN_DIR are cut back where they are. Those in another folder are copied to where the run logs
    now, and stay as they are: another run may have gone on with them, such as the one that RUN_DIR is a copy of.

    :ivar run_dir: the run's folder
    :ivar state: as noted by :func:`run_files_state`, its types checked
    :ivar event_dir: where the event files are that the snapshot has noted; None where there are none, or they are lost
    :ivar is_lenient: whether the run goes on without what is lost
    """

    run_dir: Path
    state: Mapping[str, Any]
    event_dir: Path | None
    is_lenient: bool
    lines: list[str]

    def continue_event_files(self, model: BaseAlgorithm) -> None:
        """Have the model log into the folder that the run logged into, where SB3 has just begun another.

        A logger of the user's own stays, and so does a folder where event files have to be copied to.

        :param model: a model whose training is being set up
        """
        begun = _event_dir(model.logger)
        if self.event_dir is None or begun is None or model._custom_logger or self._is_copied(begun):
            return
        if begun.resolve() == self.event_dir.resolve():
            return
        prints = any(isinstance(out, HumanOutputFormat) for out in model.logger.output_formats)
        model.logger.close()
        for path in begun.glob(EVENT_FILES):
            path.unlink()
        if not any(begun.iterdir()):
            begun.rmdir()
        model._logger = configure(str(self.event_dir), [*(["stdout"] if prints else []), "tensorboard"])

    def _is_copied(self, begun: Path) -> bool:
        """:return: whether event files are copied to the folder that has been begun, and not cut where they are"""
        assert self.event_dir is not None
        return not (_is_in(self.event_dir, self.run_dir) and _is_in(begun, self.run_dir))

    def cut_back(self, logger: Logger, step: int) -> bool:
        """Bring the run's files back to what they were when the snapshot was taken; ``lines`` says what is to be told.

        :param logger: the model's, which is about to write more
        :param step: of the snapshot
        :return: whether event files have been copied from elsewhere
        :raises ValueError: if event files are not what was noted; nothing is cut then
        :raises OSError: if a file cannot be read or written
        """
        begun, is_copied = _event_dir(logger), False
        lengths_then = self.state["event_files"]
        if self.event_dir is not None:
            is_elsewhere = begun is not None and begun.resolve() != self.event_dir.resolve()
            if begun is not None and is_elsewhere:
                copy_back(self.event_dir, lengths_then, begun)
                is_copied = True
                self.lines.append(f"event files are copied from {self.event_dir} to {begun}, and go on there")
            elif begun is not None or _is_in(self.event_dir, self.run_dir):
                own = {Path(_path_of(writer)).resolve() for writer in _event_writers(logger)}
                later = [path for path in self.event_dir.glob(EVENT_FILES) if path.resolve() not in own]
                try:
                    cut_back(self.event_dir, lengths_then, may_remove=later)
                except (ValueError, OSError) as error:
                    if not self.is_lenient:
                        raise
                    self.lines.append(f"{error}: it stays as it is")
        for name, text in self.state["texts"].items():
            self._cut_text(name, np.asarray(text).tobytes(), step, logger)
        if ALERTS not in self.state["texts"]:
            (self.run_dir / ALERTS).unlink(missing_ok=True)  # all of it came after the snapshot
        return is_copied

    def _cut_text(self, name: str, content: bytes, step: int, logger: Logger) -> None:
        """Cut a text file; where it has been begun again, put what the snapshot kept beside it."""
        path = Path(os.path.abspath(self.run_dir / name))
        try:
            folders = [self.run_dir, *([Path(logger.dir)] if logger.dir else [])]
            if PurePath(name).is_absolute() or not any(_is_in(path, folder) for folder in folders):
                raise ValueError(f"{name!r} is not in {self.run_dir}: it is no log of this run")
            if not any(fnmatch(path.name, pattern) for pattern in _TEXTS):
                raise ValueError(f"{name!r} is no log of a run: expected one of {', '.join(_TEXTS)}")
            if path.is_file() and _starts_with(path, content):
                handle = open_own(path, os.O_RDWR)
                try:
                    cut_own(handle, path, len(content))
                finally:
                    os.close(handle)
                return
            # SB3's load_results() reads every "*monitor.csv" of a folder.
            kept = path.with_name(f"until_{step:09}.{path.name}")
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.unlink(missing_ok=True)
            write_durably(kept, [memoryview(content)])
        except (ValueError, OSError) as error:
            if not self.is_lenient:
                raise
            self.lines.append(f"{path.name} is left as it is: {error}")
        else:
            self.lines.append(f"{path.name} was begun again: what it held up to step {step:,} is in {kept.name}")


def find_run_files(
    run_dir: Path, state: Any, tensorboard_log: str | None, logger_dir: str | None = None, is_lenient: bool = False
) -> ResumedFiles:
    """Find the files of a run that is to be resumed, before anything is begun.

    :param run_dir: the run's folder
    :param state: as noted by :func:`run_files_state`, or anything else: it is read from a file
    :param tensorboard_log: of the model: event files are looked for there as well, for they may have been moved
    :param logger_dir: of a logger that the user has given the model
    :param is_lenient: whether the run may go on without what is lost
    :return: what has been found
    :raises ValueError: if the state is not what was noted, or event files are missing or cut
    """
    lines: list[str] = []
    event_dir = None
    try:
        _check_state(state)
        event_dir = _find_events(run_dir, state, tensorboard_log, logger_dir)
    except ValueError as error:
        if not is_lenient:
            raise ValueError(f"{error}. --without-logs goes on without what is lost") from error
        lines.append(f"{error}: the run goes on without")
        if not _is_state(state):
            state = {"event_dir": None, "event_files": {}, "texts": {}}
    return ResumedFiles(run_dir, state, event_dir, is_lenient, lines)


def _is_state(state: Any) -> bool:
    try:
        _check_state(state)
    except ValueError:
        return False
    return True


def _check_state(state: Any) -> None:
    is_right = isinstance(state, Mapping) and all(
        isinstance(state.get(name), Mapping) and all(type(key) is str for key in state[name])
        for name in ("event_files", "texts")
    )
    if not is_right or not isinstance(state.get("event_dir"), str | None):
        raise ValueError("what the snapshot says about log files is not what this version wrote")
    for name in state["event_files"]:
        if not fnmatch(name, EVENT_FILES) or os.sep in name:
            raise ValueError(f"{name!r} is not the name of an event file")
    check_lengths(state["event_files"])
    for name, text in state["texts"].items():
        if np.asarray(text).dtype != np.uint8 or np.asarray(text).ndim != 1 or "\0" in name:
            raise ValueError(f"what the snapshot keeps of {name!r} is not the text of a file")


def _find_events(run_dir: Path, state: Mapping[str, Any], tensorboard_log: str | None, own: str | None) -> Path | None:
    if state["event_dir"] is None:
        return None
    noted = PurePath(state["event_dir"])
    if noted.is_absolute() or "\0" in state["event_dir"]:
        raise ValueError(f"the snapshot says that event files are in {noted}: expected a path relative to {run_dir}")
    places = [Path(os.path.abspath(run_dir / noted))]
    for folder in [tensorboard_log] if tensorboard_log else []:
        places += [Path(os.path.abspath(folder)) / noted.name, Path(os.path.abspath(folder))]
    places += [Path(os.path.abspath(own))] if own else []
    reasons = [why_not_whole(place, state["event_files"]) for place in places]
    for place, reason in zip(places, reasons, strict=True):
        if reason is None:
            return place
    raise ValueError(f"{reasons[0]}. If event files have been moved, --tensorboard-log DIR says where they are")


def _is_in(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _starts_with(path: Path, content: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(content)) == content


def _path_of(writer: Any) -> str:
    """:return: the file that a SummaryWriter writes to"""
    return str(writer.file_writer.event_writer._file_name)
