"""Define the gymnasium environment, which connects a simulator (``backend.Backend``) with ``task.DrivingTask``."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs import RegisteredLimit
from sb3_visual_td3.envs.arguments import check_choice, check_count, select_maps
from sb3_visual_td3.envs.backend import Backend, Control, PictureView, Start, VehicleState
from sb3_visual_td3.envs.human_view import ROUTE_AHEAD_M, Window, draw_hud, draw_route
from sb3_visual_td3.envs.observation import (
    COMMAND_SIZE,
    STATE_LIMIT,
    STATE_SIZE,
    WAYPOINTS_AHEAD_M,
    command_vector,
    vehicle_state_vector,
)
from sb3_visual_td3.envs.rewards import RewardWeights, reward_weights
from sb3_visual_td3.envs.task import DrivingTask, Ending, TaskSettings

PICTURE_HEIGHT = 480
PICTURE_WIDTH = 640
# Episodes begin slightly off the lane's centre and direction, so that the policy learns to correct both.
MAX_START_OFFSET_M = 0.4
MAX_START_HEADING_RAD = 0.06

ObservationKind = Literal["camera", "camera+state", "camera+command", "camera+state+command"]
Observation = NDArray[np.uint8] | dict[str, NDArray[Any]]
_LOG = logging.getLogger("sb3_visual_td3")


class DrivingEnv(gym.Env[Observation, NDArray[np.float32]]):
    """Drive along a lane or a route; the observation is the last camera frames and, optionally, state and command.

    The camera observation is ``(frame_stack, height, width) uint8`` in [0, 255], the oldest frame first. In colour
    there are ``3 * frame_stack`` channels, beginning with red, green and blue of the oldest frame. With state or
    command the observation is a dictionary with the entries that the argument ``observation`` names: ``"camera"``,
    ``"state"`` (``(11,) float32``, see ``observation.vehicle_state_vector``) and ``"command"`` (``(7,) float32``, see
    ``observation.command_vector``). The environment never writes to an array that it has returned.

    Action: ``(2,) float32`` in [-1, 1]: steer (+1 is full right) and pedal (above 0 throttle, below 0 brake).

    :param backend: the simulator to drive in
    :param frame_stack: number of camera frames in an observation, 1 to 16
    :param frame_skip: ticks of the simulator per step, 1 to 100
    :param maps: ``"train"``, ``"held_out"``, or the names of one or more maps. The path of an OpenDRIVE file
        (``.xodr``) is a valid name too; such files require the extra ``carla``. Each episode takes one map at random.
    :param observation: ``"camera"``, ``"camera+state"``, and on routes to a goal also ``"camera+command"`` or
        ``"camera+state+command"``
    :param reward: ``"balanced"``, ``"progress_heavy"``, a ``RewardWeights``, or a mapping with the weights that differ
        from ``"balanced"``, such as ``{"accident": 1.0}``
    :param reward_scale: number above 0 by which the reward and each of its terms are multiplied
    :param target_speed_mps: speed with the highest reward, in m/s
    :param idle_ending: how an episode ends when the vehicle stands still: ``"truncated"``, or ``"terminated"``, which
        counts as an accident
    :param goal_ending: how an episode ends at the goal: ``"terminated"`` or ``"truncated"``. With ``"truncated"`` an
        algorithm bootstraps as if the route continued. The camera does not show the goal, so a critic cannot predict
        the end.
    :param render_mode: ``None``, ``"rgb_array"`` or ``"human"`` (a window; requires the extra ``video``)
    :param render_view: ``"front"`` through the camera, ``"chase"`` from behind and above
    :raises ValueError: if an argument is out of range
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
        reward: str | RewardWeights | Mapping[str, float] = "balanced",
        reward_scale: float = 1.0,
        target_speed_mps: float = 30 / 3.6,
        idle_ending: Ending = "truncated",
        goal_ending: Ending = "terminated",
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
            goal_ending=goal_ending,
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
        self._has_state = "state" in observation
        self._has_command = "command" in observation
        _check_command(observation, backend.has_routes)
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
    def has_routes(self) -> bool:
        """Return whether each episode follows a route from a start to a goal."""
        return self._backend.has_routes

    @property
    def vehicle(self) -> VehicleState:
        """Return the current state of the vehicle."""
        return self._backend.state

    def waypoints_m(self, ahead_m: Sequence[float]) -> list[tuple[float, float]]:
        """Return points (x, y) of the lane's centre, in metres, at the distances ``ahead_m`` ahead of the vehicle."""
        return self._backend.waypoints_m(ahead_m)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode on a random map at a random place.

        :param seed: new seed of the random stream; ``None`` continues the stream
        :param options: ``None`` or empty, or ``{"route": n}`` if the environment has routes to a goal; ``n`` is the
            seed of a random route, or the index of a given route
        :return: first observation and info
        :raises ValueError: if ``options`` contains anything else
        """
        route_seed = self._read_options(options)
        super().reset(seed=seed)
        start = self._draw_start(route_seed)
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
        """Apply ``action``, clipped to the action space, during ``frame_skip`` ticks.

        On a closed route, gymnasium's ``TimeLimit`` limits the steps of an episode. A route to a goal has its own time
        limit.

        :param action: ``(2,)``: steer and pedal in [-1, 1]
        :return: observation, reward, terminated, truncated, info
        :raises ValueError: if ``action`` is not of shape ``(2,)`` or not finite
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
        """Return an image for human viewers, ``(480, 640, 3) uint8`` RGB; None unless ``render_mode="rgb_array"``."""
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing without a render mode: make the env with render_mode='rgb_array'")
        if self.render_mode == "rgb_array":
            return self._picture()
        return None  # a window is updated by step() and reset()

    def close(self) -> None:
        """Release the simulator's resources and close the window."""
        self._backend.close()
        if self._window is not None:
            self._window.close()

    def _show(self) -> None:
        """Show the current picture in the window if ``render_mode="human"``."""
        if self._window is not None:
            self._window.show(self._picture(), self.metadata["render_fps"])

    def _picture(self) -> NDArray[np.uint8]:
        """Draw the scene for human viewers, with speed, reward terms and controls, and return the image."""
        picture = self._backend.picture(PICTURE_HEIGHT, PICTURE_WIDTH, self.render_view)
        if self._backend.has_routes:
            draw_route(picture, self._backend.state, self._backend.waypoints_m(ROUTE_AHEAD_M), self.render_view)
        return draw_hud(picture, self._task.info(self._map_name), self._reward_terms, self._control)

    def _read_options(self, options: dict[str, Any] | None) -> int | None:
        """Return the entry ``"route"`` of the options of a reset; None if the options are empty."""
        if not options:
            return None
        if not self._backend.has_routes or set(options) != {"route"}:
            raise ValueError(
                f"options={options!r}: expected no options or, in an env with routes to a goal, {{'route': n}}. To "
                "choose maps, make the env with maps=..."
            )
        return check_count("options['route']", options["route"], 0, 2**63 - 1)

    def _draw_start(self, route_seed: int | None) -> Start:
        """Choose the start of an episode at random.

        :param route_seed: seed of the route; None to draw a random seed
        """
        rng = self.np_random
        # The order of these random choices must stay: another order would give other episodes for the same seed.
        start = Start(
            map_name=self.maps[int(rng.integers(len(self.maps)))],
            position=float(rng.random()),
            lateral_offset_m=float(rng.uniform(-MAX_START_OFFSET_M, MAX_START_OFFSET_M)),
            heading_error_rad=float(rng.uniform(-MAX_START_HEADING_RAD, MAX_START_HEADING_RAD)),
            speed_mps=float(rng.uniform(0.0, self._task.settings.target_speed_mps)),
        )
        # For the same reason a scene seed is chosen only where it changes the scene: worlds without traffic and weather
        # keep the episodes of earlier versions.
        if self._backend.has_varying_scenes:
            start = start._replace(scene_seed=int(rng.integers(2**32)))
        if self._backend.has_routes:
            drawn = int(rng.integers(2**32))
            start = start._replace(route_seed=drawn if route_seed is None else route_seed)
        return start

    def _observation(self) -> Observation:
        """Return the current observation as new arrays."""
        # Grey: (stack, height, width). Colour: (stack, 3, height, width), flattened to (stack * 3, height, width).
        camera = np.empty((self.frame_stack, *self._frames[0].shape), np.uint8)
        for number, frame in enumerate(self._frames):
            camera[number] = frame
        if not self._is_grey:
            camera = camera.reshape(-1, *camera.shape[-2:])
        if not (self._has_state or self._has_command):
            return camera
        observation: dict[str, NDArray[Any]] = {"camera": camera}
        state = self._backend.state
        if self._has_state:
            observation["state"] = vehicle_state_vector(state, self._backend.waypoints_m(WAYPOINTS_AHEAD_M))
        if self._has_command:
            observation["command"] = command_vector(state)
        return observation

    @staticmethod
    def _read_action(action: NDArray[np.float32]) -> tuple[float, float]:
        """Return steer and pedal of an action, clipped to [-1, 1]."""
        # Convert to float64, because the task computes in Python floats; float32 would round differently.
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
    """Return the observation space: camera frames, and state and command if ``observation`` names them."""
    n_channels_per_frame = 1 if len(frame_shape) == 2 else frame_shape[0]
    n_channels = frame_stack * n_channels_per_frame
    camera = gym.spaces.Box(0, 255, (n_channels, *frame_shape[-2:]), np.uint8)
    if observation == "camera":
        return camera
    spaces: dict[str, gym.spaces.Space[Any]] = {"camera": camera}
    if "state" in observation:
        spaces["state"] = gym.spaces.Box(-STATE_LIMIT, STATE_LIMIT, (STATE_SIZE,), np.float32)
    if "command" in observation:
        spaces["command"] = gym.spaces.Box(0.0, 1.0, (COMMAND_SIZE,), np.float32)
    return gym.spaces.Dict(spaces)


