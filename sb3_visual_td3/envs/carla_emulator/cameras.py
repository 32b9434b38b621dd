"""Draw the images of the emulator's cameras: RGB, depth and semantic images of the map, vehicles and walkers.

If an RGB camera on a vehicle has the same position, rotation and field of view as a camera of ``LiteDriving-v0``, the
code of ``LiteDriving-v0`` draws the image. A policy then sees the same picture in the emulator and in
``LiteDriving-v0``. :class:`FreeCamera` draws all other images, and the images with an actor that ``LiteDriving-v0``
cannot draw, such as a truck.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import CAMERA_AHEAD_M, CAMERA_HEIGHT_M, CHASE_AHEAD_M, CHASE_HEIGHT_M
from sb3_visual_td3.envs.carla_emulator.actors import Actor, Prop, Vehicle, Walker
from sb3_visual_td3.envs.carla_emulator.free_camera import FAR_M, FreeCamera, axes_of, free_camera
from sb3_visual_td3.envs.carla_emulator.protocol import (
    DEPTH_SENSOR,
    INSTANCE_SENSOR,
    RGB_SENSOR,
    SEMANTIC_SENSOR,
    Transform,
    image_body,
)
from sb3_visual_td3.envs.carla_emulator.roadside import (
    PLATE_DEPTH_M,
    PLATE_HIGH_M,
    PLATE_LOW_M,
    PLATE_WIDTH_M,
    Roadside,
    RoadSign,
)
from sb3_visual_td3.envs.lite.camera import (
    CAMERA_BANDS,
    PICTURE_BANDS,
    Camera,
    tint,
    tint_by_kind,
)
from sb3_visual_td3.envs.lite.car_painter import clip_to_near_plane, paint_cars
from sb3_visual_td3.envs.lite.figure_painter import (
    DARK_LAMP,
    HEAD_COLOUR,
    HEAD_HIGH_M,
    HEAD_LOW_M,
    HEAD_SIZE_M,
    LAMP_COLOURS,
    LAMP_SIZE_M,
    LAMPS,
    NO_FIGURES,
    POLE_COLOUR,
    POLE_WIDTH_M,
    Figures,
    Person,
    lamp_low_m,
    paint_scene,
)
from sb3_visual_td3.envs.lite.weather import Sky, WeatherFilter
from sb3_visual_td3.envs.road.collision import OrientedBox
from sb3_visual_td3.envs.road.ground import PAVED_LEVEL
from sb3_visual_td3.envs.road.maps import Scene

Colour = tuple[int, int, int]

# Actors farther away cover less than a pixel in most images.
_MAX_DISTANCE_M = 150.0
_GLASS, _SHADOW, _CLOTHES = (38, 44, 52), (28, 28, 30), (150, 90, 60)
_PROP_COLOUR = (225, 110, 40)
_ROOF_SHADE = 1.0
# The brightness of the front, left, rear and right side: different, so that the edges of a block are visible.
_SIDE_SHADES = (0.92, 0.78, 0.85, 0.70)
# OpenCV's drawing functions take integers with this many fractional bits.
_FRACTION_BITS = 4


class Block(NamedTuple):
    """Describe an upright box, which is a part of an actor's shape."""

    box: OrientedBox
    low_m: float
    high_m: float
    side_colour: Colour
    roof_colour: Colour
    tag: int
    """The semantic tag."""
    is_solid: bool = True
    """False for a shadow, which only RGB cameras see."""
    owner: int = 0
    """The id of the actor."""


class Face(NamedTuple):
    """Describe a visible side of a block, which is one of the boxes that form an actor's shape."""

    corners: NDArray[np.float64]
    """The corners as distances from the camera in metres: forward (the depth), left and up, ``(n_corners, 3)``."""
    colour: Colour
    shade: float
    block: Block
    distance_m: float
    """Distance from the camera to the actor. The faces of far actors are painted first."""


