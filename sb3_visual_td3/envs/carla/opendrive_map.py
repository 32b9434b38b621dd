"""A user's own OpenDRIVE file as a map of the embedded world."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from statistics import median, mode
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import LaneMark
from sb3_visual_td3.envs.lite.ground import GroundPlan, Strip, build_ground, marks_of
from sb3_visual_td3.envs.lite.maps import LiteMap
from sb3_visual_td3.envs.lite.opendrive_check import check_opendrive
from sb3_visual_td3.envs.lite.panorama import build_panorama
from sb3_visual_td3.envs.lite.road_network import Paint
from sb3_visual_td3.envs.lite.track import Track

MIN_ROUTE_M = 50.0
MAX_EXTENT_M = 1200.0
"""The ground takes 1.4 bytes per 0.1 m square: 200 MB where a route is so large both ways."""
_SIGHT_M = 80.0
_SHOULDER_M = 0.4
_SPACING_M = 0.5
_TIME_LIMIT_S = 300.0

Point = dict[str, Any]


def load_opendrive(path: str | PathLike[str]) -> LiteMap:
    """Return the map of an ``.xodr`` file, whose name is the path.

    The route is the longest closed one that is found by always going straight on, always left or always right at
    junctions; what lies within 80 m of it is drawn. The world is flat: heights and bridges are left out. The route
    has one lane width and one set of marks, the usual ones outside of its junctions.

    :param path: of a file in OpenDRIVE 1.x with right-hand traffic.
    :raises ImportError: if CARLA's client is not installed.
    :raises ValueError: if the file is not there, is no such map, or has no closed route of at least 50 m that is at
        most 1,200 m across.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"path={str(path)!r}: expected an OpenDRIVE file; there is none at this place")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: got bytes that are no UTF-8, expected an OpenDRIVE file; export it again") from error
    check_opendrive(text, str(file))
    if importlib.util.find_spec("carla") is None:
        raise ImportError("a map from an OpenDRIVE file needs CARLA's client: pip install 'sb3-visual-td3[carla]'")
    answer = _survey(text, str(file))
    track = _track_of(answer["route"], str(file))
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    ground = build_ground(_plan_of(answer["lanes"], track), rng)
    return LiteMap(str(file), track, ground, build_panorama(rng))


def _survey(text: str, source: str) -> dict[str, Any]:
    # By its path: the file needs nothing of this package, which may not be installed where Python looks.
    script = Path(__file__).with_name("lane_survey.py")
    command = [sys.executable, str(script)]
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


def _track_of(route: Sequence[Point], source: str) -> Track:
    length_m = 0.0
    if route:
        closed = _places([*route, route[0]])
        steps = np.linalg.norm(np.diff(closed, axis=0), axis=1)
        along_m = np.concatenate([[0.0], np.cumsum(steps)])
        length_m = float(along_m[-1])
    if length_m < MIN_ROUTE_M:
        raise ValueError(
            f"{source}: got no closed route of at least {MIN_ROUTE_M:g} m (the longest is {length_m:.0f} m); "
            "join the roads to a loop of three roads or more"
        )
    if np.ptp(closed, axis=0).max() > MAX_EXTENT_M:
        raise ValueError(f"{source}: got a route larger than {MAX_EXTENT_M:g} m across; cut the map down")
    n = round(length_m / _SPACING_M)
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


def _marks_of(route: Sequence[Point]) -> tuple[LaneMark, ...]:
    """Return the marks of the road that most of the route has, from right to left."""
    usual = mode(tuple(kind for _, kind in point["marks"]) for point in route)
    like = [point["marks"] for point in route if tuple(kind for _, kind in point["marks"]) == usual]
    columns = zip(*like, strict=True)
    return tuple(LaneMark(median(offset for offset, _ in column), column[0][1]) for column in columns)


def _plan_of(lanes: Sequence[Sequence[Point]], track: Track) -> GroundPlan:
    low, high = track.points_m.min(axis=0) - _SIGHT_M, track.points_m.max(axis=0) + _SIGHT_M
    paved: list[Strip] = []
    marks: list[Strip] = []
    for lane in lanes:
        places = _places(lane)
        in_sight = np.flatnonzero(((places >= low) & (places <= high)).all(axis=1))
        for run in np.split(in_sight, np.flatnonzero(np.diff(in_sight) > 1) + 1):
            if len(run) < 2:
                continue
            part = lane[run[0] : run[-1] + 1]
            paved.append(Strip(places[run], median(point["width_m"] for point in part) + 2.0 * _SHOULDER_M))
            if not part[len(part) // 2]["in_junction"]:
                marks += _marks_beside(part, places[run])
    return GroundPlan(tuple(paved), tuple(marks))


def _marks_beside(lane: Sequence[Point], places: NDArray[np.float64]) -> list[Strip]:
    headings = np.array([point["heading_rad"] for point in lane])
    left = np.stack([-np.sin(headings), np.cos(headings)], axis=1)
    half_m = 0.5 * np.array([point["width_m"] for point in lane])[:, None]
    length_m = _SPACING_M * len(lane)
    kinds: tuple[Paint, Paint] = (
        mode(point["left_mark"] for point in lane),
        mode(point["right_mark"] for point in lane),
    )
    return [
        strip
        for side, kind in zip((1.0, -1.0), kinds, strict=True)
        for strip in marks_of(places + side * half_m * left, kind, length_m)
    ]


def _places(points: Sequence[Point]) -> NDArray[np.float64]:
    return np.array([(point["x_m"], point["y_m"]) for point in points])
