"""Record the state of a run's log files in a snapshot, and bring the files back to this state for a resumed run.

The log files of a killed run contain steps after the last snapshot. The resumed run makes these steps again, so their
entries are removed from the files.

A snapshot holds the length of each event file, and the content of each text file. The content is needed because some
text files, such as ``monitor.csv``, are overwritten if the user resumes by starting the training script again.

A run may come from another person. So nothing outside the run's own folder is truncated or removed, and links are not
followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import HumanOutputFormat, Logger, TensorBoardOutputFormat, configure

from sb3_visual_td3.runs.durable_files import copy_start, cut_own, open_own, sync_file, write_durably

EVENT_FILES = "events.out.tfevents.*"
ALERTS = "alerts.jsonl"
_TEXTS = ("*monitor.csv", "progress.csv", "progress.json", "log.txt", ALERTS)


# Recording the lengths of files, and truncating files to these lengths


def file_lengths(folder: Path, files: Iterable[Path]) -> dict[str, int]:
    """Return the lengths of files, and wait until their content is on the disk.

    :param folder: the folder that holds them
    :param files: the files, flushed by their writers; missing files and links are left out
    :return: length in bytes by name, sorted; names are relative to the folder
    :raises ValueError: if a file is outside the folder
    """
    found = {}
    for file in files:
        name = _name_of(file, folder)
        if file.is_file() and not file.is_symlink():
            sync_file(file)
            found[name] = file.stat().st_size
    return dict(sorted(found.items()))


def cut_to_lengths(folder: Path, lengths: Mapping[str, int], may_remove: Iterable[Path] = ()) -> None:
    """Truncate files to the lengths that they had earlier, which removes everything that was appended since.

    An error leaves all files unchanged.

    :param folder: the folder that holds the files
    :param lengths: the result of :func:`file_lengths`
    :param may_remove: files that are removed if they are not in ``lengths``
    :raises ValueError: if a file is missing, too short, not writable, or outside the folder
    """
    check_lengths(lengths)
    paths = {_path_of(name, folder): n_bytes for name, n_bytes in lengths.items()}
    created_since = [file for file in may_remove if _path_of(_name_of(file, folder), folder) not in paths]
    with ExitStack() as opened:
        handles = {}
        for path, n_bytes in paths.items():
            handles[path] = _open_to_cut(path, n_bytes, folder)
            opened.callback(os.close, handles[path])
        for path, n_bytes in paths.items():
            cut_own(handles[path], path, n_bytes)
    for file in created_since:
        file.unlink(missing_ok=True)


def check_lengths(lengths: Mapping[str, int]) -> None:
    """Refuse lengths that are not numbers of bytes.

    :param lengths: length in bytes by name, read from a snapshot
    :raises ValueError: if a length is not an integer >= 0
    """
    for name, n_bytes in lengths.items():
        if type(n_bytes) is not int or n_bytes < 0:
            raise ValueError(f"the snapshot gives {name!r} the length {n_bytes!r}: expected an integer >= 0, in bytes")


def why_incomplete(folder: Path, lengths: Mapping[str, int]) -> str | None:
    """Return why files cannot be truncated to the lengths that they had at a snapshot.

    :param folder: the folder that holds the files
    :param lengths: length in bytes by name
    :return: the reason for the first file that is missing or too short; None if all are complete
    """
    for name, n_bytes in lengths.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing; it had {n_bytes} bytes"
        if (n_there := path.stat().st_size) < n_bytes:
            return f"{path} has {n_there} bytes, but its recorded length is {n_bytes}: it was truncated or replaced"
    return None


def copy_up_to(source: Path, lengths: Mapping[str, int], target: Path) -> None:
    """Copy files to another folder, up to the lengths that they had earlier; the originals stay as they are.

    :param source: the folder that holds the files
    :param lengths: length in bytes by name
    :param target: a folder without files of these names
    :raises ValueError: if a file is missing or too short
    :raises OSError: if a file cannot be read or written
    """
    for name, n_bytes in lengths.items():
        copy_start(source / name, target / name, n_bytes)


def _name_of(file: Path, folder: Path) -> str:
    path = Path(os.path.abspath(file))
    if not _is_in(path, folder):
        raise ValueError(f"{file} is not a file of this run: expected a file in {os.path.abspath(folder)}")
    return path.relative_to(os.path.abspath(folder)).as_posix()


def _path_of(name: str, folder: Path) -> Path:
    pure = PurePosixPath(name)
    path = Path(os.path.abspath(folder)) / pure
    if ".." in pure.parts or "\0" in name or not path.is_relative_to(os.path.abspath(folder)):
        raise ValueError(f"{name!r} is not a file of this run: expected a file in {os.path.abspath(folder)}")
    return path


def _open_to_cut(path: Path, n_bytes: int, folder: Path) -> int:
    for parent in path.parents:
        if parent == Path(os.path.abspath(folder)):
            break
        if parent.is_symlink():
            raise ValueError(
                f"{parent} is a link, so {path.name} is outside the run's folder, and a resumed run must not truncate "
                "files there: replace the link by the folder itself"
            )
    if not path.is_file():
        raise ValueError(f"{path} is missing; it had {n_bytes} bytes: the run cannot be continued without it")
    n_there = path.stat().st_size
    if n_there < n_bytes:
        raise ValueError(
            f"{path} has {n_there} bytes, but its recorded length is {n_bytes}: it was truncated or replaced"
        )
    try:
        return open_own(path, os.O_RDWR)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}): make the file writable") from error


# The state of the log files for a snapshot


def flush(logger: Logger) -> None:
    """Write out all data that the event writers of a logger still hold in memory."""
    for writer in _event_writers(logger):
        writer.flush()


def _event_writers(logger: Logger) -> list[Any]:
    return [out.writer for out in logger.output_formats if isinstance(out, TensorBoardOutputFormat)]


def run_files_state(run_dir: Path, logger: Logger) -> dict[str, Any]:
    """Flush the run's log files and return their state for a snapshot.

    :param run_dir: folder of the run
    :param logger: logger of the model
    :return: plain data: lengths of the event files, and content of the text files
    """
    flush(logger)
    event_dir = _event_dir(logger)
    texts = {name: np.fromfile(path, np.uint8) for name, path in _texts(run_dir, logger)}
    if event_dir is None:
        return {"event_dir": None, "event_files": {}, "texts": texts}
    return {
        # Relative, so that a run whose folder is moved or copied still finds its event files.
        "event_dir": os.path.relpath(event_dir, run_dir),
        "event_files": file_lengths(event_dir, event_dir.glob(EVENT_FILES)),
        "texts": texts,
    }


def _event_dir(logger: Logger) -> Path | None:
    if logger.dir is None or not _event_writers(logger):
        return None
    return Path(logger.dir)


def _texts(run_dir: Path, logger: Logger) -> Iterator[tuple[str, Path]]:
    """Yield the text files in the run's and the logger's folder, with their path relative to the run's folder."""
    # The real paths only show whether both folders are the same. The result is computed from the given paths, because a
    # relative path from a link to a file in its target would be wrong.
    folders = {run_dir.resolve(): run_dir}
    if logger.dir:
        folders.setdefault(Path(logger.dir).resolve(), Path(logger.dir))
    for folder in folders.values():
        for pattern in _TEXTS:
            for path in sorted(folder.glob(pattern)):
                yield os.path.relpath(path, run_dir), path


