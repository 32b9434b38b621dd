"""The gymnasium environment: glue between a world and the task."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.arguments import check_count, select_maps
from sb3_visual_td3.envs.backend import Backend, Control, Start
from sb3_visual_td3.envs.task import DrivingTask, TaskSettings

PICTURE_HEIGHT = 480
PICTURE_WIDTH = 640
MAX_START_OFFSET_M = 0.4
MAX_START_HEADING_RAD = 0.06


class DrivingEnv(gym.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """Drive along the right-hand lane, seeing nothing but the last camera frames.

    Observation: ``(frame_stack, height, width) uint8`` in [0, 255], the oldest frame first; after a reset every
    frame is the first one. An array once returned is never written to again.

    Action: ``(2,) float32`` in [-1, 1]: steer (+1 is full right) and pedal (above 0 throttle, below 0 brake).

    :param backend: the world to drive in.
    :param frame_stack: number of camera frames in an observation, 1 to 16.
    :param frame_skip: ticks of the world per step, 1 to 100.
    :param maps: ``"train"``, ``"held_out"``, or the names of maps; each episode draws one of them.
    :param render_mode: ``None`` or ``"rgb_array"``.
    :param target_speed_mps: the speed that the reward asks for, in m/s.
    :raises ValueError: if an argument is none of these.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  gymnasium's own type

    def __init__(
        self,
        backend: Backend,
        *,
        frame_stack: int = 4,
        frame_skip: int = 2,
        maps: str | Sequence[str] = "train",
        render_mode: str | None = None,
        target_speed_mps: float = 30 / 3.6,
    ) -> None:
        self.frame_stack = check_count("frame_stack", frame_stack, 1, 16)
        self.frame_skip = check_count("frame_skip", frame_skip, 1, 100)
        self.maps = select_maps(maps, backend.map_groups)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}: expected None or 'rgb_array'; use one of these")
        step_s = self.frame_skip * backend.tick_s
        settings = TaskSettings(target_speed_mps, step_s)
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": max(1, round(1.0 / step_s))}
        self.observation_space = gym.spaces.Box(0, 255, (self.frame_stack, *backend.frame_shape), np.uint8)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._backend = backend
        self._task = DrivingTask(settings, backend.body)
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=self.frame_stack)
        self._map_name = ""
        self._control = Control(0.0, 0.0, 0.0)
        self._reward_terms: dict[str, float] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Draw a map and a start and begin an episode.

        :param seed: restarts the environment's random stream; ``None`` continues it.
        :param options: none are known.
        :raises ValueError: if ``options`` holds anything.
        """
        if options:
            raise ValueError(f"options={options!r}: expected none; choose maps when the environment is made")
        super().reset(seed=seed)
        start = self._draw_start()
        self._map_name = start.map_name
        self._task.reset(self._backend.reset(start))
        self._control = Control(0.0, 0.0, 0.0)
        self._reward_terms = {}
        self._frames.extend([self._backend.camera_frame()] * self.frame_stack)
        return self._observation(), self._task.info(self._map_name)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Hold ``action``, clipped to the action space, for ``frame_skip`` ticks; the time limit is gymnasium's.

        :raises ValueError: if ``action`` is not of shape ``(2,)`` or not finite.
        """
        steer, pedal = self._read_action(action)
        self._control = Control(steer, max(0.0, pedal), max(0.0, -pedal))
        state = self._backend.step(self._control, self.frame_skip)
        outcome = self._task.advance(state, steer, pedal)
        self._reward_terms = outcome.reward_terms
        self._frames.append(self._backend.camera_frame())
        info = {"reward_terms": dict(outcome.reward_terms), **self._task.info(self._map_name)}
        return self._observation(), outcome.reward, outcome.terminated, False, info

    def render(self) -> NDArray[np.uint8] | None:
        """Return the scene for people, ``(480, 640, 3) uint8`` RGB, or ``None`` without a render mode."""
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing without a render mode: make the env with render_mode='rgb_array'")
            return None
        from sb3_visual_td3.envs.hud import draw_hud

        picture = self._backend.picture(PICTURE_HEIGHT, PICTURE_WIDTH)
        return draw_hud(picture, self._task.info(self._map_name), self._reward_terms, self._control)

    def close(self) -> None:
        """Let go of the world."""
        self._backend.close()

    def _draw_start(self) -> Start:
        rng = self.np_random
        return Start(
            map_name=self.maps[int(rng.integers(len(self.maps)))],
            position=float(rng.random()),
            lateral_offset_m=float(rng.uniform(-MAX_START_OFFSET_M, MAX_START_OFFSET_M)),
            heading_error_rad=float(rng.uniform(-MAX_START_HEADING_RAD, MAX_START_HEADING_RAD)),
            speed_mps=float(rng.uniform(0.0, self._task.settings.target_speed_mps)),
        )

    def _observation(self) -> NDArray[np.uint8]:
        return np.array(self._frames, dtype=np.uint8)

    @staticmethod
    def _read_action(action: NDArray[np.float32]) -> tuple[float, float]:
        values = np.asarray(action, dtype=np.float64)
        if values.shape != (2,) or not np.isfinite(values).all():
            raise ValueError(
                f"action={action!r}: expected two finite numbers (steer, pedal); look for NaN in the policy's output"
            )
        steer, pedal = values.tolist()
        return min(1.0, max(-1.0, steer)), min(1.0, max(-1.0, pedal))
