"""The embedded world: a car on one of the maps, seen through its camera."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.arguments import check_count, check_quantity
from sb3_visual_td3.envs.backend import BodySize, Control, Start, VehicleState
from sb3_visual_td3.envs.lite.camera import PICTURE_BANDS, Camera
from sb3_visual_td3.envs.lite.ground import PAVED_LEVEL
from sb3_visual_td3.envs.lite.maps import MAP_GROUPS, LiteMap, load_map
from sb3_visual_td3.envs.lite.track import LANE_WIDTH_M, LEFT_LINE_M, RIGHT_LINE_M
from sb3_visual_td3.envs.lite.vehicle import Motion, VehicleSettings, advance

_SKY_TINT = np.array([0.86, 0.97, 1.14], np.float32)
_LAND_TINT = np.array([0.86, 1.06, 0.62], np.float32)


class LiteWorld:
    """Implements ``envs.backend.Backend``: deterministic, without any randomness of its own.

    :param tick_s: length of a tick, 0.001 to 0.2 s.
    :param image_size: height and width of the camera's frames, an even number from 32 to 512.
    :param vehicle: what the car can do.
    :raises ValueError: if ``tick_s`` or ``image_size`` is none of these.
    """

    def __init__(self, *, tick_s: float = 0.05, image_size: int = 84, vehicle: VehicleSettings | None = None) -> None:
        self._tick_s = check_quantity("dt_s", tick_s, 0.001, 0.2, "s")
        side = check_count("image_size", image_size, 32, 512)
        if side % 2:
            raise ValueError(f"image_size={side}: expected an even number; take {side - 1} or {side + 1}")
        self._frame_shape = (side, side)
        self._vehicle = VehicleSettings() if vehicle is None else vehicle
        self._camera = Camera(side, side)

    @property
    def map_groups(self) -> dict[str, tuple[str, ...]]:
        """The names of the maps, by group."""
        return MAP_GROUPS

    @property
    def body(self) -> BodySize:
        """Outer size of the car."""
        return self._vehicle.body

    @property
    def tick_s(self) -> float:
        """Length of a tick in seconds."""
        return self._tick_s

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of ``camera_frame()`` in pixels."""
        return self._frame_shape

    def reset(self, start: Start) -> VehicleState:
        """Put the car where ``start`` says, wheels straight.

        :raises ValueError: if there is no such map.
        """
        self._map: LiteMap = load_map(start.map_name)
        track = self._map.track
        index = int(start.position * len(track.points_m)) % len(track.points_m)
        x, y, heading = track.pose_at(index, start.lateral_offset_m)
        self._motion = Motion(x, y, heading + start.heading_error_rad, start.speed_mps, 0.0)
        self._lane = track.locate(x, y, index)
        self._distance_m = 0.0
        return self._state()

    def step(self, control: Control, n_ticks: int) -> VehicleState:
        """Hold ``control`` for ``n_ticks`` ticks."""
        track = self._map.track
        for _ in range(n_ticks):
            self._motion = advance(self._motion, control, self._tick_s, self._vehicle)
        lane = track.locate(self._motion.x_m, self._motion.y_m, self._lane.nearest)
        # The first point of the lane also is its last: the shorter way round is the one driven.
        self._distance_m += math.remainder(lane.along_m - self._lane.along_m, track.length_m)
        self._lane = lane
        return self._state()

    def camera_frame(self) -> NDArray[np.uint8]:
        """Return what the camera sees: ``(height, width) uint8``, grey, a new array."""
        return self._camera.draw(self._map, self._motion.x_m, self._motion.y_m, self._motion.yaw_rad)

    def picture(self, height: int, width: int) -> NDArray[np.uint8]:
        """Return the same scene for people: ``(height, width, 3) uint8``, RGB, tinted."""
        camera = _picture_camera(height, width)
        pose = self._motion[:3]
        grey = camera.draw(self._map, *pose).astype(np.float32)[..., None]
        road = camera.paved(self._map, *pose, level=PAVED_LEVEL).astype(np.float32)[..., None] / 255.0
        tint = road + (1.0 - road) * _LAND_TINT
        tint[: height // 2] = _SKY_TINT
        return np.clip(grey * tint, 0, 255).astype(np.uint8)

    def close(self) -> None:
        """Nothing to let go of: the maps belong to the process."""

    def _state(self) -> VehicleState:
        motion, lane = self._motion, self._lane
        return VehicleState(
            x_m=motion.x_m,
            y_m=motion.y_m,
            yaw_rad=motion.yaw_rad,
            speed_mps=motion.speed_mps,
            lateral_offset_m=lane.lateral_offset_m,
            heading_error_rad=math.remainder(motion.yaw_rad - lane.heading_rad, 2.0 * math.pi),
            distance_m=self._distance_m,
            lane_width_m=LANE_WIDTH_M,
            road_left_m=LEFT_LINE_M,
            road_right_m=RIGHT_LINE_M,
        )


@lru_cache(maxsize=1)
def _picture_camera(height: int, width: int) -> Camera:
    return Camera(height, width, PICTURE_BANDS)
