"""When training has begun, and what rl-zoo ends where it has not."""

from __future__ import annotations

from collections.abc import Callable

from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback


class BeginningCallback(BaseCallback):
    """Stands first in rl-zoo's list, and says when training begins.

    Whatever happens, rl-zoo ends the first callback of the list, to take a progress bar from the screen. A bar that has
    not begun, since the environment could not be reset, fails at that, and what happened is not seen any more. Another
    callback must not be ended where training was left by an exception: it would take the run for a whole one.

    :param first: what would stand first
    :param on_begin: called when the environment is there and the callbacks are ready
    """

    def __init__(self, first: BaseCallback | None, on_begin: Callable[[], None]) -> None:
        super().__init__()
        self._first = first
        self._on_begin = on_begin
        self._has_begun = False

    def _on_training_start(self) -> None:
        self._has_begun = True
        self._on_begin()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if self._has_begun and isinstance(self._first, ProgressBarCallback):
            bar, self._first = self._first, None  # this is called again by rl-zoo after a good end
            bar.on_training_end()
