"""Sensors whose data wait in a queue until they are asked for.

What CARLA's client calls from its own threads does nothing but put copies into a queue: a callback that does more, or
that is under way when Python ends, ends the process.
"""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.carla.failures import SimulatorLostError
from sb3_visual_td3.envs.road.carla_coordinates import image_array


class _Image(NamedTuple):
    frame: int
    height: int
    width: int
    raw: bytes


class CameraFeed:
    """An RGB camera that listens.

    :param sensor: CARLA's sensor, which nobody listens to yet.
    """

    def __init__(self, sensor: Any) -> None:
        self.sensor = sensor
        self._images: SimpleQueue[_Image] = SimpleQueue()
        put = self._images.put  # not self: a sensor that holds its feed would live for ever
        # The client's memory is let go when the callback returns.
        sensor.listen(lambda image: put(_Image(image.frame, image.height, image.width, bytes(image.raw_data))))

    def take(self, frame: int, deadline_s: float) -> NDArray[np.uint8]:
        """Return the image of a frame, ``(height, width, 4) uint8``, BGRA; older ones are dropped.

        :param frame: number of the frame, as ``world.tick()`` returned it.
        :param deadline_s: until when it may come, of ``time.monotonic()``.
        :raises SimulatorLostError: if it does not come, or comes cut off.
        """
        while True:
            try:
                image = self._images.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except Empty:
                raise SimulatorLostError(f"no camera image of frame {frame} came in time") from None
            if image.frame > frame:
                raise SimulatorLostError(f"camera image of frame {image.frame} came instead of frame {frame}'s")
            if image.frame == frame:
                try:
                    return image_array(image.raw, image.height, image.width)
                except ValueError as error:
                    raise SimulatorLostError(str(error)) from error

    def has_image_of(self, frame: int, wait_s: float) -> bool:
        """Return whether the image of this frame comes within ``wait_s``; a camera sends none until it is set up."""
        try:
            self.take(frame, time.monotonic() + wait_s)
        except SimulatorLostError:
            return False
        return True


class CollisionFeed:
    """A collision sensor that listens.

    :param sensor: CARLA's sensor, which nobody listens to yet.
    """

    def __init__(self, sensor: Any) -> None:
        self.sensor = sensor
        self._frames: SimpleQueue[int] = SimpleQueue()
        put = self._frames.put
        sensor.listen(lambda event: put(event.frame))

    def has_event_after(self, frame: int) -> bool:
        """Return whether a collision came in after this frame; what came before is forgotten."""
        found = False
        while True:
            try:
                found = self._frames.get_nowait() > frame or found
            except Empty:
                return found
