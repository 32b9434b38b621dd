"""Where vehicles are spawned on a server's map, and the other cars of an episode.

CARLA's own Traffic Manager is left alone: it listens on every network interface, and its cars differ from run to run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.envs.backend import BodySize
from sb3_visual_td3.envs.carla.connection import Connection, client_library, lost_on_error
from sb3_visual_td3.envs.carla.failures import SimulatorLostError, SimulatorUnusableError
from sb3_visual_td3.envs.road.carla_coordinates import Pose
from sb3_visual_td3.envs.road.track import Track
from sb3_visual_td3.envs.road.traffic import Ego, Traffic, TrafficSettings

SpawnPolicy = str | int
_MAX_OFFSET_M = 1.5
_MAX_TURN_RAD = math.radians(45.0)


def check_spawn(spawn: object) -> SpawnPolicy:
    """Return the policy: ``"route"``, ``"points"``, or the number of one of the map's spawn points.

    :raises ValueError: if it is none of these.
    """
    if isinstance(spawn, str) and spawn in ("route", "points"):
        return spawn
    expected = "'route' (anywhere on it), 'points' (the map's spawn points on it) or the number of one of these"
    return to_integer("spawn", spawn, 0, expected)


def starts_on(track: Track, points: Sequence[Pose], spawn: SpawnPolicy) -> list[int] | None:
    """Return the indices of the track's points where an episode may begin; None: anywhere.

    :param track: the route.
    :param points: the map's spawn points, in the map's order.
    :param spawn: as ``check_spawn`` returns it.
    :raises SimulatorUnusableError: if the map has no such spawn point, or it does not lie on the route.
    """
    if spawn == "route":
        return None
    on_route = {number: index for number, point in enumerate(points) if (index := _index_on(track, point)) is not None}
    if spawn == "points":
        if not on_route:
            raise SimulatorUnusableError("spawn='points': no spawn point of this map lies on the route; use 'route'")
        return sorted(on_route.values())
    if spawn not in on_route:
        raise SimulatorUnusableError(
            f"spawn={spawn}: expected the number of a spawn point on the route; choose from {sorted(on_route)}"
        )
    return [on_route[int(spawn)]]


def _index_on(track: Track, point: Pose) -> int | None:
    squares = ((track.points_m - point[:2]) ** 2).sum(axis=1)
    index = int(squares.argmin())
    turn_rad = math.remainder(point.yaw_rad - float(track.headings_rad[index]), 2.0 * math.pi)
    return index if squares[index] <= _MAX_OFFSET_M**2 and abs(turn_rad) <= _MAX_TURN_RAD else None


ROLE_NAME = "sb3_visual_td3_traffic"
_PARKED_M = 400.0
"""Cars appear this far above the map, side by side, before they are put on the road."""
_BLUEPRINTS = ("vehicle.audi.tt", "vehicle.tesla.model3", "vehicle.lincoln.mkz_2020", "vehicle.nissan.micra")


class OtherCars:
    """The other cars of one world, placed again for each episode.

    :param settings: how many there are and how they drive.
    :param ego_body: outer size of the vehicle that is driven.
    """

    def __init__(self, settings: TrafficSettings, ego_body: BodySize) -> None:
        self._traffic = Traffic(settings, ego_body)
        self._ids: list[int] = []

    @property
    def n_cars(self) -> int:
        """How many there are."""
        return self._traffic.settings.n_cars

    def spawn(self, connection: Connection) -> None:
        """Make the cars.

        :raises SimulatorLostError: if the server does not do as asked.
        """
        carla = client_library()
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
            place = carla.Transform(carla.Location(x=10.0 * number, y=0.0, z=_PARKED_M))
            with lost_on_error("spawning other cars"):
                car = connection.world.spawn_actor(blueprint, place)
                car.set_simulate_physics(False)
                self._ids.append(car.id)

    def reset(self, connection: Connection, track: Track, nearest: int, scene_seed: int) -> None:
        """Spread the cars over the road, none near the ego vehicle, which is at the point ``nearest``.

        :raises ValueError: if the road is too short for so many cars.
        """
        self._traffic.reset(track, nearest, scene_seed)
        self._place(connection)

    def advance(self, connection: Connection, dt_s: float, ego: Ego) -> None:
        """Let every car drive for ``dt_s`` seconds; the next tick shows it."""
        self._traffic.advance(dt_s, ego)
        self._place(connection)

    def are_hit_by(self, pose: Pose) -> bool:
        """Return whether the ego vehicle, standing here, touches a car."""
        return self._traffic.hits(*pose)

    def _place(self, connection: Connection) -> None:
        carla = client_library()
        commands = []
        for number, box in zip(self._ids, self._traffic.boxes, strict=True):
            place = connection.transform(Pose(box.x_m, box.y_m, box.yaw_rad))
            commands.append(carla.command.ApplyTransform(number, place))
        if not commands:
            return
        with lost_on_error("moving other cars"):
            answers = connection.client.apply_batch_sync(commands, False)
        errors = [answer.error for answer in answers if answer.error]
        if errors:
            raise SimulatorLostError(f"moving other cars: {errors[0]}")
