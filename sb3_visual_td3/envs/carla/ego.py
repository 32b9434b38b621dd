"""Control the vehicle that the policy drives in CARLA, with its cameras and its collision sensor.

CARLA's client runs sensor callbacks in its own threads. The callbacks here only copy data into a queue, so that
they end quickly: if a callback is still running when Python exits, the process aborts.
"""

from __future__ import annotations

import contextlib
import time
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import (
    CAMERA_AHEAD_M,
    CAMERA_HEIGHT_M,
    CHASE_AHEAD_M,
    CHASE_HEIGHT_M,
    BodySize,
    CollidedWith,
    Control,
    PictureView,
)
from sb3_visual_td3.envs.carla.connection import Connection, client_library, lost_on_error
from sb3_visual_td3.envs.carla.failures import SimulatorLostError, SimulatorUnusableError
from sb3_visual_td3.envs.carla.settings import CameraMount, VehicleChoice
from sb3_visual_td3.envs.road.carla_coordinates import WHEELBASE_PER_LENGTH, from_carla, image_array
from sb3_visual_td3.envs.road.light_cycle import LightColour
from sb3_visual_td3.envs.road.shapes import Pose


class _Image(NamedTuple):
    """Hold a copy of a ``carla.Image``; ``raw`` has ``height * width * 4`` bytes, BGRA."""

    frame: int
    height: int
    width: int
    raw: bytes


class CameraFeed:
    """Receive the images of an RGB camera.

    :param sensor: CARLA's sensor, to which nothing else may listen: a second listener makes the client abort at exit
    """

    def __init__(self, sensor: Any) -> None:
        self.sensor = sensor
        self._images: SimpleQueue[_Image] = SimpleQueue()
        # If the callback used ``self``, the sensor and its feed would keep each other alive.
        put = self._images.put
        # bytes() copies: the client frees raw_data when the callback returns.
        sensor.listen(lambda image: put(_Image(image.frame, image.height, image.width, bytes(image.raw_data))))

    def take(self, frame: int, deadline_s: float) -> NDArray[np.uint8]:
        """Return the image of a frame and drop older images.

        :param frame: number of the frame, as ``world.tick()`` returned it
        :param deadline_s: time of ``time.monotonic()`` at which to give up
        :return: ``(height, width, 4) uint8``, BGRA
        :raises SimulatorLostError: if the image does not arrive in time or is incomplete
        """
        while True:
            try:
                image = self._images.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except Empty:
                raise SimulatorLostError(
                    f"no camera image of frame {frame} arrived in time; increase timeout_s if the simulator is slow"
                ) from None
            if image.frame > frame:
                raise SimulatorLostError(
                    f"a camera image of frame {image.frame} arrived instead of the image of frame {frame}"
                )
            if image.frame == frame:
                try:
                    # A truncated image has the right width and height, but too few bytes.
                    return image_array(image.raw, image.height, image.width)
                except ValueError as error:
                    raise SimulatorLostError(str(error)) from error

    def has_image_of(self, frame: int, wait_s: float) -> bool:
        """Return whether the image of a frame arrives in time.

        :param frame: the frame's number
        :param wait_s: longest wait in seconds
        """
        try:
            self.take(frame, time.monotonic() + wait_s)
        except SimulatorLostError:
            return False
        return True


class CollisionFeed:
    """Receive and store the events of a collision sensor.

    :param sensor: CARLA's sensor, to which nothing else listens
    """

    def __init__(self, sensor: Any) -> None:
        self.sensor = sensor
        self._events: SimpleQueue[tuple[int, str]] = SimpleQueue()
        put = self._events.put
        sensor.listen(lambda event: put((event.frame, str(event.other_actor.type_id))))

    def collided_with_after(self, frame: int) -> CollidedWith:
        """Return what the vehicle has collided with in frames after ``frame``, and clear the stored events.

        :param frame: number of a frame
        :return: kind of the first other actor; ``""`` without a collision
        """
        found: CollidedWith = ""
        while True:
            try:
                event_frame, type_id = self._events.get_nowait()
            except Empty:
                return found
            if event_frame > frame and not found:
                kind = type_id.split(".", maxsplit=1)[0]
                # Everything else is part of the layout: "static.building", "static.pole", "traffic.traffic_light".
                found = _KINDS.get(kind, "layout")


_KINDS: dict[str, CollidedWith] = {"vehicle": "vehicle", "walker": "walker"}
"""What the vehicle collides with, by the first word of the other actor's type."""
_COLOURS: dict[str, LightColour] = {"Red": "red", "Yellow": "yellow", "Green": "green", "Off": "off"}
"""Colours by the names of ``carla.TrafficLightState``."""
# At height 0 the wheels would start inside the road's surface.
_ABOVE_ROAD_M = 0.1
# The vehicle is spawned above the road, where nothing blocks it, and put down when an episode starts.
_SPAWN_ABOVE_M = 30.0
_MAX_WARM_UP_TICKS = 50
_WARM_UP_WAIT_S = 0.05
_PICTURE_SIZE = (480, 640)
# Pause between stop() and destroy(), so that a callback that is already running ends first.
_STOP_PAUSE_S = 0.2


