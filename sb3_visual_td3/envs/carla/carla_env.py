"""Define ``CarlaDriving-v0``: the driving task in CARLA, through CARLA's official client."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.tags import REWARD_TERMS
from sb3_visual_td3.common.types import INVALID_TRANSITION, SIMULATOR_FAILURE
from sb3_visual_td3.envs.arguments import check_count, check_quantity
from sb3_visual_td3.envs.backend import CAMERA_AHEAD_M, CAMERA_HEIGHT_M, PictureView
from sb3_visual_td3.envs.carla.backend import LOADED_MAP, MAP_GROUPS, CarlaBackend, Scenery, check_weather
from sb3_visual_td3.envs.carla.failures import SimulatorAbsentError, SimulatorLostError, SimulatorUnusableError
from sb3_visual_td3.envs.carla.server import Address
from sb3_visual_td3.envs.carla.settings import DEFAULT_PORT, CameraMount, ServerSettings, VehicleChoice
from sb3_visual_td3.envs.carla.spawning import SpawnPolicy, check_spawn
from sb3_visual_td3.envs.driving_env import DrivingEnv, Observation, ObservationKind
from sb3_visual_td3.envs.rewards import RewardWeights
from sb3_visual_td3.envs.road.carla_coordinates import map_name_of
from sb3_visual_td3.envs.road.route_files import route_settings
from sb3_visual_td3.envs.road.route_settings import Pair, check_given
from sb3_visual_td3.envs.road.traffic import TrafficSettings
from sb3_visual_td3.envs.task import Ending

_LOG = logging.getLogger("sb3_visual_td3")
_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 5.0
# The environment gives up if a running server refuses this many requests before the first episode has started.
_MAX_REFUSALS = 3
# The client's message for a timeout: "time-out of 1500ms while waiting for the simulator".
_TIMEOUT_TEXT = "time-out"


class CarlaDrivingEnv(DrivingEnv):
    """Drive in CARLA, with the observations, actions and rewards of ``LiteDriving-v0``; see ``DrivingEnv``.

    Nothing is connected or started before the first ``reset()``. Only the environment ticks the simulator, in
    synchronous mode.

    If the simulator fails, the step returns the last observation with reward 0, ``truncated=True`` and
    ``info["invalid_transition"]=True``. VisualTD3 does not store such a step; for other algorithms, use
    ``sb3_visual_td3.buffers.valid_transitions``. The next ``reset()`` reconnects to the simulator or restarts it.

    :param host: machine that runs CARLA
    :param port: port of a running server, or a list of ports. From a list, each environment takes a port that no other
        environment uses.
    :param command: command that starts the simulator, such as ``"./CarlaUE4.sh -RenderOffScreen"``; ``None`` connects
        to a running server. ``{port}`` in the command stands for the port; without ``{port}``,
        ``-carla-rpc-port=PORT`` is appended. With a command, each environment starts its own simulator, and
        ``port`` is the first port that it tries.
    :param town: map, such as ``"Town01"`` or ``"/Game/Carla/Maps/Town01"``; ``None`` for the map that the server has
        loaded
    :param maps: instead of ``town``: ``"train"`` (Town01), ``"held_out"`` (Town02), or the names of maps. Each
        episode takes one of them at random.
    :param weather: ``"clear"``, ``"rain"``, ``"night"``, ``"random"`` (one of these for each episode), or one of
        CARLA's presets
    :param route: as in ``LiteDriving-v0``: ``"loop"``, ``"random"``, ``"file"`` or a list of ``(start, goal)``. A place
        is ``(x, y)`` or ``(x, y, heading_rad)`` in OpenDRIVE's coordinates: CARLA's y has the opposite sign.
    :param route_file: XML file of routes in the format of CARLA's leaderboard, for ``route="file"``
    :param route_length_m: least and greatest length of a random route, in metres
    :param route_turns: least and greatest number of left and right turns on a random route
    :param n_cars: number of other cars, 0 to 20; a short map has fewer. This package drives the cars, not CARLA's
        Traffic Manager.
    :param traffic_lights: if True, running a red light costs reward, and waiting at a red light does not count as
        standing still (see ``idle_ending``). Only colour frames (``grayscale=False``) show which lamp is on.
    :param n_walkers: number of pedestrians who cross the route, 0 to 50
    :param spawn: starting places. On the closed route: ``"route"`` for any place, ``"points"`` for the map's spawn
        points on the route, or the index of one of them in the map's list. With ``route="random"``: ``"route"`` for
        starts and goals anywhere on the map, ``"points"`` for starts and goals at spawn points.
    :param blueprint: the vehicle's blueprint
    :param role_name: the vehicle's role. When the environment connects, it removes all actors that have this role.
    :param frame_stack: number of camera frames in an observation, 1 to 16
    :param frame_skip: ticks of the simulator per step, 1 to 100
    :param dt_s: length of a tick, 0.001 to 0.1 s
    :param observation: ``"camera"``, ``"camera+state"``; on routes to a goal also ``"camera+command"`` and
        ``"camera+state+command"``
    :param image_size: height and width of the policy's frames, 32 to 512
    :param grayscale: whether frames are grey; ``False`` gives RGB, with ``3 * frame_stack`` channels
    :param camera_width: width of the rendered image, which is scaled down; ``None`` for ``image_size``
    :param camera_height: height of the rendered image; ``None`` for ``image_size``
    :param camera_fov_deg: horizontal field of view in degrees
    :param camera_position_m: position forward, right and up from the vehicle's origin, in metres
    :param camera_rotation_deg: pitch, yaw and roll in CARLA's convention, in degrees
    :param camera_attributes: further attributes of CARLA's camera
    :param reward: ``"balanced"``, ``"progress_heavy"``, a ``RewardWeights``, or a mapping with the weights that differ
        from ``"balanced"``
    :param reward_scale: number above 0 by which the reward and each of its terms are multiplied
    :param target_speed_mps: speed with the highest reward, in m/s
    :param idle_ending: how an episode ends when the vehicle stands still: ``"truncated"``, or ``"terminated"``, which
        counts as an accident
    :param goal_ending: how an episode ends at the goal: ``"terminated"`` or ``"truncated"``; see ``DrivingEnv``
    :param timeout_s: longest wait for an answer, a tick or an image, in seconds
    :param start_timeout_s: longest wait for a simulator that starts or loads a map, in seconds
    :param patience_s: seconds for which to keep reconnecting to a simulator that failed or is starting
    :param restart_every: episodes after which the simulator is restarted, because CARLA's memory grows. Needs
        ``command``.
    :param shares_server: True if another environment uses the same server. The environment that calls ``reset()`` takes
        over the server, and the episode of the other environment ends as after a failure. Not with ``command``.
    :param seed: seed of the environment's random stream, until ``reset(seed=...)`` sets another
    :param render_mode: ``None``, ``"rgb_array"`` or ``"human"`` (a window; needs the extra ``video``)
    :param render_view: ``"front"`` through the windscreen, ``"chase"`` from behind and above
    :raises ValueError: if an argument is invalid
    """

    _backend: CarlaBackend

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | Sequence[int] = DEFAULT_PORT,
        command: str | None = None,
        town: str | None = None,
        maps: str | Sequence[str] | None = None,
        weather: str = "clear",
        route: str | Sequence[Pair] = "loop",
        route_file: str | PathLike[str] | None = None,
        route_length_m: tuple[float, float] = (200.0, 800.0),
        route_turns: tuple[int, int] = (0, 8),
        n_cars: int = 0,
        traffic_lights: bool = False,
        n_walkers: int = 0,
        spawn: SpawnPolicy = "route",
        blueprint: str = "vehicle.tesla.model3",
        role_name: str = "hero",
        frame_stack: int = 4,
        frame_skip: int = 2,
        dt_s: float = 0.05,
        observation: ObservationKind = "camera",
        image_size: int = 84,
        grayscale: bool = True,
        camera_width: int | None = None,
        camera_height: int | None = None,
        camera_fov_deg: float = 90.0,
        camera_position_m: tuple[float, float, float] = (CAMERA_AHEAD_M, 0.0, CAMERA_HEIGHT_M),
        camera_rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
        camera_attributes: Mapping[str, str] | None = None,
        reward: str | RewardWeights | Mapping[str, float] = "balanced",
        reward_scale: float = 1.0,
        target_speed_mps: float = 30 / 3.6,
        idle_ending: Ending = "truncated",
        goal_ending: Ending = "terminated",
        timeout_s: float = 10.0,
        start_timeout_s: float = 120.0,
        patience_s: float = 600.0,
        restart_every: int | None = None,
        shares_server: bool = False,
        seed: int | None = None,
        render_mode: str | None = None,
        render_view: PictureView = "front",
    ) -> None:
        names = _map_names(town, maps)
        routes = route_settings(route, route_file, route_length_m, route_turns)
        spawn = check_spawn(spawn)
        if routes.has_goals and not (spawn == "route" or (spawn == "points" and routes.kind == "random")):
            raise ValueError(
                f"spawn={spawn!r}: expected spawn='route', because route={route!r} has its own start. Only "
                "route='random' also accepts spawn='points'"
            )
        backend = CarlaBackend(
            ServerSettings(
                host, port, command, timeout_s, start_timeout_s, patience_s, restart_every, is_shared=shares_server
            ),
            tick_s=check_quantity("dt_s", dt_s, 0.001, 0.1, "s"),
            vehicle=VehicleChoice(blueprint, role_name),
            mount=CameraMount(
                image_size,
                grayscale,
                camera_width,
                camera_height,
                camera_fov_deg,
                tuple(camera_position_m),  # type: ignore[arg-type]  # CameraMount checks the length
                tuple(camera_rotation_deg),  # type: ignore[arg-type]
                dict(camera_attributes or {}),
            ),
            scenery=Scenery(check_weather(weather), TrafficSettings(n_cars=n_cars), spawn, traffic_lights, n_walkers),
            maps=names,
            routes=routes,
        )
        super().__init__(
            backend,
            frame_stack=frame_stack,
            frame_skip=frame_skip,
            maps=names,
            observation=observation,
            reward=reward,
            reward_scale=reward_scale,
            target_speed_mps=target_speed_mps,
            idle_ending=idle_ending,
            goal_ending=goal_ending,
            render_mode=render_mode,
            render_view=render_view,
        )
        # The name of the map that the server has loaded is not known yet.
        check_given(routes, [name for name in names if name != LOADED_MAP])
        self.n_simulator_failures = 0
        self._patience_s = patience_s
        self._has_driven = False
        """Whether an episode has ever started."""
        self._is_driving = False
        """Whether an episode is running."""
        self._was_simulator_seen = False
        """Whether this environment has ever found or started a simulator, even one that failed later."""
        self._failure_reason = ""
        """Reason of a failure between two steps, which the next step reports; empty if there was none."""
        if seed is not None:
            self._np_random_seed = check_count("seed", seed, 0, 2**63)
            self._np_random = np.random.default_rng(seed)

    @property
    def server_address(self) -> tuple[str, int] | None:
        """Return host and port of the server; None before the first reset."""
        return self._backend.server.address

    def share_server(self, host: str, port: int) -> None:
        """Use the server of another environment; see ``shares_server``.

        :param host: the server's host
        :param port: the server's RPC port
        """
        self._backend.share(Address(host, port))

    def lend_server(self) -> None:
        """Disconnect from the server, so that another environment can use it.

        If an episode is running, the next ``step()`` ends it, as after a failure.
        """
        self._backend.withdraw()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode. If the simulator has failed, reconnect to it or restart it first.

        :param seed: new seed of the random stream; ``None`` continues the stream
        :param options: as in ``DrivingEnv.reset``
        :return: first observation and info
        :raises ValueError: if ``options`` is invalid
        :raises SimulatorUnusableError: if the simulator cannot be used as requested, does not come back within
            ``patience_s``, or was never reached
        """
        # Keep the state of the random stream, so that a retry draws the same start: failures do not change the
        # episodes.
        stream = None if seed is not None else self.np_random.bit_generator.state
        pauses = _pauses(self._patience_s)
        n_refusals = 0
        while True:
            try:
                result = super().reset(seed=seed, options=options)
            except SimulatorLostError as failure:
                pause_s = next(pauses, None)
                n_refusals += self._is_refusal(failure)
                # Give up if patience has run out, a live server keeps refusing, or there never was a server.
                if pause_s is None or n_refusals >= _MAX_REFUSALS or self._is_hopeless(failure):
                    self._backend.lose(restart=True)
                    self._is_driving = False
                    raise SimulatorUnusableError(self._final_message(failure)) from failure
                self._record_failure(failure, "reset", restart=True)
                time.sleep(pause_s)
                if stream is not None:
                    self.np_random.bit_generator.state = stream
            else:
                self._has_driven = self._is_driving = True
                self._failure_reason = ""
                return result

    def _is_hopeless(self, failure: SimulatorLostError) -> bool:
        """Return whether a retry is useless, because this environment has never found a simulator."""
        if not isinstance(failure, SimulatorAbsentError):
            self._was_simulator_seen = True
        return not (self._was_simulator_seen or self._has_driven or self._backend.server.is_shared)

    def _is_refusal(self, failure: SimulatorLostError) -> bool:
        """Return whether a running server has refused a request before the first episode of this environment.

        A timeout is not a refusal, because a server that loads its map does not answer. On a shared server no failure
        is a refusal.
        """
        if self._has_driven or self._backend.server.is_shared or _TIMEOUT_TEXT in str(failure):
            return False
        return self._backend.server.answers()

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an action for ``frame_skip`` ticks. If the simulator fails, end the episode.

        :param action: ``(2,) float32``: steering, and a pedal (above 0 throttle, below 0 brake), in [-1, 1]
        :return: observation, reward, terminated, truncated, info
        :raises ValueError: if ``action`` does not have the shape ``(2,)`` or is not finite
        :raises gymnasium.error.ResetNeeded: before the first reset, after ``close()``, and after a step in which the
            simulator failed
        """
        # The connection was lost between two steps: in render(), or because another environment took the server.
        if self._is_driving and not self._backend.is_connected:
            return self._invalid_step(self._failure_reason or "another environment took over this server")
        if not self._is_driving:
            raise gym.error.ResetNeeded(
                "no episode is running: call reset() before the first step, after a step with truncated=True, "
                "and after close()"
            )
        try:
            return super().step(action)
        except SimulatorLostError as failure:
            self._record_failure(failure, "step", restart=False)
            return self._invalid_step(str(failure))

    def render(self) -> NDArray[np.uint8] | None:
        """Return an image of the scene for human viewers; the previous image if the simulator has failed.

        After a failure, the next step ends the episode.

        :return: ``(height, width, 3) uint8``, RGB; None unless ``render_mode="rgb_array"``
        """
        try:
            return super().render()
        except SimulatorLostError as failure:
            self._record_failure(failure, "render", restart=False)
            self._failure_reason = str(failure)
            return super().render()

    def close(self) -> None:
        """Disconnect from the simulator, and end it if this environment started it; the next step needs a reset."""
        super().close()
        self._is_driving = False

    def _invalid_step(self, reason: str) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Return the result of a step in which the simulator failed: the last observation, reward 0 and truncation."""
        self._is_driving, self._failure_reason = False, ""
        info = {
            "reward_terms": dict.fromkeys(REWARD_TERMS, 0.0),
            **self._task.info(self._map_name),
            "is_success": False,
            INVALID_TRANSITION: True,
            SIMULATOR_FAILURE: reason,
        }
        return self._observation(), 0.0, False, True, info

    def _record_failure(self, failure: SimulatorLostError, where: str, *, restart: bool) -> None:
        self.n_simulator_failures += 1
        _LOG.warning("simulator failure %d, in %s(): %s", self.n_simulator_failures, where, failure)
        self._backend.lose(restart=restart)

    def _final_message(self, failure: SimulatorLostError) -> str:
        if not self._has_driven:
            return str(failure)
        return (
            f"the simulator did not come back within patience_s={self._patience_s:g} s; restart it, or increase "
            f"patience_s. The last error was: {failure}"
        )


