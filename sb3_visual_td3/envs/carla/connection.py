"""Connect to a CARLA server, control its ticks, and restore its settings at the end.

CARLA 0.9.16's client does not survive a fork, and it never reconnects to a server that has died. After a failure a new
:class:`Connection` replaces the old one.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

from sb3_visual_td3.common.errors import in_one_line
from sb3_visual_td3.common.installation import install_command
from sb3_visual_td3.envs.carla.failures import SimulatorLostError, SimulatorUnusableError
from sb3_visual_td3.envs.carla.server import Address
from sb3_visual_td3.envs.road.carla_coordinates import map_name_of, to_carla
from sb3_visual_td3.envs.road.shapes import Pose

# By default, the client of each environment would start one thread per core.
_WORKER_THREADS = 2
_GROUND_SEARCHES, _SAME_HEIGHT_M = 5, 0.01
_FIRST_TICK_TIMEOUTS_S = (0.3, 2.0)


def client_library() -> Any:
    """Import and return the module ``carla``.

    :raises ImportError: if the extra ``carla`` is not installed
    """
    try:
        import carla
    except ImportError as error:
        raise ImportError(f"CarlaDriving-v0 needs CARLA's client: {install_command('carla')}") from error
    return carla


@contextlib.contextmanager
def lost_on_error(doing: str) -> Iterator[None]:
    """Convert every error of CARLA's client within this ``with`` block to a ``SimulatorLostError``.

    :param doing: what the client does, for the message, such as ``"loading Town01"``
    :raises SimulatorLostError: if the block raises a RuntimeError
    """
    try:
        yield
    except (SimulatorLostError, SimulatorUnusableError):  # these are RuntimeErrors too, but already specific
        raise
    except RuntimeError as error:
        raise SimulatorLostError(f"CARLA failed while {doing}: {in_one_line(error)}") from error


class Connection:
    """Hold a client and its world in synchronous mode: the world ticks only when this client requests it.

    :param address: address of a server that has answered a probe
    :param tick_s: length of a tick in seconds
    :param timeout_s: longest wait for an answer or a tick, in seconds
    :param load_timeout_s: longest wait for a map to load, in seconds
    :param found_settings: the world's settings as the first connection found them; None for the first connection
    :raises SimulatorLostError: if the server fails
    """

    def __init__(
        self, address: Address, *, tick_s: float, timeout_s: float, load_timeout_s: float, found_settings: Any = None
    ) -> None:
        self._carla = client_library()
        self._pid = os.getpid()
        self._tick_s, self._timeout_s, self._load_timeout_s = tick_s, timeout_s, load_timeout_s
        with lost_on_error("connecting"):
            self.client = self._carla.Client(*address, worker_threads=_WORKER_THREADS)
            self.client.set_timeout(timeout_s)
            self.world = self.client.get_world()
            self.found_settings = found_settings or self.world.get_settings()
            self._set_synchronous_mode()
        # Actors are invisible to a client until its first tick: before it, get_actors() returns an empty list.
        self.last_frame = self._first_tick()
        self.map = self._read_map()

    @property
    def is_of_this_process(self) -> bool:
        """Return whether the connection was created in this process; a client does not survive a fork."""
        return self._pid == os.getpid()

    @property
    def map_name(self) -> str:
        """Return the short name of the loaded map, such as ``"Town01"``."""
        return map_name_of(self.map.name)

    def load(self, map_name: str) -> None:
        """Load a map unless it is loaded already. Loading destroys all actors.

        :param map_name: short name of the map; empty for the loaded map
        :raises SimulatorUnusableError: if the server has no such map
        :raises SimulatorLostError: if the server fails
        """
        with lost_on_error(f"loading {map_name}"):
            if map_name in {"", self.map_name}:
                return
            available = self.client.get_available_maps()
            known = sorted({map_name_of(name) for name in available})
            if not known:
                raise SimulatorLostError(
                    "the server lists no maps: it is still starting; increase patience_s if this persists"
                )
            if map_name not in known:
                raise SimulatorUnusableError(f"there is no map {map_name!r} on this server: choose from {known}")
            self.client.set_timeout(self._load_timeout_s)
            try:
                # By default load_world() would return to asynchronous mode.
                self.world = self.client.load_world(map_name, reset_settings=False)
            finally:
                self.client.set_timeout(self._timeout_s)
            self._set_synchronous_mode()
        self.last_frame = self.tick()
        self.map = self._read_map()

    def _read_map(self) -> Any:
        with lost_on_error("reading the map"):
            return self.world.get_map()

    def ground(self, x_m: float, y_m: float) -> tuple[float, float]:
        """Return the road's height in metres and its pitch in degrees at a place in CARLA's coordinates.

        Where roads cross at different heights, this is the road that is nearest to the height 0.

        :param x_m: x in metres
        :param y_m: y in metres
        """
        height_m, pitch_deg = 0.0, 0.0
        # The client returns the nearest point of a lane in 3D. If the search begins at a wrong height, this point of a
        # sloping road is not exactly at (x_m, y_m). The next search therefore begins at the height that was found.
        for _ in range(_GROUND_SEARCHES):
            waypoint = self.map.get_waypoint(self._carla.Location(x_m, y_m, height_m))
            if waypoint is None:
                break
            before_m, height_m = height_m, waypoint.transform.location.z
            pitch_deg = waypoint.transform.rotation.pitch
            if abs(height_m - before_m) < _SAME_HEIGHT_M:
                break
        return height_m, pitch_deg

    def transform(self, pose: Pose, above_m: float = 0.0) -> Any:
        """Return the ``carla.Transform`` of a pose on the road, with the road's pitch.

        :param pose: position and heading in this package's coordinates
        :param above_m: height above the road
        """
        x, y, yaw_deg = to_carla(pose)
        height_m, pitch_deg = self.ground(x, y)
        location = self._carla.Location(x=x, y=y, z=height_m + above_m)
        return self._carla.Transform(location, self._carla.Rotation(pitch=pitch_deg, yaw=yaw_deg))

    def _set_synchronous_mode(self) -> None:
        settings = self.world.get_settings()
        # The server stores the step in single precision.
        is_step_set = math.isclose(settings.fixed_delta_seconds or 0.0, self._tick_s, rel_tol=1e-5)
        if settings.synchronous_mode and is_step_set:
            # apply_settings() would wait for the next tick, which no other client makes in synchronous mode.
            return
        settings.synchronous_mode = True
        settings.fixed_delta_seconds = self._tick_s
        self.world.apply_settings(settings)

    def tick(self) -> int:
        """Advance the world by one tick and return the frame's number.

        :raises SimulatorLostError: if the server fails
        """
        with lost_on_error("ticking"):
            self.last_frame = int(self.world.tick(self._timeout_s))
        return self.last_frame

    def _first_tick(self) -> int:
        """Advance the world by one tick, or by more if the client misses the first ticks.

        A new client may miss a tick, and ``world.tick()`` then waits until its timeout. So the first timeouts are
        short.
        """
        for timeout_s in _FIRST_TICK_TIMEOUTS_S:
            if timeout_s < self._timeout_s:
                with contextlib.suppress(RuntimeError):
                    return int(self.world.tick(timeout_s))
        return self.tick()

    def tick_alone(self) -> int:
        """Advance the world by one tick, and verify that no other client has ticked it since the last call.

        :return: the frame's number
        :raises SimulatorLostError: if the server fails, or another client has ticked the world
        """
        expected = self.last_frame + 1
        frame = self.tick()
        if frame != expected:
            raise SimulatorLostError(
                f"frame {frame} came after frame {expected - 1}: another client ticks this server; "
                "stop the other client"
            )
        return frame

    def blueprint(self, blueprint_id: str) -> Any:
        """Return one of the server's blueprints.

        :param blueprint_id: id, such as ``"vehicle.tesla.model3"``
        :raises SimulatorUnusableError: if the server does not have this blueprint
        :raises SimulatorLostError: if the server fails
        """
        with lost_on_error("reading the blueprints"):
            library = self.world.get_blueprint_library()
            found = [each for each in library if each.id == blueprint_id]
        if not library:
            raise SimulatorLostError(
                "the server has no blueprints: it is still starting; increase patience_s if this persists"
            )
        if not found:
            kind = blueprint_id.split(".", maxsplit=1)[0]
            known = sorted(each.id for each in library if each.id.startswith(kind))
            raise SimulatorUnusableError(f"there is no blueprint {blueprint_id!r} on this server: choose from {known}")
        return found[0]

    def remove_actors_of(self, role_names: Sequence[str]) -> None:
        """Destroy all actors that have one of the given roles, and the sensors of these actors.

        :param role_names: the roles
        :raises SimulatorLostError: if the server fails
        """
        with lost_on_error("removing actors of an earlier run"):
            actors = list(self.world.get_actors())
            left = {each.id for each in actors if each.attributes.get("role_name") in role_names}
            sensors = [each.id for each in actors if each.parent is not None and each.parent.id in left]
            # Sensors first: destroying a vehicle before its sensors is known to crash CARLA.
            self.destroy([*sensors, *left])

    def destroy(self, actor_ids: Sequence[int]) -> None:
        """Destroy actors, and ignore actors that no longer exist.

        :param actor_ids: ids of the actors
        """
        commands = [self._carla.command.DestroyActor(actor_id) for actor_id in actor_ids]
        if commands:
            # False: do not tick. With True the call deadlocks until its timeout when Python sensors listen (0.9.16).
            self.client.apply_batch_sync(commands, False)

    def leave(self, role_names: Sequence[str], *, as_found: bool) -> None:
        """Remove this environment's actors and restore the world's settings; never raises.

        :param role_names: roles of this environment's actors
        :param as_found: whether to restore the settings; False if another client continues to use the server
        """
        with contextlib.suppress(RuntimeError):
            self.remove_actors_of(role_names)
            if as_found:
                self.world.apply_settings(self.found_settings)