_warned: set[str] = set()
"""Warnings that this process has already logged, so that further environments do not repeat them."""


def _check_command(observation: ObservationKind, has_routes: bool) -> None:
    """Raise an error if the observation contains the navigation command on a closed route, which has no commands.

    On routes to a goal, log a warning if the observation does not contain the command: the policy then cannot know
    which way to take at a junction.

    :param has_routes: whether the environment drives routes to a goal, not a closed route
    """
    if "command" in observation and not has_routes:
        raise ValueError(
            f"observation={observation!r} contains the command (where to turn), but a closed route (route='loop') has "
            "no commands: set route='random', or choose an observation without the command"
        )
    if has_routes and "command" not in observation and "command" not in _warned:
        _warned.add("command")
        _LOG.warning(
            "observation=%r: at a junction the policy does not see which way its route takes; "
            "observation='camera+command' shows it",
            observation,
        )


def without_step_limit(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Remove the registered time limit from an environment whose routes have their own time limit.

    The registered limit of 500 steps would end most routes halfway. A limit that the user passes to ``gym.make`` stays.

    :param env: environment as ``gym.make`` has wrapped it
    :return: the same environment, or the one inside its ``TimeLimit`` wrapper
    """
    if not isinstance(env, gym.wrappers.TimeLimit) or not isinstance(env.unwrapped, DrivingEnv):
        return env
    if env.unwrapped.has_routes and isinstance(env._max_episode_steps, RegisteredLimit):
        return env.env
    return env