# The log files of a resumed run


@dataclass(frozen=True)
class ResumedFiles:
    """Restore the log files of a run that is resumed.

    Event files inside RUN_DIR are truncated in place. Event files in another folder may belong to another run, so they
    are copied to the folder that the run logs to now.

    :ivar run_dir: folder of the run
    :ivar state: the result of :func:`run_files_state`, with its types checked
    :ivar event_dir: folder of the run's event files; None if the run has no event files, or if they are lost
    :ivar is_lenient: whether the run may continue although some of its log files are lost
    :ivar lines: messages for the user, one line each
    """

    run_dir: Path
    state: Mapping[str, Any]
    event_dir: Path | None
    is_lenient: bool
    lines: list[str]

    def continue_event_files(self, model: BaseAlgorithm) -> None:
        """Make the model log into the run's event folder instead of the new folder that SB3 has just created.

        If the user has set the logger, or if the old or the new folder is outside RUN_DIR, the new folder stays in use.

        :param model: a model whose training is being set up
        """
        new_dir = _event_dir(model.logger)
        if self.event_dir is None or new_dir is None or model._custom_logger or self._is_copied(new_dir):
            return
        if new_dir.resolve() == self.event_dir.resolve():
            return
        formats = ["tensorboard"]
        if any(isinstance(out, HumanOutputFormat) for out in model.logger.output_formats):
            formats.insert(0, "stdout")
        model.logger.close()
        for path in new_dir.glob(EVENT_FILES):
            path.unlink()
        if not any(new_dir.iterdir()):
            new_dir.rmdir()
        model._logger = configure(str(self.event_dir), formats)

    def _is_copied(self, new_dir: Path) -> bool:
        """Return True if the old or the new log folder is outside RUN_DIR; the event files are then copied."""
        assert self.event_dir is not None
        return not (_is_in(self.event_dir, self.run_dir) and _is_in(new_dir, self.run_dir))

    def cut_back(self, logger: Logger, step: int) -> bool:
        """Truncate the log files to their lengths at the snapshot, and add messages for the user to ``self.lines``.

        :param logger: logger of the model, which has not written anything yet
        :param step: environment steps of the snapshot
        :return: whether event files were copied from another folder
        :raises ValueError: if an event file is missing or too short; no file is changed then
        :raises OSError: if a file cannot be read or written
        """
        is_copied = self._cut_event_files(logger)
        for name, text in self.state["texts"].items():
            self._cut_text(name, np.asarray(text).tobytes(), step, logger)
        if ALERTS not in {PurePath(name).name for name in self.state["texts"]}:
            # All alerts in this file were added after the snapshot.
            (self.run_dir / ALERTS).unlink(missing_ok=True)
        return is_copied

    def _cut_event_files(self, logger: Logger) -> bool:
        if self.event_dir is None:
            return False
        log_dir = _event_dir(logger)
        if log_dir is not None and log_dir.resolve() != self.event_dir.resolve():
            copy_up_to(self.event_dir, self.state["event_files"], log_dir)
            self.lines.append(
                f"the event files were copied from {self.event_dir} to {log_dir}; logging continues there"
            )
            return True
        if log_dir is not None or _is_in(self.event_dir, self.run_dir):
            # The event file that this process has just opened is not in the state, but must not be removed.
            own = {Path(_path_of_writer(writer)).resolve() for writer in _event_writers(logger)}
            later = [path for path in self.event_dir.glob(EVENT_FILES) if path.resolve() not in own]
            try:
                cut_to_lengths(self.event_dir, self.state["event_files"], may_remove=later)
            except (ValueError, OSError) as error:
                if not self.is_lenient:
                    raise
                self.lines.append(f"{error}: the file stays as it is")
        return False

    def _cut_text(self, name: str, content: bytes, step: int, logger: Logger) -> None:
        """Truncate a text file to its content at the snapshot.

        If the file was overwritten since, leave it as it is, and write the content of the snapshot to a second file.
        """
        path = Path(os.path.abspath(self.run_dir / name))
        # Real paths are compared, because the path of the run or of the log may contain links. The file itself must not
        # be a link.
        path = Path(os.path.realpath(path.parent), path.name)
        try:
            folders = [self.run_dir.resolve()]
            if logger.dir:
                folders.append(Path(logger.dir).resolve())
            if PurePath(name).is_absolute() or not any(_is_in(path, folder) for folder in folders):
                raise ValueError(f"{name!r} is not a log of this run: expected a file in {self.run_dir}")
            if not any(fnmatch(path.name, pattern) for pattern in _TEXTS):
                raise ValueError(f"{name!r} is not a log of a run: expected one of {', '.join(_TEXTS)}")
            if path.is_file() and _starts_with(path, content):
                handle = open_own(path, os.O_RDWR)
                try:
                    cut_own(handle, path, len(content))
                finally:
                    os.close(handle)
                return
            # The name still matches "*monitor.csv", by which SB3's load_results() finds all parts of a run.
            kept = path.with_name(f"until_{step:09}.{path.name}")
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.unlink(missing_ok=True)
            write_durably(kept, [memoryview(content)])
        except (ValueError, OSError) as error:
            if not self.is_lenient:
                raise
            self.lines.append(f"{path.name} could not be restored to its content at the snapshot: {error}")
        else:
            self.lines.append(f"{path.name} was overwritten: its content up to step {step:,} is in {kept.name}")


