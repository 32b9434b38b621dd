"""Draw speed, reward terms and controls onto an image for human viewers, and show the image in a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.installation import install_command
from sb3_visual_td3.envs.backend import (
    CAMERA_AHEAD_M,
    CAMERA_HEIGHT_M,
    CHASE_AHEAD_M,
    CHASE_HEIGHT_M,
    Control,
    PictureView,
    VehicleState,
)
from sb3_visual_td3.envs.observation import to_vehicle_frame

_WHITE, _GREEN, _RED, _YELLOW = (245, 245, 245), (90, 220, 110), (235, 80, 70), (245, 205, 80)
_LINE_PX = 18
"""Height of a line of text."""
_BAR_PX = 60
"""Length of a bar for the value 1; the values of a bar range from -1 to 1."""


ROUTE_AHEAD_M = tuple(float(metres) for metres in range(0, 61, 2))
"""Distances of the points at which the route ahead is drawn."""
_NEAREST_M = 1.0
"""Points of the route that are nearer to the camera than this, or behind it, are not drawn."""


def draw_route(
    picture: NDArray[np.uint8], state: VehicleState, waypoints_m: Sequence[tuple[float, float]], view: PictureView
) -> NDArray[np.uint8]:
    """Draw the route ahead onto ``picture``, in place, as a line on the ground.

    :param picture: ``(height, width, 3) uint8`` RGB, 90 degrees wide, with the horizon on the middle row
    :param state: vehicle that carries the camera
    :param waypoints_m: x and y of points of the route, in driving order
    :param view: camera that took the picture
    """
    ahead_m, height_m = (CAMERA_AHEAD_M, CAMERA_HEIGHT_M) if view == "front" else (CHASE_AHEAD_M, CHASE_HEIGHT_M)
    height_px, width_px = picture.shape[:2]
    focal_px = 0.5 * width_px  # the picture is 90 degrees wide, and tan(45 degrees) is 1
    points = []
    for x_m, y_m in waypoints_m:
        forward_m, left_m = to_vehicle_frame(state, x_m, y_m)
        depth_m = forward_m - ahead_m
        if depth_m > _NEAREST_M:
            column = 0.5 * width_px - focal_px * left_m / depth_m
            points.append((round(column), round(0.5 * height_px + focal_px * height_m / depth_m)))
    if len(points) > 1:
        cv2.polylines(picture, [np.array(points, np.int32)], False, _GREEN, 2, cv2.LINE_AA)
    return picture


def draw_hud(
    picture: NDArray[np.uint8], info: Mapping[str, Any], reward_terms: Mapping[str, float], control: Control
) -> NDArray[np.uint8]:
    """Draw speed, distance, map, reward terms and controls onto ``picture``, in place.

    :param picture: ``(height, width, 3) uint8`` RGB
    :param info: ``info`` of the step
    :param reward_terms: weighted terms of the step by name; may be empty
    :param control: the driver's controls
    """
    lines = [
        f"{info['speed_kmh']:5.1f} km/h   {info['distance_m']:6.1f} m   {info['map']}",
        f"offset {info['lateral_offset_m']:+.2f} m   marks crossed {info['lane_invasions']}",
    ]
    picture[: 3 * _LINE_PX - 6, :330] //= 2  # text is drawn on a darkened rectangle, to be readable on any ground
    for row, line in enumerate(lines, start=1):
        _write(picture, line, (10, row * _LINE_PX))
    if "command" in info:
        _draw_command(picture, info)
    _draw_terms(picture, reward_terms)
    _draw_controls(picture, control)
    if info["termination"]:
        _write(picture, info["termination"], (10, picture.shape[0] - 12), _RED)
    return picture


def _draw_command(picture: NDArray[np.uint8], info: Mapping[str, Any]) -> None:
    """Draw a line of text with the command, the distance to where it applies, and the distance to the goal."""
    command = info["command"].replace("_", " ")
    left_m = (1.0 - info["route_completion"]) * info["route_length_m"]
    picture[3 * _LINE_PX - 6 : 4 * _LINE_PX - 6, :330] //= 2
    text = f"{command} in {info['command_distance_m']:.0f} m   goal in {left_m:.0f} m"
    _write(picture, text, (10, 3 * _LINE_PX), _YELLOW)


def _draw_terms(picture: NDArray[np.uint8], reward_terms: Mapping[str, float]) -> None:
    """Draw a row for each reward term: name, value and a bar."""
    left = picture.shape[1] - 240
    picture[: len(reward_terms) * _LINE_PX + 8, left - 10 :] //= 2
    for row, (name, value) in enumerate(reward_terms.items(), start=1):
        _write(picture, f"{name:<13}", (left, row * _LINE_PX))
        _write(picture, f"{value:+.2f}", (left + 110, row * _LINE_PX))
        _draw_bar(picture, left + 196, row * _LINE_PX - 9, value, _colour_of_sign(value), 36)


def _draw_controls(picture: NDArray[np.uint8], control: Control) -> None:
    """Draw a bar for the steering and a bar for the pedals."""
    middle, bottom = picture.shape[1] // 2, picture.shape[0] - 40
    picture[bottom - 8 : bottom + 32, middle - 150 : middle + 70] //= 2
    _write(picture, "steer", (middle - 140, bottom + 8))
    _draw_bar(picture, middle, bottom, control.steer, _YELLOW, _BAR_PX)
    _write(picture, "pedals", (middle - 140, bottom + 26))
    pedal = control.throttle - control.brake
    _draw_bar(picture, middle, bottom + 18, pedal, _colour_of_sign(pedal), _BAR_PX)


def _colour_of_sign(value: float) -> tuple[int, int, int]:
    """Return the colour of a bar: green for a positive value, red for a negative one."""
    return _GREEN if value >= 0 else _RED


def _draw_bar(
    picture: NDArray[np.uint8], middle: int, top: int, value: float, colour: tuple[int, int, int], half_px: int
) -> None:
    """Draw ``value``, clipped to [-1, 1], as a bar from column ``middle``; 1 means ``half_px`` to the right."""
    end = middle + round(max(-1.0, min(1.0, value)) * half_px)
    picture[top : top + 8, min(middle, end) : max(middle, end) + 1] = colour
    picture[top - 2 : top + 10, middle] = _WHITE


def _write(picture: NDArray[np.uint8], text: str, at: tuple[int, int], colour: tuple[int, int, int] = _WHITE) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


class Window:
    """Show pictures in a window on the screen, which opens with the first picture.

    :param title: the window's title
    :raises ImportError: if pygame is not installed
    """

    def __init__(self, title: str) -> None:
        try:
            import pygame
        except ImportError as error:
            raise ImportError(f"render_mode='human' needs pygame: {install_command('video')}") from error
        self._pygame: Any = pygame
        self._title = title
        self._screen: Any = None

    def show(self, picture: NDArray[np.uint8], fps: float) -> None:
        """Show a picture, and wait if necessary, so that at most ``fps`` pictures are shown per second.

        :param picture: ``(height, width, 3) uint8`` RGB
        :param fps: pictures per second
        """
        if self._screen is None:
            self._pygame.display.init()
            self._pygame.display.set_caption(self._title)
            self._screen = self._pygame.display.set_mode((picture.shape[1], picture.shape[0]))
            self._clock = self._pygame.time.Clock()
        self._pygame.event.pump()  # without it the desktop reports the window as not responding
        # pygame's arrays are (width, height, 3).
        self._pygame.surfarray.blit_array(self._screen, picture.swapaxes(0, 1))
        self._pygame.display.flip()
        self._clock.tick(fps)

    def is_closed_by_user(self) -> bool:
        """Return whether the user has closed the window since it was shown."""
        return self._screen is not None and bool(self._pygame.event.get(self._pygame.QUIT))

    def close(self) -> None:
        """Close the window; the next picture opens a new window."""
        if self._screen is not None:
            self._screen = None
            self._pygame.display.quit()