class Reading(NamedTuple):
    """Hold the vehicle's motion and camera images in one frame of the simulation."""

    pose: Pose
    speed_mps: float
    image: NDArray[np.uint8]
    """``(height, width, 4) uint8``, BGRA."""
    picture: NDArray[np.uint8] | None
    """The image of the second camera, for human viewers: ``(480, 640, 4) uint8``, BGRA; None without this camera."""


class Ego:
    """Control the vehicle that the policy drives, its cameras and its collision sensor.

    :param connection: connection to the server
    :param vehicle: the vehicle's blueprint and role
    :param mount: position and image format of the policy's camera
    :param picture_view: view of a second camera, for human viewers; None for no second camera
    :param timeout_s: longest wait for an image, in seconds
    :raises SimulatorLostError: if the server fails
    :raises SimulatorUnusableError: if the server lacks the blueprint, or CARLA's camera lacks a requested attribute
    """

    def __init__(
        self,
        connection: Connection,
        vehicle: VehicleChoice,
        mount: CameraMount,
        picture_view: PictureView | None,
        timeout_s: float,
    ) -> None:
        self._carla, self._connection, self._timeout_s = client_library(), connection, timeout_s
        self._lights: dict[str, Any] = {}
        """CARLA's traffic lights that have been read, by their ids in the map; None for one that the server lacks."""
        blueprint = connection.blueprint(vehicle.blueprint)
        blueprint.set_attribute("role_name", vehicle.role_name)
        with lost_on_error("spawning the vehicle"):
            self._vehicle = self._spawn(blueprint)
            self._vehicle.set_simulate_physics(False)  # it must not fall before the first episode
        self._camera = self._listen_to_camera(mount.size, mount.fov_deg, _transform_of(mount), mount.attributes)
        self._pictures: CameraFeed | None = None
        if picture_view is not None:
            self.look_from(picture_view)
        collision = connection.blueprint("sensor.other.collision")
        with lost_on_error("attaching the collision sensor"):
            self._collisions = CollisionFeed(self._attach(collision, self._carla.Transform()))
        self._start_frame = self.warm_up()

    def look_from(self, view: PictureView) -> None:
        """Attach a second camera, for human viewers.

        :param view: ``"front"`` through the windscreen, ``"chase"`` from behind and above
        :raises SimulatorLostError: if the server fails
        """
        ahead_m, height_m = CAMERA_AHEAD_M, CAMERA_HEIGHT_M
        if view == "chase":
            ahead_m, height_m = CHASE_AHEAD_M, CHASE_HEIGHT_M
        transform = self._carla.Transform(self._carla.Location(x=ahead_m, z=height_m))
        self._pictures = self._listen_to_camera(_PICTURE_SIZE, 90.0, transform, {})

    def warm_up(self) -> int:
        """Tick until all cameras deliver images.

        :return: number of the last frame
        :raises SimulatorLostError: if an image does not arrive within 50 ticks or the timeout
        """
        feeds = [feed for feed in (self._camera, self._pictures) if feed is not None]
        deadline_s = time.monotonic() + self._timeout_s
        for _ in range(_MAX_WARM_UP_TICKS):
            frame = self._connection.tick_alone()
            if all(feed.has_image_of(frame, _WARM_UP_WAIT_S) for feed in feeds):
                return frame
            if time.monotonic() > deadline_s:
                break
        raise SimulatorLostError("the camera sends no images; increase timeout_s if the simulator is slow")

    @property
    def body(self) -> BodySize:
        """Return the outer size of the vehicle. The wheelbase is estimated from the length.

        :raises SimulatorLostError: if the server fails
        """
        with lost_on_error("measuring the vehicle"):
            # Reading ``bounding_box`` calls the server. The extent is half of the size.
            extent = self._vehicle.bounding_box.extent
        return BodySize(2.0 * extent.x, 2.0 * extent.y, 2.0 * extent.x * WHEELBASE_PER_LENGTH)

    def place(self, pose: Pose) -> int:
        """Put the vehicle on the road, at rest, and tick once.

        Physics stays off until :meth:`release`.

        :param pose: position and heading
        :return: number of the frame
        :raises SimulatorLostError: if the server fails
        """
        with lost_on_error("placing the vehicle"):
            self._vehicle.apply_control(self._carla.VehicleControl())
            self._vehicle.set_simulate_physics(False)
            self._vehicle.set_transform(self._connection.transform(pose, _ABOVE_ROAD_M))
        self._start_frame = self._connection.tick_alone()
        return self._start_frame

    def release(self, heading_rad: float, speed_mps: float) -> None:
        """Turn on physics and set the initial velocity, from the next tick onwards.

        :param heading_rad: heading in radians, counter-clockwise
        :param speed_mps: speed in m/s
        :raises SimulatorLostError: if the server fails
        """
        # CARLA's y axis points to the right, the task's to the left.
        x, y = float(speed_mps * np.cos(heading_rad)), float(-speed_mps * np.sin(heading_rad))
        velocity = self._carla.Vector3D(x=x, y=y)
        with lost_on_error("releasing the vehicle"):
            self._vehicle.set_simulate_physics(True)
            self._vehicle.set_target_velocity(velocity)

    def control(self, control: Control) -> None:
        """Apply a control from the next tick onwards. CARLA keeps it until the next control.

        :param control: steering, throttle and brake
        :raises SimulatorLostError: if the client fails
        """
        steer, throttle, brake = control
        with lost_on_error("controlling the vehicle"):
            self._vehicle.apply_control(self._carla.VehicleControl(throttle=throttle, steer=steer, brake=brake))

    def read(self, frame: int) -> Reading:
        """Return the vehicle's motion and images in the latest frame.

        :param frame: number of the frame, as the last tick returned it
        :raises SimulatorLostError: if the vehicle no longer exists, or an image does not arrive
        """
        deadline_s = time.monotonic() + self._timeout_s
        with lost_on_error("reading the vehicle"):
            # The snapshot is used, because get_location() and is_alive return stale data for a destroyed actor.
            snapshot = self._connection.world.get_snapshot()
            own = snapshot.find(self._vehicle.id) if snapshot.frame == frame else None
        if own is None:
            raise SimulatorLostError(
                f"the vehicle is missing in frame {frame}: another client has destroyed it; stop the other client"
            )
        transform, velocity = own.get_transform(), own.get_velocity()
        pose = from_carla(transform.location.x, transform.location.y, transform.rotation.yaw)
        image = self._camera.take(frame, deadline_s)
        picture = None if self._pictures is None else self._pictures.take(frame, deadline_s)
        return Reading(pose, float(np.hypot(velocity.x, velocity.y)), image, picture)

    def light_colour(self, opendrive_id: str) -> LightColour:
        """Return the colour of a traffic light in the latest frame.

        :param opendrive_id: id of the light in the map
        :return: the colour; ``"unknown"`` if the server has no such light
        :raises SimulatorLostError: if the client fails
        """
        with lost_on_error("reading a traffic light"):
            if opendrive_id not in self._lights:
                self._lights[opendrive_id] = self._connection.world.get_traffic_light_from_opendrive_id(opendrive_id)
            light = self._lights[opendrive_id]
            if light is None:
                return "unknown"
            return _COLOURS.get(str(light.get_state()), "unknown")

    def collided_with(self) -> CollidedWith:
        """Return what the vehicle has hit since the last call; collisions before the last ``place`` do not count.

        :return: kind of object, such as ``"vehicle"``; ``""`` without a collision
        """
        return self._collisions.collided_with_after(self._start_frame)

    def close(self) -> None:
        """Stop and destroy the sensors, then destroy the vehicle; never raises.

        The opposite order can crash the client or the server.
        """
        feeds = [feed for feed in (self._camera, self._pictures, self._collisions) if feed is not None]
        for feed in feeds:
            with contextlib.suppress(RuntimeError):
                feed.sensor.stop()
        time.sleep(_STOP_PAUSE_S)
        for actor in (*(feed.sensor for feed in feeds), self._vehicle):
            with contextlib.suppress(RuntimeError):
                actor.destroy()

    def abandon(self) -> None:
        """Stop the sensors without a call to the server, which no longer answers; never raises.

        The actors are not destroyed.
        """
        for feed in (self._camera, self._pictures, self._collisions):
            if feed is not None:
                with contextlib.suppress(RuntimeError):
                    feed.sensor.stop()

    def _spawn(self, blueprint: Any) -> Any:
        # A map made from bare OpenDRIVE may have no spawn points: use its origin.
        points = self._connection.map.get_spawn_points() or [self._carla.Transform()]
        for point in points:
            point.location.z += _SPAWN_ABOVE_M
            vehicle = self._connection.world.try_spawn_actor(blueprint, point)
            if vehicle is not None:
                return vehicle
        raise SimulatorLostError(
            f"the server refused to spawn a vehicle at any of the map's {len(points)} spawn points; remove other "
            "actors from the map, or restart the server"
        )

    def _listen_to_camera(self, size: tuple[int, int], fov_deg: float, transform: Any, attributes: Any) -> CameraFeed:
        blueprint = self._connection.blueprint("sensor.camera.rgb")
        values = {"image_size_x": str(size[1]), "image_size_y": str(size[0]), "fov": str(fov_deg), **attributes}
        for name, value in values.items():
            if not blueprint.has_attribute(name):
                raise SimulatorUnusableError(f"camera_attributes: CARLA's camera has no attribute {name!r}; remove it")
            blueprint.set_attribute(name, str(value))
        with lost_on_error("attaching the camera"):
            # The constructor of the feed calls the server to listen, so it can fail too.
            return CameraFeed(self._attach(blueprint, transform))

    def _attach(self, blueprint: Any, transform: Any) -> Any:
        return self._connection.world.spawn_actor(blueprint, transform, attach_to=self._vehicle)


def _transform_of(mount: CameraMount) -> Any:
    carla = client_library()
    x, y, z = mount.position_m
    pitch, yaw, roll = mount.rotation_deg
    return carla.Transform(carla.Location(x=x, y=y, z=z), carla.Rotation(pitch=pitch, yaw=yaw, roll=roll))
