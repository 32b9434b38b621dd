"""What CARLA's client makes of an OpenDRIVE text: the lanes, and the closed route that an episode drives."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median, mode
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import LaneMark
from sb3_visual_td3.envs.carla.lane_survey import ROUTE_ONLY, SPACING_M
from sb3_visual_td3.envs.lite.opendrive_check import check_opendrive
from sb3_visual_td3.envs.lite.track import Track

MIN_ROUTE_M = 50.0
_TIME_LIMIT_S = 300.0

SurveyedPoint = dict[str, Any]
"""A place on a lane, as ``lane_survey`` writes it down."""


@lru_cache(maxsize=16)
def route_of(text: str, source: str) -> Track:
    """Return the route that is driven on a map.

    :param text: of the map, in OpenDRIVE.
    :param source: what it is called, for messages.
    :raises ValueError: if it is no such map, or has no closed route of at least 50 m.
    """
    check_opendrive(text, source)
    return track_of(survey(text, source, with_lanes=False)["route"], source)


def survey(text: str, source: str, *, with_lanes: bool = True) -> dict[str, Any]:
    """Return the route and the lanes as ``lane_survey`` writes them down, in a process of its own.

    :raises ValueError: if CARLA's client cannot read the map.
    """
    # By its path: the file needs nothing of this package, which may not be installed where Python looks.
    script = Path(__file__).with_name("lane_survey.py")
    command = [sys.executable, str(script), *([] if with_lanes else [ROUTE_ONLY])]
    try:
        child = subprocess.run(
            command, input=text, capture_output=True, text=True, encoding="utf-8", timeout=_TIME_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"{source}: CARLA's client did not read it in {_TIME_LIMIT_S:g} s; cut the map down"
        ) from error
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(
            f"{source}: CARLA's client cannot read it (exit {child.returncode}: {last}); "
            "try the file in another OpenDRIVE viewer and export it again"
        )
    answer: dict[str, Any] = json.loads(child.stdout)
    return answer


def track_of(route: Sequence[SurveyedPoint], source: str, max_extent_m: float = np.inf) -> Track:
    """Return a surveyed route as the line that the task keeps to.

    :raises ValueError: if it is shorter than 50 m, or larger than ``max_extent_m`` across.
    """
    length_m = 0.0
    if route:
        closed = places_of([*route, route[0]])
        steps = np.linalg.norm(np.diff(closed, axis=0), axis=1)
        along_m = np.concatenate([[0.0], np.cumsum(steps)])
        length_m = float(along_m[-1])
    if length_m < MIN_ROUTE_M:
        raise ValueError(
            f"{source}: got no closed route of at least {MIN_ROUTE_M:g} m (the longest is {length_m:.0f} m); "
            "join the roads to a loop of three roads or more"
        )
    if np.ptp(closed, axis=0).max() > max_extent_m:
        raise ValueError(f"{source}: got a route larger than {max_extent_m:g} m across; cut the map down")
    n = round(length_m / SPACING_M)
    even = np.arange(n) * (length_m / n)
    points = np.stack([np.interp(even, along_m, closed[:, axis]) for axis in (0, 1)], axis=1)
    inside = np.array([point["in_junction"] for point in route])[np.searchsorted(along_m, even, side="right") - 1]
    outside = [point for point in route if not point["in_junction"]] or route
    return Track(
        points,
        lane_width_m=median(point["width_m"] for point in outside),
        left_line_m=median(point["left_line_m"] for point in outside),
        right_line_m=median(point["right_line_m"] for point in outside),
        marks=_marks_of(outside),
        oncoming_lane_m=mode(point["oncoming_lane_m"] for point in outside),
        in_junction=inside if inside.any() else None,
    )


def _marks_of(route: Sequence[SurveyedPoint]) -> tuple[LaneMark, ...]:
    """Return the marks of the road that most of the route has, from right to left."""
    usual = mode(tuple(kind for _, kind in point["marks"]) for point in route)
    like = [point["marks"] for point in route if tuple(kind for _, kind in point["marks"]) == usual]
    columns = zip(*like, strict=True)
    return tuple(LaneMark(median(offset for offset, _ in column), column[0][1]) for column in columns)


def places_of(points: Sequence[SurveyedPoint]) -> NDArray[np.float64]:
    """Return x and y of each point, ``(n, 2)``."""
    return np.array([(point["x_m"], point["y_m"]) for point in points])