def _blocks_of(actor: Actor) -> list[Block]:
    """Return the blocks that form an actor's shape, the lowest first; an empty list if cameras do not see it."""
    box = actor.box
    if box is None:
        return []
    tag = actor.semantic_tags[0]
    height_m = 2.0 * actor.extent_m[2]
    if not isinstance(actor, Vehicle):
        colour = _PROP_COLOUR if isinstance(actor, Prop) else _CLOTHES
        return [Block(box, 0.0, height_m, colour, colour, tag)]
    if not actor.is_on_ground:
        return []
    x, y, yaw, length, width = box
    if not actor.model.has_car_shape:
        # A truck, a bus, a van, or a rider on two wheels is drawn as one block.
        shadow = OrientedBox(x, y, yaw, length + 0.2, width + 0.2)
        body = Block(box, 0.3, height_m, actor.colour, actor.colour, tag)
        return [Block(shadow, 0.0, 0.0, _SHADOW, _SHADOW, tag, is_solid=False), body]
    back = 0.06 * length  # the cabin sits behind the centre
    cabin = OrientedBox(x - back * math.cos(yaw), y - back * math.sin(yaw), yaw, 0.55 * length, 0.88 * width)
    shadow = OrientedBox(x, y, yaw, length + 0.2, width + 0.2)
    paint = actor.colour
    return [
        Block(shadow, 0.0, 0.0, _SHADOW, _SHADOW, tag, is_solid=False),
        Block(box, 0.2, 0.85, paint, paint, tag),
        Block(cabin, 0.85, height_m, _GLASS, paint, tag),
    ]


_PLATE_COLOURS = {"traffic.stop": (200, 30, 35), "traffic.yield": (240, 240, 235), "traffic.unknown": (50, 90, 180)}
_SPEED_PLATE = (245, 240, 240)
_PLATE_BACK = (150, 152, 155)


def _blocks_of_sign(sign: RoadSign, transform: Transform) -> list[Block]:
    """Return the shape of a traffic light or a sign.

    A light has a pole and a head with lamps. A sign has a pole and a plate. The lamps, and the colour of the plate, are
    visible from the front only.
    """
    signal = sign.signal
    assert signal is not None
    x, y, yaw = signal.x_m, signal.y_m, signal.yaw_rad
    pole_tag, tag = 6, sign.semantic_tags[0]
    pole = OrientedBox(x, y, yaw, POLE_WIDTH_M, POLE_WIDTH_M)
    # The yaw is the direction of the traffic. A camera that has not passed the sign in this direction sees its front.
    is_front = (transform.x - x) * math.cos(yaw) + (-transform.y - y) * math.sin(yaw) < 0.0
    if not sign.is_light:
        front = _PLATE_COLOURS.get(sign.type_id, _SPEED_PLATE)
        plate = OrientedBox(x, y, yaw, PLATE_DEPTH_M, PLATE_WIDTH_M)
        colour = front if is_front else _PLATE_BACK
        return [
            Block(pole, 0.0, PLATE_HIGH_M, POLE_COLOUR, POLE_COLOUR, pole_tag),
            Block(plate, PLATE_LOW_M, PLATE_HIGH_M, colour, colour, tag),
        ]
    head = OrientedBox(x, y, yaw, HEAD_SIZE_M, HEAD_SIZE_M)
    blocks = [
        Block(pole, 0.0, HEAD_LOW_M, POLE_COLOUR, POLE_COLOUR, pole_tag),
        Block(head, HEAD_LOW_M, HEAD_HIGH_M, HEAD_COLOUR, HEAD_COLOUR, tag),
    ]
    if is_front:
        ahead = -0.5 * HEAD_SIZE_M - 0.02
        face = OrientedBox(x + ahead * math.cos(yaw), y + ahead * math.sin(yaw), yaw, 0.02, LAMP_SIZE_M)
        for lamp in LAMPS:
            colour = LAMP_COLOURS[lamp] if sign.colour == lamp else DARK_LAMP
            blocks.append(Block(face, lamp_low_m(lamp), lamp_low_m(lamp) + LAMP_SIZE_M, colour, colour, tag))
    return blocks


