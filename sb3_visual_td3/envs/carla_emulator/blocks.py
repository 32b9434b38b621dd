"""Cars and people as blocks in perspective, for cameras at any angle: colours, tags and exact depth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.carla_emulator.actors import Actor
from sb3_visual_td3.envs.carla_emulator.records import Transform
from sb3_visual_td3.envs.carla_emulator.vehicles import Vehicle
from sb3_visual_td3.envs.lite.car_painter import CAR_HEIGHT_M, before_the_lens
from sb3_visual_td3.envs.road.collision import OrientedBox

Colour = tuple[int, int, int]

MAX_DISTANCE_M = 150.0
_GLASS, _SHADOW, _CLOTHES = (38, 44, 52), (28, 28, 30), (150, 90, 60)
_ROOF_SHADE = 1.0
_SHADES = (0.92, 0.78, 0.85, 0.70)
"""Of the front, the left, the rear and the right side."""
_SHIFT = 4


class Block(NamedTuple):
    """A box that stands upright."""

    box: OrientedBox
    low_m: float
    high_m: float
    sides: Colour
    roof: Colour
    tag: int
    is_solid: bool = True
    """False for what is painted on the ground."""


class Face(NamedTuple):
    """A side of a block that looks at the camera."""

    corners: NDArray[np.float64]
    """``(n, 3)``: depth, left and up in metres from the camera."""
    colour: Colour
    shade: float
    block: Block
    distance_m: float


def blocks_of(actor: Actor) -> list[Block]:
    """Return what an actor looks like: from the ground upwards."""
    box = actor.box
    if box is None:
        return []
    tag = actor.tags[0]
    if not isinstance(actor, Vehicle):
        return [Block(box, 0.0, 2.0 * actor.extent_m[2], _CLOTHES, _CLOTHES, tag)]
    if not actor.is_on_ground:
        return []
    x, y, yaw, length, width = box
    back = 0.06 * length
    cabin = OrientedBox(x - back * math.cos(yaw), y - back * math.sin(yaw), yaw, 0.55 * length, 0.88 * width)
    shadow = OrientedBox(x, y, yaw, length + 0.2, width + 0.2)
    paint = actor.colour
    return [
        Block(shadow, 0.0, 0.0, _SHADOW, _SHADOW, tag, is_solid=False),
        Block(box, 0.2, 0.85, paint, paint, tag),
        Block(cabin, 0.85, CAR_HEIGHT_M, _GLASS, paint, tag),
    ]


def seen_faces(actors: Sequence[Actor], place: Transform, axes: NDArray[np.float64]) -> list[Face]:
    """Return the faces that look at a camera, the farthest actor's first.

    :param actors: what may be seen.
    :param place: of the camera, in CARLA's coordinates.
    :param axes: the camera's forward, right and up as rows, likewise.
    """
    found: list[tuple[float, list[Face]]] = []
    for actor in actors:
        box = actor.box
        if box is None:
            continue
        distance = math.dist((box.x_m, -box.y_m, 0.0), (place.x, place.y, place.z))
        if distance > MAX_DISTANCE_M:
            continue
        faces = [face for block in blocks_of(actor) for face in _faces_of(block, place, axes, distance)]
        found.append((distance, faces))
    found.sort(key=lambda each: -each[0])
    return [face for _, faces in found for face in faces]


def paint(
    picture: NDArray[np.uint8], face: Face, focal: float, value: Colour | tuple[float, ...], *, is_smooth: bool
) -> None:
    """Fill a face, in place."""
    pixels = _pixels_of(face, focal, picture.shape[:2])
    line = cv2.LINE_AA if is_smooth else cv2.LINE_8
    cv2.fillConvexPoly(picture, np.rint(pixels * 2**_SHIFT).astype(np.int32), value, line, _SHIFT)


def carve(depth_m: NDArray[np.float32], face: Face, focal: float) -> None:
    """Bring the depth of a face into a picture of depths, in place."""
    height, width = depth_m.shape
    pixels = _pixels_of(face, focal, (height, width))
    left, top = np.clip(np.floor(pixels.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(pixels.max(axis=0)) + 1, 0, (width, height)).astype(int)
    if left >= right or top >= bottom:
        return
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillConvexPoly(mask, np.rint((pixels - (left, top)) * 2**_SHIFT).astype(np.int32), 1, cv2.LINE_8, _SHIFT)
    one, two, three = face.corners[:3]
    normal = np.cross(two - one, three - one)
    aside = (0.5 * width - np.arange(left, right) - 0.5) / focal
    up = (0.5 * height - np.arange(top, bottom) - 0.5) / focal
    slope = normal[0] + normal[1] * aside[None] + normal[2] * up[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        plane = (normal @ one) / slope
    # A pixel that the face just touches may see its plane far beyond its edge, where that is seen at a flat angle.
    plane = np.clip(plane, float(face.corners[:, 0].min()), float(face.corners[:, 0].max()))
    part = depth_m[top:bottom, left:right]
    is_nearer = (mask > 0) & (plane < part)
    part[is_nearer] = plane[is_nearer]


def _faces_of(block: Block, place: Transform, axes: NDArray[np.float64], distance_m: float) -> Iterator[Face]:
    box = block.box
    cos, sin = math.cos(box.yaw_rad), math.sin(box.yaw_rad)
    half_l, half_w = 0.5 * box.length_m, 0.5 * box.width_m
    # The camera in the block's own axes tells which sides face it.
    dx, dy = place.x - box.x_m, -place.y - box.y_m
    ahead, aside = dx * cos + dy * sin, dy * cos - dx * sin
    corners = ((half_l, -half_w), (half_l, half_w), (-half_l, half_w), (-half_l, -half_w))
    faces = (ahead > half_l, aside > half_w, ahead < -half_l, aside < -half_w)
    floor = _from_camera(corners, block.low_m, box, place, axes)
    roof = _from_camera(corners, block.high_m, box, place, axes)
    for side, is_seen in enumerate(faces):
        if is_seen and block.high_m > block.low_m:
            wall = (floor[side], floor[(side + 1) % 4], roof[(side + 1) % 4], roof[side])
            yield from _clipped(wall, block.sides, _SHADES[side], block, distance_m)
    if place.z > block.high_m:
        yield from _clipped(roof, block.roof, _ROOF_SHADE, block, distance_m)


def _clipped(
    corners: Sequence[NDArray[np.float64]] | NDArray[np.float64],
    colour: Colour,
    shade: float,
    block: Block,
    distance_m: float,
) -> Iterator[Face]:
    kept = before_the_lens([(float(depth), float(left), float(up)) for depth, left, up in corners])
    if len(kept) >= 3:
        yield Face(np.array(kept), colour, shade, block, distance_m)


def _from_camera(
    corners: Sequence[tuple[float, float]],
    up_m: float,
    box: OrientedBox,
    place: Transform,
    axes: NDArray[np.float64],
) -> NDArray[np.float64]:
    cos, sin = math.cos(box.yaw_rad), math.sin(box.yaw_rad)
    points = [
        (
            box.x_m + along * cos - across * sin - place.x,
            -(box.y_m + along * sin + across * cos) - place.y,
            up_m - place.z,
        )
        for along, across in corners
    ]
    return np.asarray((np.array(points) @ axes.T) * (1.0, -1.0, 1.0))


def _pixels_of(face: Face, focal: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return columns and rows ``(n, 2)``; pixel centres are whole numbers."""
    height, width = shape
    depth, left, up = face.corners.T
    limit = 16.0 * max(shape)
    columns = 0.5 * width - 0.5 - focal * left / depth
    rows = 0.5 * height - 0.5 - focal * up / depth
    return np.asarray(np.clip(np.stack([columns, rows], axis=1), -limit, limit))