def find_run_files(
    run_dir: Path, state: Any, tensorboard_log: str | None, logger_dir: str | None = None, is_lenient: bool = False
) -> ResumedFiles:
    """Find the log files of a run that will be resumed, without changing any file.

    :param run_dir: folder of the run
    :param state: the result of :func:`run_files_state`, which may be damaged
    :param tensorboard_log: log folder of the model, to which event files may have been moved
    :param logger_dir: folder of a logger that the user has given to the model
    :param is_lenient: whether the run may continue although some of its log files are lost
    :raises ValueError: if the state is malformed, or event files are missing or too short
    """
    lines: list[str] = []
    event_dir = None
    try:
        _check_state(state)
        event_dir = _find_events(run_dir, state, tensorboard_log, logger_dir)
    except ValueError as error:
        if not is_lenient:
            raise ValueError(f"{error}. Use --without-logs to continue without the lost files") from error
        lines.append(f"{error}. The run continues without the lost files")
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
    is_right = isinstance(state, Mapping) and isinstance(state.get("event_dir"), str | None)
    for part in ("event_files", "texts"):
        is_right = is_right and _is_by_name(state.get(part))
    if not is_right:
        raise ValueError(
            "the snapshot's list of log files has a format that this version cannot read: use another snapshot"
        )
    for name in state["event_files"]:
        if not fnmatch(name, EVENT_FILES) or os.sep in name:
            raise ValueError(
                f"the snapshot lists {name!r} as an event file, but this is not the name of one: use another snapshot"
            )
    check_lengths(state["event_files"])
    for name, text in state["texts"].items():
        if np.asarray(text).dtype != np.uint8 or np.asarray(text).ndim != 1 or "\0" in name:
            raise ValueError(
                f"the snapshot's copy of {name!r} is damaged: expected a file's bytes (a one-dimensional uint8 array) "
                "under a valid name; use another snapshot"
            )