def _map_names(town: str | None, maps: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the maps for episodes, from the arguments ``town`` and ``maps``."""
    if town is not None and maps is not None:
        raise ValueError(
            f"town={town!r} and maps={maps!r}: expected only one of them; town={town!r} means maps=[{town!r}]"
        )
    given: tuple[object, ...] = ()
    if town is not None:
        given = (town,)
    elif maps is None:
        given = (LOADED_MAP,)
    elif isinstance(maps, str):
        given = MAP_GROUPS.get(maps, (maps,))
    elif isinstance(maps, Iterable):
        given = tuple(maps)
    if given == (LOADED_MAP,):
        return (LOADED_MAP,)
    # CARLA lists its maps by their paths, such as "/Game/Carla/Maps/Town01".
    names = tuple(map_name_of(name) for name in given if isinstance(name, str) and name)
    if not names or "" in names or len(names) != len(given) or len(set(names)) != len(names):
        argument = f"maps={maps!r}" if town is None else f"town={town!r}"
        raise ValueError(f"{argument}: expected the names of maps, each once, such as 'Town01'")
    return names


def _pauses(patience_s: float) -> Iterator[float]:
    """Yield the pause before each new attempt of a reset, in seconds, until ``patience_s`` has passed.

    The first pause is 0.1 s, and each further pause is twice as long, up to 5 s.
    """
    end_s, pause_s = time.monotonic() + patience_s, _FIRST_PAUSE_S
    while time.monotonic() < end_s:
        yield min(pause_s, max(0.0, end_s - time.monotonic()))
        pause_s = min(_MAX_PAUSE_S, 2.0 * pause_s)
