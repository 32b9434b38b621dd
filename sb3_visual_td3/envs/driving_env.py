"""The gymnasium environment: glue between a world and the task."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.arguments import check_choice, check_count, select_maps
from sb3_visual_td3.envs.backend import Backend, Control, PictureView, Start, VehicleState
from sb3_visual_td3.envs.human_view import Window, draw_hud
from sb3_visual_td3.envs.observation import STATE_LIMIT, STATE_SIZE, WAYPOINTS_AHEAD_M, vehicle_state_vector
from sb3_visual_td3.envs.rewards import RewardWeights, reward_weights
from sb3_visual_td3.envs.task import DrivingTask, Ending, TaskSettings

PICTURE_HEIGHT = 480
PICTURE_WIDTH = 640
MAX_START_OFFSET_M = 0.4
MAX_START_HEADING_RAD = 0.06

ObservationKind = Literal["camera", "camera+state"]
Observation = NDArray[np.uint8] | dict[str, NDArray[Any]]


class DrivingEnv(gym.Env[Observation, NDArray[np.float32]]):
    """Drive along the right-hand lane, seeing the last camera frames and, if asked for, the vehicle's state.

    Observation: ``(frame_stack, height, width) uint8`` in [0, 255], the oldest frame first; after a reset every
    frame is the first one. In colour the channels are ``3 * frame_stack``: red, green and blue of the oldest frame
    first. With ``observation="camera+state"`` it is ``{"camera": that, "state": (11,) float32}``, whose entries
    ``observation.vehicle_state_vector`` describes. An array once returned is never written to again.

    Action: ``(2,) float32`` in [-1, 1]: steer (+1 is full right) and pedal (above 0 throttle, below 0 brake).

    :param backend: the world to drive in.
    :param frame_stack: number of camera frames in an observation, 1 to 16.
    :param frame_skip: ticks of the world per step, 1 to 100.
    :param maps: ``"train"``, ``"held_out"``, or the names of maps or of OpenDRIVE files (``.xodr``; needs the extra
        ``carla``); each episode draws one of them.
    :param observation: ``"camera"`` or ``"camera+state"``.
    :param reward: ``"balanced"``, ``"progress_heavy"``, or weights.
    :param reward_scale: factor on the reward and on each of its terms, above 0.
    :param target_speed_mps: the speed that the reward asks for, in m/s.
    :param idle_ending: whether standing still only ends the episode (``"truncated"``) or is an accident
        (``"terminated"``).
    :param render_mode: ``None``, ``"rgb_array"`` or ``"human"`` (a window; needs the extra ``video``).
    :param render_view: ``"front"`` through the camera, ``"chase"`` from behind and above.
    :raises ValueError: if an argument is none of these.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # noqa: RUF012  gymnasium's

    def __init__(
        self,
        backend: Backend,
        *,
        frame_stack: int = 4,
        frame_skip: int = 2,
        maps: str | Sequence[str] = "train",
        observation: ObservationKind = "camera",
        reward: str | RewardWeights = "balanced",
        reward_scale: float = 1.0,
        target_speed_mps: float = 30 / 3.6,
        idle_ending: Ending = "truncated",
        render_mode: str | None = None,
        render_view: PictureView = "front",
    ) -> None:
        self.frame_stack = check_count("frame_stack", frame_stack, 1, 16)
        self.frame_skip = check_count("frame_skip", frame_skip, 1, 100)
        self.maps = select_maps(maps, backend.map_groups, backend.map_file_suffix)
        check_choice("observation", observation, get_args(ObservationKind))
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        check_choice("render_view", render_view, get_args(PictureView))
        step_s = self.frame_skip * backend.tick_s
        settings = TaskSettings(
            target_speed_mps=target_speed_mps,
            step_s=step_s,
            idle_ending=idle_ending,
            weights=reward_weights(reward),
            reward_scale=reward_scale,
        )
        self.render_mode = render_mode
        self.render_view = render_view
        self.metadata = {**self.metadata, "render_fps": max(1, round(1.0 / step_s))}
        self.observation_space = _observation_space(observation, self.frame_stack, backend.frame_shape)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._backend = backend
        self._window: Window | None = Window("sb3-visual-td3") if render_mode == "human" else None
        self._has_state = observation == "camera+state"
        self._is_grey = len(backend.frame_shape) == 2
        self._task = DrivingTask(settings, backend.body)
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=self.frame_stack)
        self._map_name = ""
        self._control = Control(0.0, 0.0, 0.0)
        self._reward_terms: dict[str, float] = {}

    @property
    def settings(self) -> TaskSettings:
        """What the task counts as what."""
        return self._task.settings

    @property
    def vehicle(self) -> VehicleState:
        """The vehicle as it is now."""
        return self._backend.state

    def waypoints_m(self, ahead_m: Sequence[float]) -> list[tuple[float, float]]:
        """Return x and y of the lane's centre so many metres along the lane ahead of the vehicle."""
        return self._backend.waypoints_m(ahead_m)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw a map and a start and begin an episode.

        :param seed: restarts the environment's random stream; ``None`` continues it.
        :param options: none are known.
        :raises ValueError: if ``options`` holds anything.
        """
        if options:
            raise ValueError(f"options={options!r}: expected none; choose maps when the environment is made")
        super().reset(seed=seed)
        start = self._draw_start()
        state = self._backend.reset(start)
        self._map_name = self._backend.map_name
        self._task.body = self._backend.body
        self._task.reset(state)
        self._control = Control(0.0, 0.0, 0.0)
        self._reward_terms = {}
        self._frames.extend([self._backend.camera_frame()] * self.frame_stack)
        self._show()
        return self._observation(), self._task.info(self._map_name)

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Hold ``action``, clipped to the action space, for ``frame_skip`` ticks; the time limit is gymnasium's.

        :raises ValueError: if ``action`` is not of shape ``(2,)`` or not finite.
        """
        steer, pedal = self._read_action(action)
        self._control = Control(steer, max(0.0, pedal), max(0.0, -pedal))
        state = self._backend.step(self._control, self.frame_skip)
        outcome = self._task.advance(state, steer, pedal)
        self._reward_terms = outcome.reward_terms
        self._frames.append(self._backend.camera_frame())
        self._show()
        info = {"reward_terms": dict(outcome.reward_terms), **self._task.info(self._map_name)}
        return self._observation(), outcome.reward, outcome.terminated, outcome.truncated, info

    def render(self) -> NDArray[np.uint8] | None:
        """Return the scene for people, ``(480, 640, 3) uint8`` RGB; ``None`` without ``render_mode="rgb_array"``."""
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing without a render mode: make the env with render_mode='rgb_array'")
        return self._picture() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Let go of the world and close the window."""
        self._backend.close()
        if self._window is not None:
            self._window.close()

    def _show(self) -> None:
        if self._window is not None:
            self._window.show(self._picture(), self.metadata["render_fps"])

    def _picture(self) -> NDArray[np.uint8]:
        picture = self._backend.picture(PICTURE_HEIGHT, PICTURE_WIDTH, self.render_view)
        return draw_hud(picture, self._task.info(self._map_name), self._reward_terms, self._control)

    def _draw_start(self) -> Start:
        rng = self.np_random
        return Start(
            map_name=self.maps[int(rng.integers(len(self.maps)))],
            position=float(rng.random()),
            lateral_offset_m=float(rng.uniform(-MAX_START_OFFSET_M, MAX_START_OFFSET_M)),
            heading_error_rad=float(rng.uniform(-MAX_START_HEADING_RAD, MAX_START_HEADING_RAD)),
            speed_mps=float(rng.uniform(0.0, self._task.settings.target_speed_mps)),
            # Drawn where it matters only: a seed gives the starts that it has always given.
            scene_seed=int(rng.integers(2**32)) if self._backend.has_varying_scenes else 0,
        )

    def _observation(self) -> Observation:
        # A stack of grey frames is an array of them; colour frames bring three channels each.
        camera = np.empty((self.frame_stack, *self._frames[0].shape), np.uint8)
        for number, frame in enumerate(self._frames):
            camera[number] = frame
        camera = camera if self._is_grey else camera.reshape(-1, *camera.shape[-2:])
        if not self._has_state:
            return camera
        waypoints = self._backend.waypoints_m(WAYPOINTS_AHEAD_M)
        return {"camera": camera, "state": vehicle_state_vector(self._backend.state, waypoints)}

    @staticmethod
    def _read_action(action: NDArray[np.float32]) -> tuple[float, float]:
        values = np.asarray(action, dtype=np.float64)
        if values.shape != (2,) or not all(map(math.isfinite, values.tolist())):
            raise ValueError(
                f"action={action!r}: expected two finite numbers (steer, pedal); look for NaN in the policy's output"
            )
        steer, pedal = values.tolist()
        return min(1.0, max(-1.0, steer)), min(1.0, max(-1.0, pedal))


def _observation_space(
    observation: ObservationKind, frame_stack: int, frame_shape: tuple[int, ...]
) -> gym.spaces.Space[Any]:
    n_channels = frame_stack * (1 if len(frame_shape) == 2 else frame_shape[0])
    camera = gym.spaces.Box(0, 255, (n_channels, *frame_shape[-2:]), np.uint8)
    if observation == "camera":
        return camera
    vector = gym.spaces.Box(-STATE_LIMIT, STATE_LIMIT, (STATE_SIZE,), np.float32)
    return gym.spaces.Dict({"camera": camera, "state": vector})
