"""Define ``LiteDriving-v0`` and ``LiteRoutes-v0``: the driving task in the embedded world.

The embedded world is a small simulator inside the Python process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from sb3_visual_td3.envs.backend import Control, PictureView, RestorableBackend
from sb3_visual_td3.envs.driving_env import DrivingEnv, Observation, ObservationKind
from sb3_visual_td3.envs.lite.view import CameraSettings
from sb3_visual_td3.envs.lite.weather import Weather
from sb3_visual_td3.envs.lite.world import LiteWorld
from sb3_visual_td3.envs.rewards import RewardWeights
from sb3_visual_td3.envs.road.maps import MAP_GROUPS, ROUTE_MAP_GROUPS
from sb3_visual_td3.envs.road.route_files import route_settings
from sb3_visual_td3.envs.road.route_maps import load_route_map
from sb3_visual_td3.envs.road.route_planning import NoRouteError, has_random_route
from sb3_visual_td3.envs.road.route_settings import Pair, check_given
from sb3_visual_td3.envs.road.street_life import StreetLife
from sb3_visual_td3.envs.road.traffic import TrafficSettings
from sb3_visual_td3.envs.task import Ending

STATE_FORMAT = 1
"""Version of the saved states; increased when an older state can no longer be read."""


class RestorableDrivingEnv(DrivingEnv):
    """Save and restore the state of a ``DrivingEnv``, so that an interrupted run continues bit for bit."""

    _backend: RestorableBackend

    def get_state(self) -> dict[str, Any]:
        """Return the complete state of the environment, from which ``set_state`` continues the episode.

        The number of elapsed steps is not part of the state: gymnasium's ``TimeLimit`` wrapper counts the steps.

        :return: plain Python values, and ``frames`` as an array ``(frame_stack, *frame_shape) uint8``
        """
        return {
            "format": STATE_FORMAT,
            "frame_skip": self.frame_skip,
            "random": self.np_random.bit_generator.state,
            "frames": np.array(self._frames, dtype=np.uint8),
            "map_name": self._map_name,
            "control": list(self._control),
            "reward_terms": dict(self._reward_terms),
            "task": self._task.get_state(),
            "world": self._backend.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> Observation:
        """Continue from a saved state, in this environment or in another environment with the same settings.

        :param state: the state that ``get_state`` returned
        :return: the observation at the time of the saved state
        :raises ValueError: if ``state`` has a different format, or comes from an environment with other frames, another
            step length, or other settings of routes, traffic, lights or pedestrians
        """
        frames = np.asarray(state.get("frames", ()), dtype=np.uint8)
        expected = (self.frame_stack, *self._backend.frame_shape)
        if state.get("format") != STATE_FORMAT or frames.shape != expected:
            raise ValueError(
                f"the state has format {state.get('format')!r} and frames of shape {frames.shape}: expected format "
                f"{STATE_FORMAT} and frames of shape {expected}; make the env with the settings of the saved env"
            )
        # States of earlier versions do not have ``frame_skip``.
        if state.get("frame_skip", self.frame_skip) != self.frame_skip:
            raise ValueError(
                f"the state was saved with frame_skip={state['frame_skip']}, but this env has "
                f"frame_skip={self.frame_skip}: make the env with the settings of the saved env"
            )
        # The world is restored first, because the task takes the vehicle's state from the world.
        self._backend.set_state(state["world"])
        self._task.set_state(state["task"], self._backend.state)
        self.np_random.bit_generator.state = state["random"]
        self._map_name = state["map_name"]
        self._control = Control(*state["control"])
        self._reward_terms = dict(state["reward_terms"])
        # The frames are copied, because the caller's array may change later and the deque holds references.
        self._frames.extend(frame.copy() for frame in frames)
        return self._observation()


class LiteDrivingEnv(RestorableDrivingEnv):
    """Drive in the embedded world, a small simulator inside the Python process; no CARLA is needed.

    ``DrivingEnv`` describes observations and actions.

    :param frame_stack: number of camera frames in an observation, 1 to 16
    :param frame_skip: ticks of the simulator per step, 1 to 100
    :param dt_s: length of a tick, 0.001 to 0.2 s
    :param maps: ``"train"``, ``"held_out"``, or the names of one or more maps. The path of an OpenDRIVE file
        (``.xodr``) is a valid name too; such files require the extra ``carla``. Each episode takes one map at random.
    :param n_cars: number of other cars, 0 to 20; on routes to a goal, a short map has fewer
    :param traffic_lights: True for the lights of a map file, or for lights at junctions of a built-in map. Only colour
        frames (``grayscale=False``) show the policy which lamp is on.
    :param n_walkers: number of pedestrians who cross the route, 0 to 50
    :param route: ``"loop"`` for the longest closed lane, which has no end. For routes to a goal: ``"random"`` for a
        random start and goal; ``"file"`` for the routes of ``route_file``; or a list of ``(start, goal)``, each
        ``(x, y)`` or ``(x, y, heading_rad)`` in the map's coordinates. Each episode takes one route at random.
    :param route_file: an XML file of routes in the format of CARLA's leaderboard (1.0, 2.0 or 2.1), for
        ``route="file"``
    :param route_length_m: least and greatest length of a random route, in metres
    :param route_turns: least and greatest number of turns of a random route
    :param observation: ``"camera"``, ``"camera+state"``; on routes to a goal also ``"camera+command"`` and
        ``"camera+state+command"``
    :param image_size: height and width of a frame, an even number from 32 to 512
    :param grayscale: True for grey frames, False for RGB with ``3 * frame_stack`` channels
    :param weather: ``"clear"``, ``"rain"``, ``"night"``, or ``"random"``, which changes with every episode
    :param noise_std: standard deviation of the camera's noise in grey levels, 0 to 100
    :param blur: standard deviation of the camera's blur in pixels, 0 to 10
    :param reward: ``"balanced"``, ``"progress_heavy"``, a ``RewardWeights``, or a mapping with the weights that differ
        from ``"balanced"``, such as ``{"accident": 1.0}``
    :param reward_scale: factor on the reward and on each of its terms, above 0
    :param target_speed_mps: the speed with the highest reward, in m/s
    :param idle_ending: how an episode ends when the vehicle stands still: ``"truncated"``, or ``"terminated"``, which
        counts as an accident
    :param goal_ending: how an episode ends at the goal of a route: ``"terminated"`` or ``"truncated"``. With
        ``"truncated"`` an algorithm bootstraps as if the route continued.
    :param render_mode: ``None``, ``"rgb_array"`` or ``"human"`` (a window; requires the extra ``video``)
    :param render_view: ``"front"`` through the camera, ``"chase"`` from behind and above
    :raises ValueError: if an argument is out of range
    """

    _map_groups: Mapping[str, Sequence[str]] = MAP_GROUPS

    def __init__(
        self,
        *,
        frame_stack: int = 4,
        frame_skip: int = 2,
        dt_s: float = 0.05,
        maps: str | Sequence[str] = "train",
        n_cars: int = 0,
        traffic_lights: bool = False,
        n_walkers: int = 0,
        route: str | Sequence[Pair] = "loop",
        route_file: str | PathLike[str] | None = None,
        route_length_m: tuple[float, float] = (200.0, 800.0),
        route_turns: tuple[int, int] = (0, 8),
        observation: ObservationKind = "camera",
        image_size: int = 84,
        grayscale: bool = True,
        weather: Weather = "clear",
        noise_std: float = 0.0,
        blur: float = 0.0,
        reward: str | RewardWeights | Mapping[str, float] = "balanced",
        reward_scale: float = 1.0,
        target_speed_mps: float = 30 / 3.6,
        idle_ending: Ending = "truncated",
        goal_ending: Ending = "terminated",
        render_mode: str | None = None,
        render_view: PictureView = "front",
    ) -> None:
        routes = route_settings(route, route_file, route_length_m, route_turns)
        world = LiteWorld(
            tick_s=dt_s,
            camera=CameraSettings(
                image_size=image_size, grayscale=grayscale, weather=weather, noise_std=noise_std, blur=blur
            ),
            traffic=TrafficSettings(n_cars=n_cars),
            routes=routes,
            map_groups=self._map_groups,
            street_life=StreetLife(traffic_lights, n_walkers),
        )
        super().__init__(
            world,
            frame_stack=frame_stack,
            frame_skip=frame_skip,
            maps=maps,
            observation=observation,
            reward=reward,
            reward_scale=reward_scale,
            target_speed_mps=target_speed_mps,
            idle_ending=idle_ending,
            goal_ending=goal_ending,
            render_mode=render_mode,
            render_view=render_view,
        )
        check_given(routes, self.maps)
        self._routes = routes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; see ``DrivingEnv.reset``.

        :param seed: new seed of the random stream; ``None`` continues the stream
        :param options: ``None`` or empty, or ``{"route": n}`` if the environment has routes to a goal
        :return: first observation and info
        :raises ValueError: if ``options`` contains anything else, or the map has no route as requested
        """
        try:
            return super().reset(seed=seed, options=options)
        except NoRouteError as error:
            if len(self.maps) == 1:
                raise
            # All maps are named at once, because the next episodes may take another map without a route.
            ranges = self._routes.length_m, self._routes.turns
            without = [name for name in self.maps if not has_random_route(load_route_map(name).graph, *ranges)]
            raise NoRouteError(f"{error}; of maps={list(self.maps)}, these have no such route: {without}") from error


class LiteRoutesEnv(LiteDrivingEnv):
    """Drive random routes to a goal in networks of streets; the same as ``LiteDrivingEnv`` with other defaults.

    :param maps: as in ``LiteDrivingEnv``, but ``"train"`` and ``"held_out"`` are networks of streets
    :param route: as in ``LiteDrivingEnv``
    :param observation: as in ``LiteDrivingEnv``. None stands for ``"camera"`` on the route ``"loop"``, and for
        ``"camera+command"`` on other routes.
    :param kwargs: other arguments of ``LiteDrivingEnv``
    """

    _map_groups = ROUTE_MAP_GROUPS

    def __init__(
        self,
        *,
        maps: str | Sequence[str] = "train",
        route: str | Sequence[Pair] = "random",
        observation: ObservationKind | None = None,
        **kwargs: Any,
    ) -> None:
        if observation is None:
            observation = "camera" if isinstance(route, str) and route == "loop" else "camera+command"
        super().__init__(maps=maps, route=route, observation=observation, **kwargs)
