"""Cars that the server drives along its map's route, for clients to meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from sb3_visual_td3.envs.carla_emulator.blueprints import CARS, COLOURS
from sb3_visual_td3.envs.carla_emulator.records import Transform
from sb3_visual_td3.envs.carla_emulator.vehicles import CAR, Vehicle
from sb3_visual_td3.envs.road.carla_coordinates import Pose
from sb3_visual_td3.envs.road.track import Track
from sb3_visual_td3.envs.road.traffic import Ego, Traffic, TrafficSettings

ROLE_NAME = "autopilot"
_NOBODY = Ego(0, math.inf, 0.0)
_NEAR_ROAD_M = 15.0

Spawn = Callable[[list[object], Transform], Vehicle]


class CityTraffic:
    """The server's own cars on one map; they keep their lanes and brake for whatever clients spawn there.

    :param n_cars: how many, 0 to 20.
    :param seed: where they begin and how fast they like to drive.
    :raises ValueError: if there are more than 20.
    """

    def __init__(self, n_cars: int, seed: int) -> None:
        self._traffic = Traffic(TrafficSettings(n_cars=n_cars), CAR.body)
        self._seed = seed
        self._vehicles: list[Vehicle] = []

    def enter(self, track: Track, spawn: Spawn) -> None:
        """Put the cars on a map.

        :param track: of the map's route.
        :param spawn: makes a vehicle of a description at a place.
        """
        self._track = track
        self._nearest: dict[int, int] = {}
        self._vehicles = []
        if not self._traffic.settings.n_cars:
            return
        self._traffic.reset(track, 0, self._seed)
        for number, box in enumerate(self._traffic.boxes):
            paint = COLOURS[self._traffic.paints[number] % len(COLOURS)]
            attributes = [["role_name", 4, ROLE_NAME], ["color", 5, paint], ["number_of_wheels", 2, "4"]]
            description = [0, f"vehicle.{CARS[number % len(CARS)]}", [*attributes, ["base_type", 4, "car"]]]
            vehicle = spawn(description, Transform.of_pose(Pose(box.x_m, box.y_m, box.yaw_rad)))
            vehicle.is_of_the_server = True
            vehicle.set_physics(False)
            self._vehicles.append(vehicle)

    def advance(self, dt_s: float, vehicles: Sequence[Vehicle]) -> None:
        """Drive on for one tick.

        :param dt_s: its length.
        :param vehicles: all that there are.
        """
        if not self._vehicles:
            return
        egos = [self._ego(each) for each in vehicles if not each.is_of_the_server and each.is_on_ground]
        self._traffic.advance(dt_s, *(egos or [_NOBODY]))
        for vehicle, box in zip(self._vehicles, self._traffic.boxes, strict=True):
            vehicle.put(Transform.of_pose(Pose(box.x_m, box.y_m, box.yaw_rad)))

    def halt(self, vehicle: Vehicle) -> None:
        """Stop a car that has struck something."""
        if vehicle in self._vehicles:
            self._traffic.cars[self._vehicles.index(vehicle)].speed_mps = 0.0

    def remove(self, vehicle: Vehicle) -> None:
        """Let a car go that a client has destroyed."""
        if vehicle in self._vehicles:
            number = self._vehicles.index(vehicle)
            del self._vehicles[number]
            self._traffic.remove(number)

    def _ego(self, vehicle: Vehicle) -> Ego:
        x, y, yaw = vehicle.pose
        track = self._track
        nearest = self._nearest.get(vehicle.number)
        if nearest is None or np.hypot(*(track.points_m[nearest] - (x, y))) > _NEAR_ROAD_M:
            nearest = int(np.argmin(np.linalg.norm(track.points_m - (x, y), axis=1)))
        lane = track.locate(x, y, nearest)
        self._nearest[vehicle.number] = lane.nearest
        speed_mps = math.hypot(*vehicle.velocity[:2])
        return Ego(lane.nearest, lane.lateral_offset_m, speed_mps * math.cos(yaw - lane.heading_rad))
