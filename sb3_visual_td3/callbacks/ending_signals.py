"""Take a snapshot and end the training after a signal, which Slurm or ``kill`` may send.

After the first signal, the current rollout is finished, a snapshot is taken, and the training ends. If the rollout does
not end within ``GRACE_S`` seconds, the training ends without a new snapshot. A second signal ends the process at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from sb3_visual_td3.common.errors import ExitCode

GRACE_S = 12.0
"""Seconds after a signal within which the rollout must end; otherwise the training ends without a new snapshot. By
default, Slurm sends SIGKILL 30 seconds after the signal, so that 18 seconds are left for the snapshot."""
# Windows has no SIGUSR1.
DEFAULT_SIGNALS = tuple(name for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))

_REFUSED = {"SIGKILL", "SIGSTOP", "SIGALRM", "SIGCHLD", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"}
"""Signals that the user cannot choose: a program cannot handle them, or they have another purpose."""


class TrainingInterrupted(SystemExit):
    """Raised when a signal ends a training run that can be resumed.

    A program that does not catch this exception exits with code 75, ``ExitCode.RESUMABLE``.
    """

    def __init__(self, signal_name: str) -> None:
        super().__init__(ExitCode.RESUMABLE)
        self.signal_name = signal_name


def checked_signals(names: Iterable[str]) -> tuple[str, ...]:
    """Check the names of signals, and return the full names.

    :param names: names such as ``"SIGTERM"`` or ``"USR1"``
    :return: the full names, such as ``"SIGUSR1"``, without duplicates
    :raises ValueError: if this system does not know a signal, or if the signal cannot end a training run
    """
    # A string would otherwise be read as a list of its letters.
    if isinstance(names, str):
        raise ValueError(f"signals={names!r}: expected a list of names, such as ['SIGTERM', 'SIGUSR1']")
    found: dict[str, None] = {}
    for name in names:
        full = str(name).upper()
        if not full.startswith("SIG"):
            full = f"SIG{full}"
        if not isinstance(getattr(signal, full, None), signal.Signals):
            raise ValueError(f"signals has {name!r}: expected names of signals, such as 'SIGTERM' or 'SIGUSR1'")
        if full in _REFUSED:
            raise ValueError(
                f"signals has {name!r}, which cannot end a training run with a snapshot: use SIGTERM or SIGUSR1"
            )
        found[full] = None
    return tuple(found)


class EndingSignals:
    """End a training run with a snapshot when the process receives a signal.

    :param names: names of the signals, as :func:`checked_signals` returns them
    :param model: the model that is trained
    :param on_late: called with the name of the signal if the rollout does not end in time
    """

    def __init__(self, names: Sequence[str], model: BaseAlgorithm, on_late: Callable[[str], None]) -> None:
        self._names = names
        self._model = weakref.ref(model)
        self._on_late = on_late
        self._before: dict[int, Any] = {}
        self._alarm_before: Any = None
        self.received: str | None = None
        """Name of the signal that was received; None before the first one."""

    def install(self, envs: Iterable[VecEnv]) -> None:
        """Install the signal handlers; do nothing outside the main thread, where Python cannot handle signals.

        :param envs: environments whose worker processes must ignore the signals, because Slurm and Ctrl-C send a signal
            to all processes of a job
        """
        if not self._names or threading.current_thread() is not threading.main_thread():
            return
        # The workers come first. If a signal reaches all processes before the handlers below are installed, it ends
        # this process as before. In the other order, this process would handle the signal, but the workers would have
        # died, and the snapshot needs them.
        for env in envs:
            shield_workers(env, self._names)
        for name in self._names:
            number = getattr(signal, name)
            self._before[number] = signal.signal(number, self._on_signal)

    def restore(self) -> None:
        """Restore the earlier signal handlers; calling it again changes nothing."""
        if self._alarm_before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm_before)
            self._alarm_before = None
        before, self._before = self._before, {}
        for number, handler in before.items():
            # None means that the handler was not installed from Python, so it cannot be restored from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.received is not None or not self._is_training(frame):
            # This is a second signal, or an exception has left learn() and the script handled it. Stable-Baselines3
            # does not inform callbacks of exceptions, so the handlers were still installed.
            self.restore()
            signal.raise_signal(number)
            return
        self.received = name
        # Windows has no SIGALRM: there, the training ends after the current rollout, however long that takes.
        if hasattr(signal, "SIGALRM"):
            self._alarm_before = signal.signal(signal.SIGALRM, self._on_alarm) or signal.SIG_DFL
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        # This uses os.write and not print. If the signal has interrupted a print, a second print raises an error.
        os.write(2, f"{name}: the training ends after this rollout; a second signal ends it at once\n".encode())

    def _is_training(self, frame: FrameType | None) -> bool:
        # learn() is running if a method of the model is on the call stack.
        model = self._model()
        while frame is not None:
            if frame.f_locals.get("self") is model and model is not None:
                return True
            frame = frame.f_back
        return False

    def _on_alarm(self, *_: object) -> None:
        assert self.received is not None
        self._on_late(self.received)
        raise TrainingInterrupted(self.received)

    def begin_snapshot(self) -> None:
        """Stop the timer that would end the training without a snapshot; call this when the rollout has ended."""
        if self._alarm_before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)


class _IgnoredOnArrival:
    """Make a worker process ignore a signal, from the moment when the worker unpickles this object.

    SubprocVecEnv can only send pickled messages to its workers, and has no message for signals.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return signal.signal, (self._number, signal.SIG_IGN)


_shielded: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def shield_workers(env: VecEnv, names: Sequence[str]) -> None:
    """Make the worker processes of a SubprocVecEnv ignore signals; do nothing if the VecEnv is of another kind.

    :param env: the environments, with their wrappers
    :param names: names of the signals, such as ``"SIGTERM"``
    """
    processes = env.unwrapped
    if not isinstance(processes, SubprocVecEnv) or processes.closed:
        return
    for name in names:
        processes.set_attr("_ignored_signal", _IgnoredOnArrival(int(getattr(signal, name))))
    # At exit, multiprocessing sends SIGTERM to the remaining workers and waits for them. If they ignore SIGTERM, it
    # would wait for ever.
    _shielded.update(processes.processes)
    atexit.unregister(_end_shielded)
    atexit.register(_end_shielded)


def _end_shielded() -> None:
    for process in list(_shielded):
        # A forked child has inherited this list, and must not kill the workers of its parent.
        if process._parent_pid == os.getpid() and process.is_alive():  # type: ignore[attr-defined]
            process.kill()