def _is_by_name(value: Any) -> bool:
    """Return whether a value is a mapping whose keys are names of files."""
    return isinstance(value, Mapping) and all(type(key) is str for key in value)


def _find_events(
    run_dir: Path, state: Mapping[str, Any], tensorboard_log: str | None, logger_dir: str | None
) -> Path | None:
    """Find the current folder of a snapshot's event files; return None if the snapshot names no folder.

    The user may have moved the folder, so the folders of ``--tensorboard-log`` and of the logger are tried too.
    """
    if state["event_dir"] is None:
        return None
    noted = PurePath(state["event_dir"])
    if noted.is_absolute() or "\0" in state["event_dir"]:
        raise ValueError(
            f"according to the snapshot, event files are in {noted}: expected a path relative to "
            f"{run_dir}; use another snapshot"
        )
    places = [Path(os.path.abspath(run_dir / noted))]
    if tensorboard_log:
        places += [Path(os.path.abspath(tensorboard_log)) / noted.name, Path(os.path.abspath(tensorboard_log))]
    if logger_dir:
        places.append(Path(os.path.abspath(logger_dir)))
    reasons = [why_incomplete(place, state["event_files"]) for place in places]
    for place, reason in zip(places, reasons, strict=True):
        if reason is None:
            return place
    raise ValueError(f"{reasons[0]}. If the event files were moved, name their folder with --tensorboard-log DIR")


def _is_in(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _starts_with(path: Path, content: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(content)) == content


def _path_of_writer(writer: Any) -> str:
    """Return the path of the file that a SummaryWriter writes to."""
    return str(writer.file_writer.event_writer._file_name)
