"""A user's own OpenDRIVE file as a map of the embedded world."""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from statistics import median, mode

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.carla.lane_survey import SPACING_M
from sb3_visual_td3.envs.carla.surveyed_route import SurveyedPoint, places_of, survey, track_of
from sb3_visual_td3.envs.lite.ground import GroundPlan, Strip, build_ground, marks_of
from sb3_visual_td3.envs.lite.maps import LiteMap
from sb3_visual_td3.envs.lite.opendrive_check import check_opendrive
from sb3_visual_td3.envs.lite.panorama import build_panorama
from sb3_visual_td3.envs.lite.road_network import Paint
from sb3_visual_td3.envs.lite.track import Track

MAX_EXTENT_M = 1200.0
"""The ground takes 1.4 bytes per 0.1 m square: 200 MB where a route is so large both ways."""
_SIGHT_M = 80.0
_SHOULDER_M = 0.4


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
    answer = survey(text, str(file))
    track = track_of(answer["route"], str(file), MAX_EXTENT_M)
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    ground = build_ground(_plan_of(answer["lanes"], track), rng)
    return LiteMap(str(file), track, ground, build_panorama(rng))


def _plan_of(lanes: Sequence[Sequence[SurveyedPoint]], track: Track) -> GroundPlan:
    low, high = track.points_m.min(axis=0) - _SIGHT_M, track.points_m.max(axis=0) + _SIGHT_M
    paved: list[Strip] = []
    marks: list[Strip] = []
    for lane in lanes:
        places = places_of(lane)
        in_sight = np.flatnonzero(((places >= low) & (places <= high)).all(axis=1))
        for run in np.split(in_sight, np.flatnonzero(np.diff(in_sight) > 1) + 1):
            if len(run) < 2:
                continue
            part = lane[run[0] : run[-1] + 1]
            paved.append(Strip(places[run], median(point["width_m"] for point in part) + 2.0 * _SHOULDER_M))
            if not part[len(part) // 2]["in_junction"]:
                marks += _marks_beside(part, places[run])
    return GroundPlan(tuple(paved), tuple(marks))


def _marks_beside(lane: Sequence[SurveyedPoint], places: NDArray[np.float64]) -> list[Strip]:
    headings = np.array([point["heading_rad"] for point in lane])
    left = np.stack([-np.sin(headings), np.cos(headings)], axis=1)
    half_m = 0.5 * np.array([point["width_m"] for point in lane])[:, None]
    length_m = SPACING_M * len(lane)
    kinds: tuple[Paint, Paint] = (
        mode(point["left_mark"] for point in lane),
        mode(point["right_mark"] for point in lane),
    )
    return [
        strip
        for side, kind in zip((1.0, -1.0), kinds, strict=True)
        for strip in marks_of(places + side * half_m * left, kind, length_m)
    ]
