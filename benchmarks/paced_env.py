"""An environment as slow as a simulator, for the benchmarks of parallel and overlapped stepping."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym


class PacedEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that takes at least ``step_s`` seconds for a step.

    ``step_s`` is 0 until :meth:`set_step_s` is called.
    """

    step_s = 0.0

    def set_step_s(self, step_s: float) -> None:
        """Set the minimum duration of a step in seconds."""
        self.step_s = step_s

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Make the step, and sleep until its minimum duration has passed."""
        end = time.perf_counter() + self.step_s
        reply = self.env.step(action)
        time.sleep(max(0.0, end - time.perf_counter()))
        return reply
