"""The gymnasium environment: it connects a world (``backend.Backend``) with the task (``task.DrivingTask``)."""

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
# Episodes begin slightly off the lane's centre and direction, so that the policy learns to correct both.
MAX_START_OFFSET_M = 0.4
MAX_START_HEADING_RAD = 0.06

ObservationKind = Literal["camera", "camera+state"]
Observation = NDArray[np.uint8] | dict[str, NDArray[Any]]


class DrivingEnv(gym.Env[Observation, NDArray[np.float32]]):
    """Drive along the right-hand lane; the observation is the last camera frames and, optionally, the vehicle's state.

    Observation: ``(frame_stack, height, width) uint8`` in [0, 255], the oldest frame first; after a reset all frames
    are copies of the first one. In colour there are ``3 * frame_stack`` channels, beginning with red, green and blue of
    the oldest frame. With ``observation="camera+state"`` the observation is a dictionary ``{"camera": the same,
    "state": (11,) float32}``; ``observation.vehicle_state_vector`` describes the entries of the state. The environment
    never writes to an array that it has returned.

    Action: ``(2,) float32`` in [-1, 1]: steer (+1 is full right) and pedal (above 0 throttle, below 0 brake).

    :param backend: the world to drive in.
    :param frame_stack: number of camera frames in an observation, 1 to 16.
    :param frame_skip: ticks of the world per step, 1 to 100.
    :param maps: ``"train"``, ``"held_out"``, or the names of maps or of OpenDRIVE files (``.xodr``; requires the extra
        ``carla``). Each episode takes one of them at random.
    :param observation: ``"camera"`` or ``"camera+state"``.
    :param reward: ``"balanced"``, ``"progress_heavy"``, or weights.
    :param reward_scale: factor on the reward and on each of its terms, above 0.
    :param target_speed_mps: the speed with the highest reward, in m/s.
    :param idle_ending: ``"truncated"`` if standing still only ends the episode, ``"terminated"`` if it is an accident.
    :param render_mode: ``None``, ``"rgb_array"`` or ``"human"`` (a window; requires the extra ``video``).
    :param render_view: ``"front"`` through the camera, ``"chase"`` from behind and above.
    :raises ValueError: if an argument is out of range.
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
        # Recorded videos play in real time.
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
        """Return the thresholds and weights of the task."""
        return self._task.settings

    @property
    def vehicle(self) -> VehicleState:
        """Return the current state of the vehicle."""
        return self._backend.state

    def waypoints_m(self, ahead_m: Sequence[float]) -> list[tuple[float, float]]:
        """Return x and y of the lane's centre at each of these distances ahead of the vehicle, along the lane."""
        return self._backend.waypoints_m(ahead_m)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode on a random map at a random place.

        :param seed: new seed of the environment's random stream; ``None`` continues the stream.
        :param options: must be empty; this environment has no options.
        :return: the first observation and its info.
        :raises ValueError: if ``options`` is not empty.
        """
        if options:
            raise ValueError(f"options={options!r}: expected none; choose maps when the environment is made")
        super().reset(seed=seed)
        start = self._draw_start()
        state = self._backend.reset(start)
        self._map_name = self._backend.map_name
        self._task.body = self._backend.body  # CARLA reports the size only after it has spawned the vehicle
        self._task.reset(state)
        self._control = Control(0.0, 0.0, 0.0)
        self._reward_terms = {}
        self._frames.extend([self._backend.camera_frame()] * self.frame_stack)
        self._show()
        return self._observation(), self._task.info(self._map_name)

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Hold ``action``, clipped to the action space, for ``frame_skip`` ticks.

        The time limit belongs to gymnasium's ``TimeLimit`` wrapper.

        :param action: ``(2,)``: steer and pedal in [-1, 1].
        :return: observation, reward, terminated, truncated, info.
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
        """Return a picture for people, ``(480, 640, 3) uint8`` RGB; None unless ``render_mode="rgb_array"``."""
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing without a render mode: make the env with render_mode='rgb_array'")
        if self.render_mode == "rgb_array":
            return self._picture()
        return None  # a window is updated by step() and reset()

    def close(self) -> None:
        """Release the world's resources and close the window."""
        self._backend.close()
        if self._window is not None:
            self._window.close()

    def _show(self) -> None:
        """Update the window, if there is one."""
        if self._window is not None:
            self._window.show(self._picture(), self.metadata["render_fps"])

    def _picture(self) -> NDArray[np.uint8]:
        """Return a new picture for people, with speed, reward terms and controls."""
        picture = self._backend.picture(PICTURE_HEIGHT, PICTURE_WIDTH, self.render_view)
        return draw_hud(picture, self._task.info(self._map_name), self._reward_terms, self._control)

    def _draw_start(self) -> Start:
        """Draw the start of an episode from the environment's random stream."""
        rng = self.np_random
        # The order of these draws is part of the results: another order would give other episodes for the same seed.
        start = Start(
            map_name=self.maps[int(rng.integers(len(self.maps)))],
            position=float(rng.random()),
            lateral_offset_m=float(rng.uniform(-MAX_START_OFFSET_M, MAX_START_OFFSET_M)),
            heading_error_rad=float(rng.uniform(-MAX_START_HEADING_RAD, MAX_START_HEADING_RAD)),
            speed_mps=float(rng.uniform(0.0, self._task.settings.target_speed_mps)),
        )
        # For the same reason a scene seed is drawn only where it makes a difference: worlds without traffic and
        # weather keep the episodes that they had before either existed.
        if self._backend.has_varying_scenes:
            start = start._replace(scene_seed=int(rng.integers(2**32)))
        return start

    def _observation(self) -> Observation:
        """Return the current observation as new arrays."""
        # Grey: (stack, height, width). Colour: (stack, 3, height, width), flattened to (stack * 3, height, width).
        camera = np.empty((self.frame_stack, *self._frames[0].shape), np.uint8)
        for number, frame in enumerate(self._frames):
            camera[number] = frame
        if not self._is_grey:
            camera = camera.reshape(-1, *camera.shape[-2:])
        if not self._has_state:
            return camera
        waypoints = self._backend.waypoints_m(WAYPOINTS_AHEAD_M)
        return {"camera": camera, "state": vehicle_state_vector(self._backend.state, waypoints)}

    @staticmethod
    def _read_action(action: NDArray[np.float32]) -> tuple[float, float]:
        """Return steer and pedal of an action, clipped to [-1, 1]."""
        # In float64, because the task computes in Python floats; float32 would round differently on the way.
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
    """Return the space of ``frame_stack`` frames of ``frame_shape``, with the vehicle's state where it is requested."""
    n_channels_per_frame = 1 if len(frame_shape) == 2 else frame_shape[0]
    n_channels = frame_stack * n_channels_per_frame
    camera = gym.spaces.Box(0, 255, (n_channels, *frame_shape[-2:]), np.uint8)
    if observation == "camera":
        return camera
    vector = gym.spaces.Box(-STATE_LIMIT, STATE_LIMIT, (STATE_SIZE,), np.float32)
    return gym.spaces.Dict({"camera": camera, "state": vector})
