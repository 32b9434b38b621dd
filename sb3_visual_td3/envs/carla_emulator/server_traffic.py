"""Drive the emulator's own cars on any map, with the model in ``graph_traffic`` that all simulators share."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sb3_visual_td3.envs.arguments import check_count
from sb3_visual_td3.envs.carla_emulator.actors import Vehicle
from sb3_visual_td3.envs.carla_emulator.catalogue import CARS, COLOURS
from sb3_visual_td3.envs.carla_emulator.protocol import CallError, Transform
from sb3_visual_td3.envs.road.graph_traffic import GraphCar, GraphTraffic, RoadUser, TrafficMap
from sb3_visual_td3.envs.road.lane_graph import LaneGraph

MAX_SERVER_CARS = 100
_MIN_DESIRED_MPS, _MAX_DESIRED_MPS = 5.0, 8.0
_CLEAR_M = 20.0
"""No car starts this close to the first spawn point, so that a client always finds it free."""
# CARLA's role name for vehicles that no client controls.
_ROLE_NAME = "autopilot"


@dataclass(eq=False, kw_only=True)
class ServerCar(GraphCar):
    """Hold a car of the traffic model; its id is the id of its vehicle actor."""

    vehicle: Vehicle


SpawnVehicle = Callable[[list[object], Transform], Vehicle]


class ServerTraffic(GraphTraffic[ServerCar]):
    """Drive the server's own cars on one map at a time.

    :param n_cars: number of cars, 0 to 100; a short map has only as many as fit
    :param seed: seed of the cars' starting places, colours, speeds and routes
    :raises ValueError: if ``n_cars`` is out of range
    """

    def __init__(self, n_cars: int, seed: int) -> None:
        super().__init__()
        self._n_cars = check_count("n_cars", n_cars, 0, MAX_SERVER_CARS)
        self._seed = seed

    def spawn(self, graph: LaneGraph, keep_free: Transform, spawn_vehicle: SpawnVehicle) -> None:
        """Spawn the cars on a new map.

        :param graph: the lanes of the map
        :param keep_free: a place near which no car starts
        :param spawn_vehicle: creates a vehicle from a description and a transform
        """
        traffic_map = TrafficMap(graph)
        self.enter(traffic_map)
        if not self._n_cars:
            return
        rng = random.Random(self._seed)
        clear = keep_free.pose
        for segment, along_m in _spread(traffic_map.slots(), self._n_cars, rng):
            if len(self.cars) == self._n_cars:
                break
            pose = traffic_map.line(segment).pose_at(along_m)
            if math.hypot(pose.x_m - clear.x_m, pose.y_m - clear.y_m) < _CLEAR_M:
                continue
            number = len(self.cars)
            try:
                vehicle = spawn_vehicle(_description(number, rng), Transform.from_pose(pose))
            except CallError:  # where lanes overlap, another car already stands here
                continue
            vehicle.is_server_traffic = True
            # The traffic model moves this vehicle, so the physics of the vehicle is off.
            vehicle.set_physics(False)
            desired_mps = rng.uniform(_MIN_DESIRED_MPS, _MAX_DESIRED_MPS)
            # Each car has its own generator, so that its route does not depend on the order in which cars reach
            # junctions.
            own_rng = random.Random(self._seed * (MAX_SERVER_CARS + 1) + number + 1)
            car = ServerCar(
                vehicle.id,
                vehicle.extent_m[0],
                [segment],
                along_m,
                desired_mps,
                own_rng.choice,
                0.5 * desired_mps,
                vehicle=vehicle,
            )
            self.cars.append(car)

    def drive(self, dt_s: float, vehicles: Sequence[Vehicle]) -> None:
        """Move the server's cars for one tick.

        :param dt_s: length of the tick in seconds
        :param vehicles: all vehicles on the map
        """
        if not self.cars:
            return
        foreign = [each for each in vehicles if not each.is_server_traffic and each.is_on_ground]
        self.advance(dt_s, map(_road_user, foreign))
        for car in self.cars:
            car.vehicle.place(self.pose_of(car))

    def halt(self, vehicle: Vehicle) -> None:
        """Stop a car of the traffic after a collision; vehicles of clients are ignored."""
        for car in self.cars:
            if car.vehicle is vehicle:
                car.speed_mps = 0.0

    def remove(self, vehicle: Vehicle) -> None:
        """Remove a car from the traffic, because a client has destroyed its vehicle."""
        self.cars = [car for car in self.cars if car.vehicle is not vehicle]


def _road_user(vehicle: Vehicle) -> RoadUser:
    """Return a client's vehicle in the form that the traffic model needs."""
    speed_mps = math.hypot(*vehicle.velocity[:2])
    return RoadUser(vehicle.id, vehicle.pose, vehicle.extent_m[0], vehicle.extent_m[1], speed_mps)


def _spread(slots: list[tuple[int, float]], n_cars: int, rng: random.Random) -> list[tuple[int, float]]:
    """Order the places at which cars can start, so that the first ``n_cars`` places are spread over the map."""
    if not slots:
        return []
    first = rng.randrange(len(slots))
    chosen = [(first + number * len(slots) // n_cars) % len(slots) for number in range(min(n_cars, len(slots)))]
    rng.shuffle(chosen)
    others = sorted(set(range(len(slots))) - set(chosen))
    rng.shuffle(others)
    return [slots[number] for number in (*chosen, *others)]


def _description(number: int, rng: random.Random) -> list[object]:
    """Return the description of a car of the traffic, as a client would send it."""
    # The numbers are attribute types: 2 int, 4 string, 5 RGB.
    attributes = [
        ["role_name", 4, _ROLE_NAME],
        ["color", 5, rng.choice(COLOURS)],
        ["number_of_wheels", 2, "4"],
        ["base_type", 4, "car"],
    ]
    return [0, f"vehicle.{CARS[number % len(CARS)]}", attributes]
