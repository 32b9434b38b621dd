"""Draw the camera's image in layers: ground and sky, light, cars, rain, and finally the sensor's blur and noise."""

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
from sb3_visual_td3.envs.lite.figure_painter import NO_FIGURES, Figures, paint_scene
from sb3_visual_td3.envs.lite.weather import WEATHERS, WeatherFilter, choose_sky
from sb3_visual_td3.envs.road.collision import OrientedBox
from sb3_visual_td3.envs.road.ground import PAVED_LEVEL
from sb3_visual_td3.envs.road.maps import Scene

Pose = tuple[float, float, float]
"""x and y in metres, yaw in radians."""
Cars = tuple[Sequence[OrientedBox], Sequence[int]]
"""Boxes of the other cars, and an index into ``PAINTS`` for each car."""


@dataclass(frozen=True)
class CameraSettings:
    """Hold size, colour, weather, blur and noise of the camera's frames.

    :raises ValueError: if a value is out of range
    """

    image_size: int = 84
    """Height and width of a frame, an even number from 32 to 512."""
    grayscale: bool = True
    """True for grey frames ``(height, width)``, False for RGB frames ``(3, height, width)``."""
    weather: str = "clear"
    """``"clear"``, ``"rain"``, ``"night"`` or ``"random"``; every weather except ``"clear"`` varies with the episode's
    seed."""
    noise_std: float = 0.0
    """Standard deviation of the sensor's noise in grey levels, 0 to 100."""
    blur: float = 0.0
    """Standard deviation of the lens' Gaussian blur in pixels, 0 to 10."""

    def __post_init__(self) -> None:
        coerce_count(self, "image_size", 32, 512)
        side = self.image_size
        if side % 2:
            raise ValueError(f"image_size={side}: expected an even number; set {side - 1} or {side + 1}")
        check_flag("grayscale", self.grayscale)
        check_choice("weather", self.weather, WEATHERS)
        coerce_quantity(self, "noise_std", 0.0, 100.0, "grey levels")
        coerce_quantity(self, "blur", 0.0, 10.0, "pixels")

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Return the shape of a frame: ``(height, width)`` in grey, ``(3, height, width)`` in colour."""
        if self.grayscale:
            return (self.image_size, self.image_size)
        return (3, self.image_size, self.image_size)


class View:
    """Draw what the camera sees in an episode; the same place, cars and tick always give the same picture.

    :param settings: settings of the camera's frames
    """

    def __init__(self, settings: CameraSettings) -> None:
        self._settings = settings
        self._camera = Camera(settings.image_size, settings.image_size)
        self._is_perfect = settings.noise_std == settings.blur == 0.0

    def reset(self, scene: Scene, scene_seed: int) -> None:
        """Begin an episode on a map.

        :param scene: the map to draw
        :param scene_seed: seed of the weather and the noise
        """
        self._scene, self._seed = scene, scene_seed
        self._sky = choose_sky(self._settings.weather, scene_seed)
        self._filter: WeatherFilter | None = None
        if self._sky is not None:
            self._filter = self._camera.weather_filter(self._sky)

    def frame(self, pose: Pose, cars: Cars, tick: int, figures: Figures = NO_FIGURES) -> NDArray[np.uint8]:
        """Return a frame for the policy.

        :param pose: pose of the vehicle that carries the camera
        :param cars: other cars
        :param tick: number of ticks since the reset
        :param figures: traffic lights and pedestrians
        :return: a new ``uint8`` array of the shape ``CameraSettings.frame_shape``
        """
        if self._settings.grayscale:
            frame = self._camera.draw(self._scene, *pose)
        else:
            frame = _draw_in_colour(self._camera, self._scene, pose)
        self._add_weather_and_cars(frame, self._camera, self._filter, pose, cars, tick, figures)
        if not self._is_perfect:
            frame = self._add_blur_and_noise(frame, tick)
        if self._settings.grayscale:
            return frame
        return np.ascontiguousarray(frame.transpose(2, 0, 1))  # (height, width, 3) -> (3, height, width)

    def picture(
        self,
        size: tuple[int, int],
        view: PictureView,
        pose: Pose,
        cars: Cars,
        tick: int,
        figures: Figures = NO_FIGURES,
    ) -> NDArray[np.uint8]:
        """Return an image of the scene for human viewers, without blur and noise.

        :param size: height and width in pixels
        :param view: ``"front"`` through the camera, ``"chase"`` from behind and above the vehicle
        :param pose: pose of the vehicle that carries the camera
        :param cars: the cars to draw
        :param tick: number of ticks since the reset
        :param figures: traffic lights and pedestrians
        :return: ``(height, width, 3) uint8``, RGB, a new array
        """
        camera = _picture_camera(*size, view)
        picture = _draw_in_colour(camera, self._scene, pose)
        weather = None if self._sky is None else camera.weather_filter(self._sky)
        self._add_weather_and_cars(picture, camera, weather, pose, cars, tick, figures)
        return picture

    def _add_weather_and_cars(
        self,
        frame: NDArray[np.uint8],
        camera: Camera,
        weather: WeatherFilter | None,
        pose: Pose,
        cars: Cars,
        tick: int,
        figures: Figures,
    ) -> None:
        """Apply the light to ``frame``, then draw cars, traffic lights and pedestrians, then rain; all in place."""
        # The filter applies the light for the distance of the ground. Cars are drawn afterwards with the light for
        # their own distance. Rain falls in front of everything.
        if weather is not None:
            weather.apply(frame)
        if figures is not NO_FIGURES:
            paint_scene(frame, *cars, figures, pose, camera.lens, self._sky)
        elif cars[0]:
            paint_cars(frame, *cars, pose, camera.lens, self._sky)
        if weather is not None:
            weather.draw_rain(frame, tick)

    def _add_blur_and_noise(self, frame: NDArray[np.uint8], tick: int) -> NDArray[np.uint8]:
        """Return the frame with the blur and the noise that the camera's settings ask for."""
        if self._settings.blur:
            frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), self._settings.blur), dtype=np.uint8)
        if self._settings.noise_std:
            # Each tick has its own generator, so that a frame does not depend on how many frames were drawn before. The
            # 4 separates its stream from the streams of the traffic (1), the light (2) and the rain (3).
            rng = np.random.default_rng([self._seed, 4, tick])
            noise = rng.standard_normal(frame.shape, np.float32) * self._settings.noise_std
            frame = np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8)
        return frame


def _draw_in_colour(camera: Camera, scene: Scene, pose: Pose) -> NDArray[np.uint8]:
    """Return ground and sky in colour, ``(height, width, 3) uint8``, RGB."""
    grey = camera.draw(scene, *pose)
    return tint(grey, camera.paved(scene, *pose, level=PAVED_LEVEL), len(grey) // 2)


@lru_cache(maxsize=4)
def _picture_camera(height: int, width: int, view: PictureView) -> Camera:
    """Return a camera for pictures of this size; cached, because its geometry takes time to compute."""
    if view == "front":
        return Camera(height, width, PICTURE_BANDS)
    return Camera(height, width, PICTURE_BANDS, ahead_m=CHASE_AHEAD_M, height_m=CHASE_HEIGHT_M)
