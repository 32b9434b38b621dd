"""Signals that end a training in order: Slurm's preemption, a time limit, ``kill``.

The first signal asks the training to end between two rollouts, where a snapshot can be taken. If that does not come
within ``GRACE_S`` seconds (a long evaluation, a long block of updates), the training ends without a new snapshot. A
second signal ends the process at once, as if it were not handled.
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

EXIT_RESUMABLE = 75
"""Exit code of a training that a signal ended and that can be resumed: EX_TEMPFAIL of ``sysexits.h``, "try again"."""
GRACE_S = 12.0
"""Seconds from the signal until the training ends without a new snapshot. Slurm kills after 30 by default, and a
snapshot that begins at the last moment has to be written, too."""
DEFAULT_SIGNALS = ("SIGTERM", "SIGUSR1")

_REFUSED = {"SIGKILL", "SIGSTOP", "SIGALRM", "SIGCHLD", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"}
"""Signals that cannot be handled, or that stand for something else."""


class TrainingInterrupted(SystemExit):
    """A signal ended a training that can be resumed; uncaught, it exits with code :data:`EXIT_RESUMABLE`."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(EXIT_RESUMABLE)
        self.signal_name = signal_name


def checked_signals(names: Iterable[str]) -> tuple[str, ...]:
    """Check the names of signals.

    :param names: such as ``"SIGTERM"`` or ``"USR1"``
    :return: the full names, each once
    :raises ValueError: if one is unknown here, or cannot or must not be handled
    """
    if isinstance(names, str):
        raise ValueError(f"signals={names!r}: expected a list of names, such as ['SIGTERM', 'SIGUSR1']")
    found: dict[str, None] = {}
    for name in names:
        full = str(name).upper()
        full = full if full.startswith("SIG") else f"SIG{full}"
        if not isinstance(getattr(signal, full, None), signal.Signals):
            raise ValueError(f"signals has {name!r}: expected names of signals, such as 'SIGTERM' or 'SIGUSR1'")
        if full in _REFUSED:
            raise ValueError(f"signals has {name!r}, which cannot end a training in order; use SIGTERM or SIGUSR1")
        found[full] = None
    return tuple(found)


class EndingSignals:
    """Handles signals while a training runs.

    :param names: of :func:`checked_signals`
    :param model: the model that is trained
    :param on_late: called where the training ends without a new snapshot, with the name of the signal
    """

    def __init__(self, names: Sequence[str], model: BaseAlgorithm, on_late: Callable[[str], None]) -> None:
        self._names = names
        self._model = weakref.ref(model)
        self._on_late = on_late
        self._before: dict[int, Any] = {}
        self._alarm_before: Any = None
        self.received: str | None = None
        """Name of the signal that has come; None where there was none."""

    def install(self, envs: Iterable[VecEnv]) -> None:
        """Handle the signals from now on.

        Python handles signals in the main thread alone: in another thread, nothing is installed.

        :param envs: the environments whose worker processes get the signal, too, where it goes to all processes of a
            Slurm step or to a process group; they are to ignore it until the snapshot is taken
        """
        if not self._names or threading.current_thread() is not threading.main_thread():
            return
        # Workers first: a signal to all processes that comes in between ends this one as before. The other way round it
        # would be taken up here, and the snapshot taken of environments whose workers had died.
        for env in envs:
            shield_workers(env, self._names)
        for name in self._names:
            number = getattr(signal, name)
            self._before[number] = signal.signal(number, self._on_signal)

    def restore(self) -> None:
        """Put back what handled the signals before; calling it again changes nothing."""
        if self._alarm_before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm_before)
            self._alarm_before = None
        before, self._before = self._before, {}
        for number, handler in before.items():
            # None stands for a handler that was not installed from Python, and cannot be put back from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.received is not None or not self._is_training(frame):
            # A second signal; or learn() was left by an exception that the script has handled, of which
            # Stable-Baselines3 tells callbacks nothing.
            self.restore()
            signal.raise_signal(number)
            return
        self.received = name
        self._alarm_before = signal.signal(signal.SIGALRM, self._on_alarm) or signal.SIG_DFL
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        os.write(2, f"{name}: the training ends after this step; a second signal ends it at once\n".encode())

    def _is_training(self, frame: FrameType | None) -> bool:
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
        """Wait no longer for a rollout's end: it has come."""
        if self._alarm_before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)


class _IgnoredOnArrival:
    """Has the process in which it is unpickled ignore a signal.

    A worker of SubprocVecEnv does what it is told by pickled messages; one that names nothing but the standard library
    costs it no import.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return signal.signal, (self._number, signal.SIG_IGN)


_shielded: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def shield_workers(env: VecEnv, names: Sequence[str]) -> None:
    """Have the worker processes of a SubprocVecEnv ignore signals; other environments are left alone.

    :param env: the environments, with their wrappers
    :param names: of the signals
    """
    processes = env.unwrapped
    if not isinstance(processes, SubprocVecEnv) or processes.closed:
        return
    for name in names:
        processes.set_attr("_ignored_signal", _IgnoredOnArrival(int(getattr(signal, name))))
    # At exit, multiprocessing sends SIGTERM to workers that are left and waits for them.
    _shielded.update(processes.processes)
    atexit.unregister(_end_shielded)
    atexit.register(_end_shielded)


def _end_shielded() -> None:
    for process in list(_shielded):
        # In a forked child these are the parent's processes.
        if process._parent_pid == os.getpid() and process.is_alive():  # type: ignore[attr-defined]
            process.kill()
