"""What the camera makes of the world: ground and sky, cars, weather, and the faults of the sensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.arguments import check_choice, check_flag, coerce_count, coerce_quantity
from sb3_visual_td3.envs.backend import CHASE_AHEAD_M, CHASE_HEIGHT_M, PictureView
from sb3_visual_td3.envs.lite.camera import PICTURE_BANDS, Camera, tint
from sb3_visual_td3.envs.lite.car_painter import paint_cars
from sb3_visual_td3.envs.lite.weather import WEATHERS, WeatherFilter, choose_sky
from sb3_visual_td3.envs.road.collision import OrientedBox
from sb3_visual_td3.envs.road.ground import PAVED_LEVEL
from sb3_visual_td3.envs.road.maps import LiteMap

Pose = tuple[float, float, float]
Cars = tuple[Sequence[OrientedBox], Sequence[int]]
"""The other cars and the paint of each."""


@dataclass(frozen=True)
class CameraSettings:
    """What the camera delivers.

    :raises ValueError: if a value is outside the range that its check names.
    """

    image_size: int = 84
    """Height and width of a frame, an even number from 32 to 512."""
    grayscale: bool = True
    """Grey frames ``(height, width)``; otherwise RGB frames ``(3, height, width)``."""
    weather: str = "clear"
    """``"clear"``, ``"rain"``, ``"night"`` or ``"random"``; an episode's seed varies all but the first."""
    noise_std: float = 0.0
    """Of the sensor's noise in grey levels, 0 to 100; none by default."""
    blur: float = 0.0
    """Standard deviation of the lens' blur in pixels, 0 to 10; none by default."""

    def __post_init__(self) -> None:
        coerce_count(self, "image_size", 32, 512)
        side = self.image_size
        if side % 2:
            raise ValueError(f"image_size={side}: expected an even number; take {side - 1} or {side + 1}")
        check_flag("grayscale", self.grayscale)
        check_choice("weather", self.weather, WEATHERS)
        coerce_quantity(self, "noise_std", 0.0, 100.0, "grey levels")
        coerce_quantity(self, "blur", 0.0, 10.0, "pixels")

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of a frame."""
        side = (self.image_size, self.image_size)
        return side if self.grayscale else (3, *side)


class View:
    """Draws one episode at a time; the same place, cars and tick always give the same picture.

    :param settings: what the camera delivers.
    """

    def __init__(self, settings: CameraSettings) -> None:
        self._settings = settings
        self._camera = Camera(settings.image_size, settings.image_size)
        self._is_plain = settings.noise_std == settings.blur == 0.0

    def reset(self, scene: LiteMap, scene_seed: int) -> None:
        """Begin an episode on ``scene``, in the weather that ``scene_seed`` gives."""
        self._scene, self._seed = scene, scene_seed
        self._sky = choose_sky(self._settings.weather, scene_seed)
        self._filter = None if self._sky is None else self._camera.weather_filter(self._sky)

    def frame(self, pose: Pose, cars: Cars, tick: int) -> NDArray[np.uint8]:
        """Return what the camera delivers: ``uint8`` of the settings' ``frame_shape``, a new array."""
        if self._settings.grayscale:
            frame = self._camera.draw(self._scene, *pose)
        else:
            frame = _tinted(self._camera, self._scene, pose)
        self._populate(frame, self._camera, self._filter, pose, cars, tick)
        if not self._is_plain:
            frame = self._spoil(frame, tick)
        return frame if self._settings.grayscale else np.ascontiguousarray(frame.transpose(2, 0, 1))

    def picture(self, size: tuple[int, int], view: PictureView, pose: Pose, cars: Cars, tick: int) -> NDArray[np.uint8]:
        """Return the scene for people: ``(*size, 3) uint8``, RGB, tinted, a new array."""
        camera = _picture_camera(*size, view)
        picture = _tinted(camera, self._scene, pose)
        weather = None if self._sky is None else camera.weather_filter(self._sky)
        self._populate(picture, camera, weather, pose, cars, tick)
        return picture

    def _populate(
        self,
        frame: NDArray[np.uint8],
        camera: Camera,
        weather: WeatherFilter | None,
        pose: Pose,
        cars: Cars,
        tick: int,
    ) -> None:
        if weather is not None:
            weather.apply(frame)
        if cars[0]:
            paint_cars(frame, *cars, pose, camera.lens, self._sky)
        if weather is not None:
            weather.draw_rain(frame, tick)

    def _spoil(self, frame: NDArray[np.uint8], tick: int) -> NDArray[np.uint8]:
        if self._settings.blur:
            frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), self._settings.blur), dtype=np.uint8)
        if self._settings.noise_std:
            rng = np.random.default_rng([self._seed, 4, tick])
            noise = rng.standard_normal(frame.shape, np.float32) * self._settings.noise_std
            frame = np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8)
        return frame


def _tinted(camera: Camera, scene: LiteMap, pose: Pose) -> NDArray[np.uint8]:
    grey = camera.draw(scene, *pose)
    return tint(grey, camera.paved(scene, *pose, level=PAVED_LEVEL), len(grey) // 2)


@lru_cache(maxsize=4)
def _picture_camera(height: int, width: int, view: PictureView) -> Camera:
    if view == "front":
        return Camera(height, width, PICTURE_BANDS)
    return Camera(height, width, PICTURE_BANDS, ahead_m=CHASE_AHEAD_M, height_m=CHASE_HEIGHT_M)