def _visible_faces(actors: Sequence[Actor], transform: Transform, axes: NDArray[np.float64]) -> list[Face]:
    """Return the faces that a camera sees, the farthest actor first.

    :param axes: the camera's forward, right and up axes as rows, ``(3, 3)``, in CARLA's coordinates
    """
    found: list[tuple[float, list[Face]]] = []
    for actor in actors:
        box = actor.box
        if isinstance(actor, RoadSign):
            place = (actor.transform.x, actor.transform.y, 0.0)
        elif box is not None:
            place = (box.x_m, -box.y_m, 0.0)
        else:
            continue
        distance = math.dist(place, (transform.x, transform.y, transform.z))
        if distance > _MAX_DISTANCE_M:
            continue
        blocks = _blocks_of_sign(actor, transform) if isinstance(actor, RoadSign) else _blocks_of(actor)
        blocks = [block._replace(owner=actor.id) for block in blocks]
        faces = [face for block in blocks for face in _faces_of(block, transform, axes, distance)]
        found.append((distance, faces))
    found.sort(key=lambda each: -each[0])
    return [face for _, faces in found for face in faces]


def _faces_of(block: Block, transform: Transform, axes: NDArray[np.float64], distance_m: float) -> Iterator[Face]:
    box = block.box
    cos, sin = math.cos(box.yaw_rad), math.sin(box.yaw_rad)
    half_l, half_w = 0.5 * box.length_m, 0.5 * box.width_m
    # A side is visible if the camera, in the block's own coordinates, lies outside of that side's plane.
    dx, dy = transform.x - box.x_m, -transform.y - box.y_m
    ahead, aside = dx * cos + dy * sin, dy * cos - dx * sin
    corners = ((half_l, -half_w), (half_l, half_w), (-half_l, half_w), (-half_l, -half_w))
    is_visible = (ahead > half_l, aside > half_w, ahead < -half_l, aside < -half_w)
    floor = _in_camera_axes(corners, block.low_m, box, transform, axes)
    roof = _in_camera_axes(corners, block.high_m, box, transform, axes)
    for side in range(4):
        if is_visible[side] and block.high_m > block.low_m:
            following = (side + 1) % 4
            wall = (floor[side], floor[following], roof[following], roof[side])
            yield from _clipped_face(wall, block.side_colour, _SIDE_SHADES[side], block, distance_m)
    if transform.z > block.high_m:
        yield from _clipped_face(roof, block.roof_colour, _ROOF_SHADE, block, distance_m)


def _clipped_face(
    corners: Sequence[NDArray[np.float64]] | NDArray[np.float64],
    colour: Colour,
    shade: float,
    block: Block,
    distance_m: float,
) -> Iterator[Face]:
    """Yield the part of a face that is ahead of the camera, if any; the projection is undefined behind the camera."""
    kept = clip_to_near_plane([(float(depth), float(left), float(up)) for depth, left, up in corners])
    if len(kept) >= 3:
        yield Face(np.array(kept), colour, shade, block, distance_m)


