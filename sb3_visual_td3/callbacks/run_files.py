"""The files that a run appends to while it trains: what a snapshot notes of them, and how they are cut back to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import HumanOutputFormat, Logger, TensorBoardOutputFormat, configure

from sb3_visual_td3.runs.growing_files import cut_back, lengths

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


def continue_event_files(model: BaseAlgorithm, run_dir: Path, state: Mapping[str, Any]) -> None:
    """Have the model log into the folder that the run logged into, where Stable-Baselines3 has just begun another.

    A logger of the user's own stays.

    :param model: a model whose training is being set up
    :param run_dir: the run's folder
    :param state: as noted
    """
    begun = _event_dir(model.logger)
    if state["event_dir"] is None or begun is None or model._custom_logger:
        return
    folder = run_dir / state["event_dir"]
    if begun.resolve() == folder.resolve():
        return
    prints = any(isinstance(out, HumanOutputFormat) for out in model.logger.output_formats)
    model.logger.close()
    for path in begun.glob(EVENT_FILES):
        path.unlink()
    if not any(begun.iterdir()):
        begun.rmdir()
    model._logger = configure(str(folder), [*(["stdout"] if prints else []), "tensorboard"])


def cut_back_to(run_dir: Path, logger: Logger, state: Mapping[str, Any], step: int) -> list[str]:
    """Cut the run's files back to what they were when the snapshot was taken.

    :param run_dir: the run's folder
    :param logger: the model's, which is about to write more
    :param state: as noted
    :param step: of the snapshot
    :return: what is to be told
    :raises ValueError: if event files are not what was noted; nothing is cut then
    """
    if state["event_dir"] is not None:
        folder = run_dir / state["event_dir"]
        own = {Path(_path_of(writer)).resolve() for writer in _event_writers(logger)}
        later = [path for path in folder.glob(EVENT_FILES) if path.resolve() not in own]
        cut_back(folder, state["event_files"], may_remove=later)
    told = [line for name, text in state["texts"].items() if (line := _cut_text(run_dir, name, np.asarray(text), step))]
    if os.path.relpath(run_dir / ALERTS, run_dir) not in state["texts"]:
        (run_dir / ALERTS).unlink(missing_ok=True)  # all of it came after the snapshot
    return told


def _path_of(writer: Any) -> str:
    """:return: the file that a SummaryWriter writes to"""
    return str(writer.file_writer.event_writer._file_name)


def _cut_text(run_dir: Path, name: str, text: NDArray[np.uint8], step: int) -> str | None:
    """Cut a text file; where it has been begun anew, put what the snapshot kept beside it."""
    if not any(fnmatch(Path(name).name, pattern) for pattern in _TEXTS):
        raise ValueError(f"{name!r} is no log of a run: expected one of {', '.join(_TEXTS)}")
    path, content = run_dir / name, text.tobytes()
    if path.is_file():
        with path.open("rb") as file:
            is_continued = file.read(len(content)) == content
        if is_continued:
            os.truncate(path, len(content))
            return None
    # SB3's load_results() reads every "*monitor.csv" of a folder.
    kept = path.with_name(f"until_{step:09}.{path.name}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(content)
    return f"{path.name} was begun anew: what it held up to step {step:,} is in {kept.name}"
