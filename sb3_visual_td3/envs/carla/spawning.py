"""Choose where episodes start on a server's map, and spawn the other cars of an episode.

This package's own traffic model moves the other cars, because CARLA's Traffic Manager is not reproducible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.envs.carla.connection import Connection, client_library, lost_on_error
from sb3_visual_td3.envs.carla.failures import SimulatorLostError, SimulatorUnusableError
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION, LaneGraph, LanePlace
from sb3_visual_td3.envs.road.route_traffic import RouteTraffic
from sb3_visual_td3.envs.road.shapes import Pose
from sb3_visual_td3.envs.road.track import Track
from sb3_visual_td3.envs.road.traffic import Traffic

SpawnPolicy = str | int
# A spawn point that is farther than this from the lane's centre, or from its direction, belongs to another lane.
_MAX_OFFSET_M = 1.5
_MAX_TURN_RAD = math.radians(45.0)


def check_spawn(spawn: object) -> SpawnPolicy:
    """Return where episodes start: ``"route"``, ``"points"``, or the index of one of the map's spawn points.

    :param spawn: the environment's argument
    :raises ValueError: if the value is something else
    """
    if isinstance(spawn, str) and spawn in ("route", "points"):
        return spawn
    expected = "'route' (anywhere on the route), 'points' (spawn points on the route), or the number of such a point"
    return to_integer("spawn", spawn, 0, expected)


def starts_on(track: Track, points: Sequence[Pose], spawn: SpawnPolicy) -> list[int] | None:
    """Return the points of the track at which an episode may start.

    :param track: the closed route
    :param points: the map's spawn points
    :param spawn: ``"route"``, ``"points"`` or the index of a spawn point; see :func:`check_spawn`
    :return: indices of points of the track; None if an episode may start at every point
    :raises SimulatorUnusableError: for ``"points"``, if no spawn point lies on the route; for an index, if the spawn
        point with this index does not lie on the route
    """
    if spawn == "route":
        return None
    on_route: dict[int, int] = {}
    for number, point in enumerate(points):
        index = _index_on(track, point)
        if index is not None:
            on_route[number] = index
    if spawn == "points":
        if not on_route:
            raise SimulatorUnusableError(
                "spawn='points': no spawn point of this map lies on the route; use spawn='route'"
            )
        return sorted(on_route.values())
    if spawn not in on_route:
        raise SimulatorUnusableError(
            f"spawn={spawn}: expected the number of a spawn point on the route; choose from {sorted(on_route)}"
        )
    return [on_route[int(spawn)]]


def _index_on(track: Track, point: Pose) -> int | None:
    """Return the index of the track's point closest to a spawn point; None for a spawn point of another lane."""
    squares = ((track.points_m - point[:2]) ** 2).sum(axis=1)
    index = int(squares.argmin())
    turn_rad = math.remainder(point.heading_rad - float(track.headings_rad[index]), 2.0 * math.pi)
    if squares[index] > _MAX_OFFSET_M**2 or abs(turn_rad) > _MAX_TURN_RAD:
        return None
    return index


def places_on(graph: LaneGraph, points: Sequence[Pose]) -> list[LanePlace]:
    """Return the places on lanes at which spawn points lie; spawn points in junctions are left out.

    :param graph: the lanes of the map
    :param points: the map's spawn points
    """
    places = []
    for point in points:
        for _, place in graph.places_near(point.x_m, point.y_m, _MAX_OFFSET_M):
            segment = graph.segments[place.segment]
            begin_rad, end_rad = segment.headings_rad
            # The direction halfway is exact enough to distinguish the two directions of a road.
            middle_rad = begin_rad + 0.5 * math.remainder(end_rad - begin_rad, 2.0 * math.pi)
            is_along = abs(math.remainder(point.heading_rad - middle_rad, 2.0 * math.pi)) < 0.5 * math.pi
            if segment.junction == NO_JUNCTION and is_along:
                places.append(place)
                break
    return places


ROLE_NAME = "sb3_visual_td3_traffic"
"""The role of the other cars. It also identifies cars that an earlier run left on the server."""
# Cars are spawned side by side this far above the map, where nothing can block them, and then put on the road.
_SPAWN_HEIGHT_M = 400.0
_BLUEPRINTS = ("vehicle.audi.tt", "vehicle.tesla.model3", "vehicle.lincoln.mkz_2020", "vehicle.nissan.micra")


class OtherCars:
    """Hold one vehicle in CARLA for each of the other cars.

    :param traffic: model that computes where the cars are
    """

    def __init__(self, traffic: Traffic | RouteTraffic) -> None:
        self.traffic = traffic
        self._ids: list[int] = []

    @property
    def n_cars(self) -> int:
        """Return the number of cars."""
        return self.traffic.settings.n_cars

    def spawn(self, connection: Connection) -> None:
        """Spawn the vehicles, high above the map, where they block nothing.

        :param connection: the connection to the server
        :raises SimulatorLostError: if the server fails
        """
        with lost_on_error("spawning other cars"):
            known = {each.id for each in connection.world.get_blueprint_library().filter("vehicle.*")}
        names = [name for name in _BLUEPRINTS if name in known] or sorted(known)
        self._ids = []
        for number in range(self.n_cars):
            blueprint = connection.blueprint(names[number % len(names)])
            blueprint.set_attribute("role_name", ROLE_NAME)
            if blueprint.has_attribute("color"):
                colours = blueprint.get_attribute("color").recommended_values
                blueprint.set_attribute("color", colours[number % len(colours)])
            with lost_on_error("spawning other cars"):
                car = connection.world.spawn_actor(blueprint, _high_above(number))
                car.set_simulate_physics(False)  # the traffic model moves it, and it must not fall
                self._ids.append(car.id)

    def show(self, connection: Connection) -> None:
        """Move each vehicle to the place of its car in the traffic model.

        The move takes effect at the next tick.

        :param connection: the connection to the server
        :raises SimulatorLostError: if the server fails
        """
        carla = client_library()
        commands = []
        for number, actor_id in enumerate(self._ids):
            transform = _high_above(number)
            # On a short map the traffic model has fewer cars than ``n_cars``; the other vehicles stay high above.
            if number < len(self.traffic.boxes):
                box = self.traffic.boxes[number]
                transform = connection.transform(Pose(box.x_m, box.y_m, box.yaw_rad))
            commands.append(carla.command.ApplyTransform(actor_id, transform))
        if not commands:
            return
        with lost_on_error("moving other cars"):
            # False: do not tick. With True the call deadlocks until its timeout when Python sensors listen (0.9.16).
            responses = connection.client.apply_batch_sync(commands, False)
        errors = [response.error for response in responses if response.error]
        if errors:
            raise SimulatorLostError(
                f"CARLA could not move the other cars: {errors[0]}; restart CARLA if this persists"
            )


def _high_above(number: int) -> Any:
    """Return a place high above the map, where a car that is not on the road blocks nothing."""
    carla = client_library()
    return carla.Transform(carla.Location(x=10.0 * number, y=0.0, z=_SPAWN_HEIGHT_M))
