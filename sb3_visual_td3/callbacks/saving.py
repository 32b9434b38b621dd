"""What callbacks save while a training runs: whole files, and a full disk does not end the training.

Stable-Baselines3 writes models, evaluations and checkpoints to their place and raises where the disk is full. That
ends a training of days, and leaves a cut file where a good one was. Here each file is written beside its place and
renamed; what cannot be written is told once, and the old file stays.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_visual_td3.runs.durable_files import atomic_write

_MAX_WAITING_BYTES = 64 << 20


class Saver:
    """Writes whole files, and tells once of each file that cannot be written."""

    def __init__(self) -> None:
        self._failed: set[Path] = set()

    def save(self, path: str | os.PathLike[str], write: Callable[[Path], object]) -> bool:
        """Write a file beside its place and put it there.

        :param path: of the file, with its ending
        :param write: writes to the path that it is called with
        :return: whether the file is there; where it is not, the old one stays as it was
        """
        place = Path(path)
        try:
            with atomic_write(place) as begun:
                write(begun)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError where the disk is full
            if place not in self._failed:
                print(f"{place} could not be written: {error}; training goes on", file=sys.stderr)
            self._failed.add(place)
            return False
        self._failed.discard(place)
        return True


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write what ``np.savez`` writes."""
    with path.open("wb") as file:
        np.savez(file, **arrays)


class AtomicCheckpointCallback(CheckpointCallback):
    """Stable-Baselines3's CheckpointCallback, whose files are whole; a full disk does not end the training."""

    state_class: ClassVar[type] = CheckpointCallback
    """The class by whose name a snapshot keeps what it has counted."""
    _saver: Saver | None = None

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq != 0:
            return True
        saver = self._saver = self._saver or Saver()
        saver.save(self._checkpoint_path(extension="zip"), self.model.save)
        buffer = getattr(self.model, "replay_buffer", None)
        if self.save_replay_buffer and buffer is not None:
            assert isinstance(self.model, OffPolicyAlgorithm)
            saver.save(self._checkpoint_path("replay_buffer_", "pkl"), self.model.save_replay_buffer)
        normalizer = self.model.get_vec_normalize_env()
        if self.save_vecnormalize and normalizer is not None:
            saver.save(self._checkpoint_path("vecnormalize_", "pkl"), lambda begun: normalizer.save(str(begun)))
        return True


class AtomicEvalCallback(EvalCallback):
    """Stable-Baselines3's EvalCallback, whose files are whole, and which a full disk does not end.

    The evaluation itself is Stable-Baselines3's. It writes its record into memory and saves no model; both are written
    here afterwards.
    """

    state_class: ClassVar[type] = EvalCallback
    _saver: Saver | None = None

    def _on_step(self) -> bool:
        if self.eval_freq <= 0 or self.n_calls % self.eval_freq != 0:
            return True
        best_before, on_new_best = self.best_mean_reward, self.callback_on_new_best
        log_path, best_path, record = self.log_path, self.best_model_save_path, BytesIO()
        # np.savez takes a file object where it takes a path.
        self.log_path = None if log_path is None else record  # type: ignore[assignment]
        self.best_model_save_path = self.callback_on_new_best = None
        try:
            goes_on = super()._on_step()
        finally:
            self.log_path, self.best_model_save_path, self.callback_on_new_best = log_path, best_path, on_new_best
        saver = self._saver = self._saver or Saver()
        if log_path is not None:
            saver.save(f"{log_path}.npz", lambda begun: begun.write_bytes(record.getvalue()))
        if self.best_mean_reward > best_before:
            if best_path is not None:
                saver.save(os.path.join(best_path, "best_model.zip"), self.model.save)
            if on_new_best is not None:
                goes_on = on_new_best.on_step() and goes_on
        return goes_on