def _in_camera_axes(
    corners: Sequence[tuple[float, float]],
    up_m: float,
    box: OrientedBox,
    transform: Transform,
    axes: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the corners of a box in the camera's coordinates, ``(n_corners, 3)``.

    The three columns are metres forward (the depth), to the left (the negative right axis) and up.

    :param corners: (forward, left) of each corner from the box's centre, in metres
    :param up_m: height of the corners above the ground
    :param axes: the camera's forward, right and up axes as rows, ``(3, 3)``
    """
    cos, sin = math.cos(box.yaw_rad), math.sin(box.yaw_rad)
    points = []
    for along, across in corners:
        x = box.x_m + along * cos - across * sin
        y = box.y_m + along * sin + across * cos
        points.append((x - transform.x, -y - transform.y, up_m - transform.z))
    # The camera's axes are forward, right, up; its left is the negative right.
    return np.asarray((np.array(points) @ axes.T) * (1.0, -1.0, 1.0))


def _pixels_of(face: Face, focal: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the columns and rows of a face's corners, ``(n_corners, 2)``; pixel centres are integers."""
    height, width = shape
    depth, left, up = face.corners.T
    columns = 0.5 * width - 0.5 - focal * left / depth
    rows = 0.5 * height - 0.5 - focal * up / depth
    # OpenCV's fixed-point coordinates overflow for corners close to the lens.
    limit = 16.0 * max(shape)
    return np.asarray(np.clip(np.stack([columns, rows], axis=1), -limit, limit))


def _paint_face(
    picture: NDArray[np.uint8], face: Face, focal: float, value: Colour | tuple[float, ...], *, is_smooth: bool
) -> None:
    """Fill a face with one value, in place.

    :param is_smooth: whether to blend the edges; semantic tags must not be blended
    """
    pixels = _pixels_of(face, focal, picture.shape[:2])
    line = cv2.LINE_AA if is_smooth else cv2.LINE_8
    cv2.fillConvexPoly(picture, np.rint(pixels * 2**_FRACTION_BITS).astype(np.int32), value, line, _FRACTION_BITS)


def _carve_depth(depth_m: NDArray[np.float32], face: Face, focal: float) -> None:
    """Write a face's depth into a depth image, in place, where the face is nearer."""
    height, width = depth_m.shape
    pixels = _pixels_of(face, focal, (height, width))
    left, top = np.clip(np.floor(pixels.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(pixels.max(axis=0)) + 1, 0, (width, height)).astype(int)
    if left >= right or top >= bottom:
        return
    mask = np.zeros((bottom - top, right - left), np.uint8)
    corners = np.rint((pixels - (left, top)) * 2**_FRACTION_BITS).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, 1, cv2.LINE_8, _FRACTION_BITS)
    # Intersect each pixel's ray (1, aside, up) with the face's plane, given by its normal and one corner:
    # depth = (normal . corner) / (normal . ray). All arrays are (bottom - top, right - left).
    one, two, three = face.corners[:3]
    normal = np.cross(two - one, three - one)
    aside = (0.5 * width - np.arange(left, right) - 0.5) / focal
    up = (0.5 * height - np.arange(top, bottom) - 0.5) / focal
    slope = normal[0] + normal[1] * aside[None] + normal[2] * up[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        plane = (normal @ one) / slope
    # The ray of a pixel at the face's edge may miss the face and, at a grazing angle, meet its plane far beyond it. So
    # the depth is limited to the depths of the corners.
    plane = np.clip(plane, float(face.corners[:, 0].min()), float(face.corners[:, 0].max()))
    part = depth_m[top:bottom, left:right]
    is_nearer = (mask > 0) & (plane < part)
    part[is_nearer] = plane[is_nearer]


SENSOR_NUMBERS = {
    "sensor.camera.rgb": RGB_SENSOR,
    "sensor.camera.depth": DEPTH_SENSOR,
    "sensor.camera.semantic_segmentation": SEMANTIC_SENSOR,
    "sensor.camera.instance_segmentation": INSTANCE_SENSOR,
}
"""The number by which CARLA's protocol identifies each kind of camera."""
# Larger images are drawn as finely as the pictures that ``LiteDriving-v0`` draws for human viewers.
_MAX_SMALL_HEIGHT = 128
# Ahead and up, in metres: the mounts of the cameras of ``LiteDriving-v0``.
_LITE_MOUNTS = ((CAMERA_AHEAD_M, CAMERA_HEIGHT_M), (CHASE_AHEAD_M, CHASE_HEIGHT_M))
_MOUNT_TOLERANCE_M = 1e-4
# Depth images have 24 bits.
_MAX_DEPTH_STEPS = 256**3 - 1
# Free cameras are cached by their geometry, rounded to millimetres and thousandths of a degree.
_HEIGHT_DECIMALS, _ANGLE_DECIMALS = 3, 3


def image_message(
    sensor: Actor,
    scene: Scene,
    sky: Sky | None,
    things: Sequence[Actor],
    tick: int,
    roadside: Roadside | None = None,
) -> bytes:
    """Draw the image of a camera, and return it as the body of a measurement message.

    :param sensor: the camera
    :param scene: the map to draw
    :param sky: effect of the weather; None on a clear day
    :param things: all vehicles, walkers and props
    :param tick: number of the tick, which seeds the rain
    :param roadside: traffic lights and signs; None for a map without them
    """
    width = int(sensor.float_attribute("image_size_x", 800))
    height = int(sensor.float_attribute("image_size_y", 600))
    fov_deg = sensor.float_attribute("fov", 90.0)
    kind = SENSOR_NUMBERS[sensor.type_id]
    mount = _lite_mount(sensor, fov_deg, height, width) if kind == RGB_SENSOR else None
    # The camera of ``LiteDriving-v0`` draws cars, walkers and traffic lights, but no other vehicles, signs or props.
    if mount is not None and all(_can_lite_draw(each, sensor) for each in things):
        assert isinstance(sensor.parent, Vehicle)
        is_chase_camera = mount[0] < 0.0
        cars = []
        for each in things:
            # Only the chase camera sees the vehicle that carries it.
            if isinstance(each, Vehicle) and each.is_on_ground and (each is not sensor.parent or is_chase_camera):
                cars.append(each)
        figures = _figures_of(things, roadside)
        pixels = _lite_image(_lite_camera(height, width, *mount), scene, sky, sensor.parent, cars, tick, figures)
    else:
        seen: list[Actor] = [each for each in things if each is not sensor.parent or _is_outside_carrier(sensor)]
        if roadside is not None:
            seen += roadside.actors.values()
        pixels = _free_image(kind, (height, width), sensor, scene, sky, seen, tick)
    return image_body(width, height, fov_deg, pixels.tobytes())


def _lite_mount(sensor: Actor, fov_deg: float, height: int, width: int) -> tuple[float, float] | None:
    """Return how far ahead and up the sensor is mounted; None if no camera of ``LiteDriving-v0`` has this pose."""
    x, y, z, *angles = sensor.transform
    is_level = y == 0.0 and not any(angles) and fov_deg == 90.0 and height % 2 == width % 2 == 0
    if not isinstance(sensor.parent, Vehicle) or not sensor.parent.is_on_ground or not is_level:
        return None
    for ahead_m, up_m in _LITE_MOUNTS:
        if abs(x - ahead_m) < _MOUNT_TOLERANCE_M and abs(z - up_m) < _MOUNT_TOLERANCE_M:
            return ahead_m, up_m
    return None


def _can_lite_draw(thing: Actor, sensor: Actor) -> bool:
    """Return whether the camera code of ``LiteDriving-v0`` draws a correct image of a scene with this actor.

    The code draws walkers and cars. It leaves out other vehicles and props, which is correct only if they have no shape
    or are too far away to be visible.
    """
    if isinstance(thing, Walker) or (isinstance(thing, Vehicle) and thing.model.has_car_shape):
        return True
    box, here = thing.box, sensor.world_transform
    return box is None or math.hypot(box.x_m - here.x, -box.y_m - here.y) > _MAX_DISTANCE_M


def _is_outside_carrier(sensor: Actor) -> bool:
    """Return whether a camera is outside of the actor that carries it, and therefore sees this actor."""
    if sensor.parent is None:
        return True
    x, y, z, *_ = sensor.transform
    length_m, width_m, height_m = (2.0 * half for half in sensor.parent.extent_m)
    return abs(x) > 0.5 * length_m + 0.1 or abs(y) > 0.5 * width_m + 0.1 or z > height_m + 0.5


@lru_cache(maxsize=16)
def _lite_camera(height: int, width: int, ahead_m: float, height_m: float) -> Camera:
    bands = CAMERA_BANDS if height <= _MAX_SMALL_HEIGHT else PICTURE_BANDS
    return Camera(height, width, bands, ahead_m=ahead_m, height_m=height_m)


def _figures_of(things: Sequence[Actor], roadside: Roadside | None) -> Figures:
    """Return pedestrians, traffic lights and stop lines in the form that the camera of ``envs.lite`` draws."""
    people = [Person(*thing.box[:2]) for thing in things if isinstance(thing, Walker)]
    if roadside is None:
        return NO_FIGURES._replace(people=people)
    return Figures(roadside.posts, people, roadside.stop_bars)


def _lite_image(
    camera: Camera,
    scene: Scene,
    sky: Sky | None,
    carrier: Vehicle,
    cars: Sequence[Vehicle],
    tick: int,
    figures: Figures,
) -> NDArray[np.uint8]:
    """Return an image of the camera of ``LiteDriving-v0``, ``(height, width, 4) uint8``, BGRA."""
    pose = carrier.pose
    picture = tint(camera.draw(scene, *pose), camera.paved(scene, *pose, level=PAVED_LEVEL), camera.lens.height // 2)
    # The filter dims the ground first. Then the cars are painted, each dimmed for its own distance. Rain comes last.
    weather: WeatherFilter | None = None
    if sky is not None:
        weather = camera.weather_filter(sky)
        weather.apply(picture)
    boxes, paints = [car.box for car in cars], [car.paint for car in cars]
    if figures.posts or figures.people:
        paint_scene(picture, boxes, paints, figures, pose, camera.lens, sky)
    elif cars:
        paint_cars(picture, boxes, paints, pose, camera.lens, sky)
    if weather is not None:
        weather.draw_rain(picture, tick)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGRA), np.uint8)


def _free_image(
    kind: int,
    size: tuple[int, int],
    sensor: Actor,
    scene: Scene,
    sky: Sky | None,
    things: Sequence[Actor],
    tick: int,
) -> NDArray[np.uint8]:
    """Return the image of a camera at any position and rotation, ``(height, width, 4) uint8``, BGRA."""
    transform = sensor.world_transform
    pitch, roll = round(transform.pitch, _ANGLE_DECIMALS), round(transform.roll, _ANGLE_DECIMALS)
    up_m = round(transform.z, _HEIGHT_DECIMALS)
    camera = free_camera(*size, sensor.float_attribute("fov", 90.0), up_m, pitch, roll)
    faces = _visible_faces(things, transform, axes_of(transform))
    if kind == DEPTH_SENSOR:
        depth = camera.depth_m()
        for face in faces:
            if face.block.is_solid:
                _carve_depth(depth, face, camera.focal)
        return _encoded_depth(depth)
    if kind in {SEMANTIC_SENSOR, INSTANCE_SENSOR}:
        image = np.zeros((*size, 4), np.uint8)
        image[..., 2], image[..., 3] = camera.tags(scene, transform), 255  # CARLA encodes the tag in the red channel
        for face in faces:
            if face.block.is_solid:
                # In images of instances, green and blue are the lower and the higher byte of the actor's id.
                higher, lower = divmod(face.block.owner % 2**16, 2**8) if kind == INSTANCE_SENSOR else (0, 0)
                _paint_face(image, face, camera.focal, (higher, lower, face.block.tag, 255), is_smooth=False)
        return image
    if sky is not None and not isinstance(sensor.parent, Vehicle):
        sky = sky._replace(beam=0.0)  # no headlights
    return _free_picture(camera, scene, sky, transform, faces, tick)


def _free_picture(
    camera: FreeCamera, scene: Scene, sky: Sky | None, transform: Transform, faces: Sequence[Face], tick: int
) -> NDArray[np.uint8]:
    """Return the colour image of a camera at any position and rotation, ``(height, width, 4) uint8``, BGRA."""
    picture = tint_by_kind(camera.grey(scene, transform), camera.paved(scene, transform), camera.is_sky)
    if sky is not None:
        # Each pixel is multiplied by a gain (light), and a veil (haze) is added. The sky has its own gain and no veil.
        gain, veil = sky.gains_and_veils(camera.distances_m, camera.sides)
        gain[camera.is_sky], veil[camera.is_sky] = sky.sky_ambient, 0.0
        picture = np.clip(picture * gain[..., None] + veil[..., None], 0.0, 255.0).astype(np.uint8)
    for face in faces:
        face_gain, face_veil = 1.0, 0.0
        if sky is not None:
            face_gain, face_veil = sky.gain_and_veil(face.distance_m, 0.0)
        value = tuple(part * face.shade * face_gain + face_veil for part in face.colour)
        _paint_face(picture, face, camera.focal, value, is_smooth=True)
    if sky is not None and sky.streaks:
        rows = np.ones(camera.height - camera.height // 2)
        WeatherFilter(sky, rows, np.zeros(camera.width), camera.height // 2).draw_rain(picture, tick)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGRA), np.uint8)


def _encoded_depth(depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a depth image in CARLA's encoding, ``(height, width, 4) uint8``, BGRA.

    The depth is stored as the 24-bit integer ``depth / 1000 m * (2**24 - 1)``: red holds the lowest 8 bits, blue
    the highest. Source: CARLA's documentation.
    """
    steps = np.rint(depth_m.astype(np.float64) * (_MAX_DEPTH_STEPS / FAR_M)).astype(np.uint32)
    image = np.empty((*depth_m.shape, 4), np.uint8)
    image[..., 2], image[..., 1], image[..., 0] = steps & 255, (steps >> 8) & 255, steps >> 16
    image[..., 3] = 255
    return image
