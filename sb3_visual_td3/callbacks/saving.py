"""Write the files of callbacks atomically, without ending the training when the disk is full.

A file that cannot be written causes one message, and the old file stays.
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

from sb3_visual_td3.runs.durable_files import BINARY, atomic_write

BEST_MODEL = "best_model.zip"
"""Name of the file of the best model, as Stable-Baselines3's EvalCallback and rl-zoo write it."""
_MAX_WAITING_BYTES = 64 << 20
"""While the disk is full, each log file keeps at most this many bytes in memory. New entries beyond this limit are
lost."""


class Saver:
    """Write files atomically, and print one message for each file that cannot be written."""

    def __init__(self) -> None:
        self._failed: set[Path] = set()

    def save(self, path: str | os.PathLike[str], write: Callable[[Path], object]) -> bool:
        """Write a file atomically.

        :param path: final path of the file, with its suffix
        :param write: function that writes the file to the path that it is given
        :return: whether the file was written; if not, the old file stays as it was
        """
        place = Path(path)
        try:
            with atomic_write(place) as temporary:
                write(temporary)
        except (OSError, RuntimeError) as error:
            # torch raises a RuntimeError when the disk is full.
            if place not in self._failed:
                print(f"{place} could not be written: {error}; training continues", file=sys.stderr)
            self._failed.add(place)
            return False
        self._failed.discard(place)
        return True


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays to exactly the given path; ``np.savez`` alone would append ``.npz`` to the path.

    :param path: path of the file
    :param arrays: arrays by name
    """
    with path.open("wb") as file:
        np.savez(file, **arrays)


class AtomicCheckpointCallback(CheckpointCallback):
    """Save checkpoints as Stable-Baselines3's CheckpointCallback does, but atomically.

    A full disk does not end the training.
    """

    state_class: ClassVar[type] = CheckpointCallback
    """A snapshot saves this callback under the name CheckpointCallback. A resumed run can use either class."""
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
            saver.save(self._checkpoint_path("vecnormalize_", "pkl"), lambda temporary: normalizer.save(str(temporary)))
        return True


class AtomicEvalCallback(EvalCallback):
    """Evaluate the policy as Stable-Baselines3's EvalCallback does, but write its files atomically.

    A full disk does not end the training. ``evaluations.npz`` and ``best_model.zip`` are written after the evaluation.
    """

    state_class: ClassVar[type] = EvalCallback
    """A snapshot saves this callback under the name EvalCallback. A resumed run can use either class."""
    _saver: Saver | None = None

    def _on_step(self) -> bool:
        if self.eval_freq <= 0 or self.n_calls % self.eval_freq != 0:
            return True
        # The parent class saves files and calls callback_on_new_best only if these attributes are set.
        best_before, on_new_best = self.best_mean_reward, self.callback_on_new_best
        log_path, best_path, record = self.log_path, self.best_model_save_path, BytesIO()
        # EvalCallback passes log_path on to np.savez, which accepts a file object as well as a path.
        self.log_path = None if log_path is None else record  # type: ignore[assignment]
        self.best_model_save_path = self.callback_on_new_best = None
        try:
            continues = super()._on_step()
        finally:
            self.log_path, self.best_model_save_path, self.callback_on_new_best = log_path, best_path, on_new_best
        saver = self._saver = self._saver or Saver()
        if log_path is not None:
            saver.save(f"{log_path}.npz", lambda temporary: temporary.write_bytes(record.getvalue()))
        if self.best_mean_reward > best_before:
            if best_path is not None:
                saver.save(os.path.join(best_path, BEST_MODEL), self.model.save)
            if on_new_best is not None:
                continues = on_new_best.on_step() and continues
        return continues


def with_atomic_files(callback: BaseCallback) -> BaseCallback:
    """Return an atomic version of a CheckpointCallback or an EvalCallback, and any other callback as it is.

    Subclasses are also returned as they are, because they may write files of their own.

    :param callback: a callback whose training has not started
    """
    kinds: dict[type, type[BaseCallback]] = {
        CheckpointCallback: AtomicCheckpointCallback,
        EvalCallback: AtomicEvalCallback,
    }
    kind = kinds.get(type(callback))
    if kind is None:
        return callback
    # __init__ is not called: the attributes are copied, and child callbacks get the new object as their parent.
    made = kind.__new__(kind)
    vars(made).update(vars(callback))
    for child in (getattr(made, "callback", None), getattr(made, "callback_on_new_best", None)):
        if isinstance(child, BaseCallback):
            child.parent = made
    return made


_open_files: weakref.WeakSet[RetryingFile] = weakref.WeakSet()


class RetryingFile:
    """Append to a log file; while the disk is full, keep the content in memory and try again at each write.

    :param path: path of the log file
    :param what: name of the file in messages, such as "the event file"
    """

    def __init__(self, path: str, what: str) -> None:
        self._path = path
        self._what = what
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | BINARY, 0o666)
        self._waiting = bytearray()
        self._has_reported = False
        # TensorBoard writes in a separate thread.
        self._lock = threading.Lock()
        _open_files.add(self)

    @property
    def path(self) -> str:
        """Return the path of the log file."""
        return self._path

    @property
    def is_waiting(self) -> bool:
        """Return whether content is still in memory because it could not be written to the file."""
        return bool(self._waiting)

    @property
    def closed(self) -> bool:
        """Return whether the file is closed."""
        return self._handle < 0

    def write(self, content: bytes | str) -> int:
        """Append content to the file; if the disk is full, keep the content in memory until there is space.

        :param content: text (written as UTF-8) or bytes
        :return: length of the content
        """
        data = content.encode() if isinstance(content, str) else content
        # Beyond the limit, new content is dropped: a disk that stays full for days must not fill the memory.
        with self._lock:
            if len(self._waiting) + len(data) <= _MAX_WAITING_BYTES:
                self._waiting += data
        self.flush()
        return len(content)

    def flush(self) -> None:
        """Write the content that is in memory, as far as there is space on the disk."""
        if self.closed:
            return
        try:
            with self._lock:
                while self._waiting:
                    n_written = os.write(self._handle, self._waiting)
                    del self._waiting[:n_written]
        except OSError as error:
            if not self._has_reported:
                print(
                    f"{self._what} {self._path} could not be written: {error}; new entries are kept in memory, and "
                    "training continues. Free some space on the disk",
                    file=sys.stderr,
                )
            self._has_reported = True

    def close(self) -> None:
        """Write the content that is still in memory, and close the file."""
        if self._handle < 0:
            return
        self.flush()
        if self._waiting:
            print(f"{self._what} {self._path}: the last {len(self._waiting):,} bytes are lost", file=sys.stderr)
        os.close(self._handle)
        self._handle = -1
        _open_files.discard(self)


def first_waiting() -> RetryingFile | None:
    """Try again to write all log files; return the first that is still incomplete, or None if all are complete."""
    for file in list(_open_files):
        file.flush()
        if file.is_waiting:
            return file
    return None


def make_event_files_retry(logger: Logger) -> list[RetryingFile]:
    """Make TensorBoard try again later if a write fails, for example because the disk is full.

    This sets a private attribute of TensorBoard's writers (tensorboard 2.20, torch 2.9). A writer without this
    attribute is not changed.

    :param logger: logger of the model
    :return: the open event files, which now repeat failed writes
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
    """Make an environment's Monitor try again later if a write fails, for example because the disk is full.

    :param env: an environment, with or without a Monitor
    :return: ``env`` itself
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