def with_atomic_files(callback: BaseCallback) -> BaseCallback:
    """Take one of the callbacks above for Stable-Baselines3's own; another callback, a subclass too, stays as it is.

    :param callback: not begun yet
    :return: a callback that does the same
    """
    kinds: dict[type, type[BaseCallback]] = {
        CheckpointCallback: AtomicCheckpointCallback,
        EvalCallback: AtomicEvalCallback,
    }
    kind = kinds.get(type(callback))
    if kind is None:
        return callback
    made = kind.__new__(kind)
    vars(made).update(vars(callback))
    for child in (getattr(made, "callback", None), getattr(made, "callback_on_new_best", None)):
        if isinstance(child, BaseCallback):
            child.parent = made
    return made


_open_files: weakref.WeakSet[RetryingFile] = weakref.WeakSet()


class RetryingFile:
    """A file that is appended to. What a full disk does not take waits in memory, and is written with what comes next.

    :param path: of the file
    :param what: what to call it when something is told
    """

    def __init__(self, path: str, what: str) -> None:
        self._path = path
        self._what = what
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._waiting = bytearray()
        self._has_told = False
        self._lock = threading.Lock()  # tensorboard writes in a thread of its own
        _open_files.add(self)

    @property
    def path(self) -> str:
        """Of the file."""
        return self._path

    @property
    def is_waiting(self) -> bool:
        """Whether something is not in the file yet."""
        return bool(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._handle < 0

    def write(self, content: bytes | str) -> int:
        """Append to the file, now or later.

        :param content: text is written as UTF-8
        :return: its length
        """
        data = content.encode() if isinstance(content, str) else content
        with self._lock:
            if len(self._waiting) + len(data) <= _MAX_WAITING_BYTES:
                self._waiting += data
        self.flush()
        return len(content)

    def flush(self) -> None:
        """Write what waits, as far as the disk takes it."""
        if self.closed:
            return
        try:
            with self._lock:
                while self._waiting:
                    n_written = os.write(self._handle, self._waiting)
                    del self._waiting[:n_written]
        except OSError as error:
            if not self._has_told:
                print(
                    f"{self._what} {self._path} could not be written: {error}; what is logged waits in memory and "
                    "training goes on",
                    file=sys.stderr,
                )
            self._has_told = True

    def close(self) -> None:
        """Write what waits, and close the file."""
        if self._handle < 0:
            return
        self.flush()
        if self._waiting:
            print(f"{self._what} {self._path}: the last {len(self._waiting):,} bytes are lost", file=sys.stderr)
        os.close(self._handle)
        self._handle = -1
        _open_files.discard(self)


def first_waiting() -> RetryingFile | None:
    """:return: a file of this process that lacks something, although it was tried again just now; None if none does"""
    for file in list(_open_files):
        file.flush()
        if file.is_waiting:
            return file
    return None


def make_event_files_retry(logger: Logger) -> list[RetryingFile]:
    """Have event files wait where the disk is full: tensorboard's writer raises, and never writes again.

    The file that it writes to is a private attribute of tensorboard (seen in 2.20, torch 2.9): it has no way to give
    one. Where the attribute is not there, the writer stays as it is.

    :param logger: the model's
    :return: the files
    """
    files = []
    for output in logger.output_formats:
        if not isinstance(output, TensorBoardOutputFormat):
            continue
        event_writer = output.writer._get_file_writer().event_writer  # type: ignore[no-untyped-call]
        record_writer: Any = getattr(getattr(event_writer, "_async_writer", None), "_writer", None)
        file: Any = getattr(record_writer, "_writer", None)
        if file is None:
            continue
        if not isinstance(file, RetryingFile):
            event_writer.flush()
            file.close()
            file = record_writer._writer = RetryingFile(event_writer._file_name, "the event file")
        files.append(file)
    return files


def with_retrying_monitor(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Have the Monitor of an environment wait where the disk is full; it raises within a step otherwise.

    :param env: in a Monitor or not
    :return: the same environment
    """
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        writer = getattr(layer, "results_writer", None) if isinstance(layer, Monitor) else None
        if writer is not None:
            writer.file_handler.flush()
            file = RetryingFile(writer.file_handler.name, "the record of episodes")
            writer.file_handler.close()
            writer.file_handler = file
            writer.logger = type(writer.logger)(file, fieldnames=writer.logger.fieldnames)
        layer = layer.env
    return env
