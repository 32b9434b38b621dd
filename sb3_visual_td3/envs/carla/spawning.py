"""Where on the route an episode may begin."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sb3_visual_td3.common.numbers import whole_number
from sb3_visual_td3.envs.carla.failures import SimulatorUnusableError
from sb3_visual_td3.envs.road.carla_coordinates import Pose
from sb3_visual_td3.envs.road.track import Track

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
    return whole_number("spawn", spawn, 0, expected)


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
