"""DeepMind Control from pixels as an environment of gymnasium: 84 x 84 RGB, actions repeated, frames stacked."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from dm_control import suite
from gymnasium import spaces


class PixelSuiteEnv(gym.Env[np.ndarray, np.ndarray]):
    """A task of DeepMind Control's suite, seen by its first camera; an episode lasts 1,000 frames.

    Observations are ``(3 * frame_stack, size, size)`` uint8, oldest frame first. An action is repeated for
    ``action_repeat`` frames; the reward of a step is the sum of the rewards of these frames. The time limit truncates
    the episode.

    :param task: domain and task in one, such as ``"cartpole_swingup"``
    :param action_repeat: frames for which an action lasts
    :param frame_stack: frames in an observation
    :param size: height and width in pixels
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  gymnasium's own form
    render_mode = "rgb_array"

    def __init__(self, task: str, action_repeat: int = 2, frame_stack: int = 3, size: int = 84) -> None:
        domain, _, name = task.partition("_")
        self._suite = suite.load(domain, name, task_kwargs={"random": 0})
        # Software rendering spends a third of its time on MuJoCo's shadow map, which has 2048 x 2048 pixels in the
        # suite. With a smaller one, at most 0.1 % of the pixels of the five benchmark tasks' first images change by
        # more than 8 of 255.
        self._suite.physics.model.vis.quality.shadowsize = 1024
        self._action_repeat, self.frame_stack, self._size = action_repeat, frame_stack, size
        self._frames: deque[np.ndarray] = deque(maxlen=frame_stack)
        actions = self._suite.action_spec()
        self.action_space = spaces.Box(
            actions.minimum.astype(np.float32), actions.maximum.astype(np.float32), dtype=np.float32
        )
        self.observation_space = spaces.Box(0, 255, (3 * frame_stack, size, size), dtype=np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; a seed determines the starts of this episode and of the following ones."""
        super().reset(seed=seed, options=options)
        if seed is not None:
            self._suite.task.random.seed(seed)
        self._suite.reset()
        self._frames.extend([self._frame()] * self.frame_stack)
        return np.concatenate(self._frames), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Repeat an action for ``action_repeat`` frames."""
        reward = 0.0
        for _ in range(self._action_repeat):
            moment = self._suite.step(action)
            reward += float(moment.reward)
            if moment.last():
                break
        self._frames.append(self._frame())
        is_terminal = moment.last() and moment.discount == 0.0
        return np.concatenate(self._frames), reward, is_terminal, moment.last() and not is_terminal, {}

    def render(self) -> np.ndarray:  # type: ignore[override]
        """Return the camera image, ``(size, size, 3)`` uint8."""
        return self._suite.physics.render(self._size, self._size, camera_id=0)

    def _frame(self) -> np.ndarray:
        return self.render().transpose(2, 0, 1)

    def close(self) -> None:
        """Free the renderer, which prints errors if it still exists when the interpreter ends."""
        self._suite.physics.free()
