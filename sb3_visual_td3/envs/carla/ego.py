"""The vehicle that the policy drives in CARLA, with its cameras and its collision and lane sensors.

What CARLA's client calls from its own threads does nothing but put copies into a queue: a callback that does more, or
that is under way when Python ends, ends the process.
"""

from __future__ import annotations

import contextlib
import time
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.envs.backend import CHASE_AHEAD_M, CHASE_HEIGHT_M, BodySize, Control, PictureView
from sb3_visual_td3.envs.carla.connection import Connection, client_library, lost_on_error
from sb3_visual_td3.envs.carla.failures import SimulatorLostError, SimulatorUnusableError
from sb3_visual_td3.envs.carla.settings import CameraMount, VehicleChoice
from sb3_visual_td3.envs.road.carla_coordinates import WHEELBASE_PER_LENGTH, Pose, from_carla, image_array


class _Image(NamedTuple):
    frame: int
    height: int
    width: int
    raw: bytes


class CameraFeed:
    """An RGB camera that listens.

    :param sensor: CARLA's sensor, without a listener.
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

    :param sensor: CARLA's sensor, without a listener.
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


_ABOVE_ROAD_M = 0.1
_SPAWN_ABOVE_M = 30.0
"""It appears above the road, where nothing stands, and is put down when an episode begins."""
_MAX_WARM_UP_TICKS = 50
_WARM_UP_WAIT_S = 0.05
_PICTURE_SIZE = (480, 640)
_LET_GO_S = 0.2


class Reading(NamedTuple):
    """What the vehicle is and sees in one frame."""

    pose: Pose
    speed_mps: float
    image: NDArray[np.uint8]
    """``(height, width, 4) uint8``, BGRA."""
    picture: NDArray[np.uint8] | None
    """For people, likewise ``(480, 640, 4)``; None where nobody looks."""


class Ego:
    """A vehicle, its cameras and its collision sensor.

    :param connection: to the server.
    :param vehicle: which it is.
    :param mount: its camera.
    :param picture_view: of a second camera for people; None: there is none.
    :param timeout_s: longest wait for an image.
    :raises SimulatorLostError: if the server does not do as asked.
    :raises SimulatorUnusableError: if it has no such blueprint, or the camera no such attribute.
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
        blueprint = connection.blueprint(vehicle.blueprint)
        blueprint.set_attribute("role_name", vehicle.role_name)
        with lost_on_error("spawning the vehicle"):
            self._vehicle = self._spawn(blueprint)
            self._vehicle.set_simulate_physics(False)
        self._camera = self._listen_to_camera(mount.size, mount.fov_deg, _transform_of(mount), mount.attributes)
        self._pictures: CameraFeed | None = None
        if picture_view is not None:
            self.look_from(picture_view)
        collision = connection.blueprint("sensor.other.collision")
        with lost_on_error("attaching the collision sensor"):
            self._collisions = CollisionFeed(self._attach(collision, self._carla.Transform()))
        self._start_frame = self.warm_up()

    def look_from(self, view: PictureView) -> None:
        """Have a second camera, for people.

        :raises SimulatorLostError: if the server does not do as asked.
        """
        ahead_m, height_m = (CHASE_AHEAD_M, CHASE_HEIGHT_M) if view == "chase" else CameraMount().position_m[::2]
        place = self._carla.Transform(self._carla.Location(x=ahead_m, z=height_m))
        self._pictures = self._listen_to_camera(_PICTURE_SIZE, 90.0, place, {})

    def warm_up(self) -> int:
        """Tick until the first images come, for listening begins some ticks after it was asked for.

        :return: the last tick's frame.
        :raises SimulatorLostError: if they do not come.
        """
        feeds = [feed for feed in (self._camera, self._pictures) if feed is not None]
        deadline_s = time.monotonic() + self._timeout_s
        for _ in range(_MAX_WARM_UP_TICKS):
            frame = self._connection.tick_alone()
            if all(feed.has_image_of(frame, _WARM_UP_WAIT_S) for feed in feeds):
                return frame
            if time.monotonic() > deadline_s:
                break
        raise SimulatorLostError("the camera sends no images")

    @property
    def body(self) -> BodySize:
        """Outer size of the vehicle; where its wheels stand is worked out from its length.

        :raises SimulatorLostError: if the server, which the client asks for it, does not answer.
        """
        with lost_on_error("measuring the vehicle"):
            extent = self._vehicle.bounding_box.extent
        return BodySize(2.0 * extent.x, 2.0 * extent.y, 2.0 * extent.x * WHEELBASE_PER_LENGTH)

    def place(self, pose: Pose) -> int:
        """Put the vehicle onto the road, at rest for one tick, and return that tick's frame.

        :raises SimulatorLostError: if the server does not do as asked.
        """
        with lost_on_error("placing the vehicle"):
            self._vehicle.apply_control(self._carla.VehicleControl())
            self._vehicle.set_simulate_physics(False)
            self._vehicle.set_transform(self._connection.transform(pose, _ABOVE_ROAD_M))
        self._start_frame = self._connection.tick_alone()
        return self._start_frame

    def release(self, yaw_rad: float, speed_mps: float) -> None:
        """Let it roll from the next tick on.

        :raises SimulatorLostError: if the server does not do as asked.
        """
        velocity = self._carla.Vector3D(x=float(speed_mps * np.cos(yaw_rad)), y=float(-speed_mps * np.sin(yaw_rad)))
        with lost_on_error("releasing the vehicle"):
            self._vehicle.set_simulate_physics(True)
            self._vehicle.set_target_velocity(velocity)

    def control(self, control: Control) -> None:
        """Hold ``control`` from the next tick on.

        :raises SimulatorLostError: if the client refuses it.
        """
        steer, throttle, brake = control
        with lost_on_error("controlling the vehicle"):
            self._vehicle.apply_control(self._carla.VehicleControl(throttle=throttle, steer=steer, brake=brake))

    def read(self, frame: int) -> Reading:
        """Return what it is and sees in this frame, which is the latest.

        :raises SimulatorLostError: if it is gone, or an image does not come.
        """
        deadline_s = time.monotonic() + self._timeout_s
        with lost_on_error("reading the vehicle"):
            snapshot = self._connection.world.get_snapshot()
            own = snapshot.find(self._vehicle.id) if snapshot.frame == frame else None
        if own is None:
            raise SimulatorLostError(f"the vehicle is not in the world of frame {frame}: somebody has destroyed it")
        transform, velocity = own.get_transform(), own.get_velocity()
        pose = from_carla(transform.location.x, transform.location.y, transform.rotation.yaw)
        image = self._camera.take(frame, deadline_s)
        picture = None if self._pictures is None else self._pictures.take(frame, deadline_s)
        return Reading(pose, float(np.hypot(velocity.x, velocity.y)), image, picture)

    def has_collided(self) -> bool:
        """Return whether a collision has come in since it was placed and was last asked about."""
        return self._collisions.has_event_after(self._start_frame)

    def close(self) -> None:
        """Destroy sensors and vehicle, in the order that does no harm; never raises."""
        feeds = [feed for feed in (self._camera, self._pictures, self._collisions) if feed is not None]
        for feed in feeds:
            with contextlib.suppress(RuntimeError):
                feed.sensor.stop()
        time.sleep(_LET_GO_S)  # a message may be on its way to the callback
        for actor in (*(feed.sensor for feed in feeds), self._vehicle):
            with contextlib.suppress(RuntimeError):
                actor.destroy()

    def abandon(self) -> None:
        """Let go of it without a word to a server that does not answer; never raises."""
        for feed in (self._camera, self._pictures, self._collisions):
            if feed is not None:
                with contextlib.suppress(RuntimeError):
                    feed.sensor.stop()

    def _spawn(self, blueprint: Any) -> Any:
        points = self._connection.map.get_spawn_points() or [self._carla.Transform()]
        for point in points:
            point.location.z += _SPAWN_ABOVE_M
            vehicle = self._connection.world.try_spawn_actor(blueprint, point)
            if vehicle is not None:
                return vehicle
        raise SimulatorLostError(f"the server spawns no vehicle at any of the map's {len(points)} spawn points")

    def _listen_to_camera(self, size: tuple[int, int], fov_deg: float, place: Any, attributes: Any) -> CameraFeed:
        blueprint = self._connection.blueprint("sensor.camera.rgb")
        asked = {"image_size_x": str(size[1]), "image_size_y": str(size[0]), "fov": str(fov_deg), **attributes}
        for name, value in asked.items():
            if not blueprint.has_attribute(name):
                raise SimulatorUnusableError(f"camera_attributes: CARLA's camera has no {name!r}")
            blueprint.set_attribute(name, str(value))
        with lost_on_error("attaching the camera"):
            return CameraFeed(self._attach(blueprint, place))  # the client asks the server for the stream

    def _attach(self, blueprint: Any, place: Any) -> Any:
        return self._connection.world.spawn_actor(blueprint, place, attach_to=self._vehicle)


def _transform_of(mount: CameraMount) -> Any:
    carla = client_library()
    x, y, z = mount.position_m
    pitch, yaw, roll = mount.rotation_deg
    return carla.Transform(carla.Location(x=x, y=y, z=z), carla.Rotation(pitch=pitch, yaw=yaw, roll=roll))
