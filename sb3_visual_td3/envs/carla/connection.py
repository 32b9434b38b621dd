"""One client of one server: connected, in synchronous mode, and left as it was found."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

from sb3_visual_td3.envs.carla.failures import SimulatorLostError, SimulatorUnusableError
from sb3_visual_td3.envs.carla.server import Address
from sb3_visual_td3.envs.road.carla_coordinates import Pose, map_name_of, to_carla

_WORKER_THREADS = 2
_FIRST_TICK_S, _SECOND_TICK_S = 0.3, 2.0


def client_library() -> Any:
    """Return the module ``carla``, imported now.

    :raises ImportError: if the extra is not installed.
    """
    try:
        import carla
    except ImportError as error:
        raise ImportError("CarlaDriving-v0 needs CARLA's client: pip install 'sb3-visual-td3[carla]'") from error
    return carla


@contextlib.contextmanager
def lost_on_error(doing: str) -> Iterator[None]:
    """Have every error of CARLA's client, which are all RuntimeErrors, say that the simulator is lost.

    :param doing: what is asked of it.
    :raises SimulatorLostError: for any of them.
    """
    try:
        yield
    except (SimulatorLostError, SimulatorUnusableError):
        raise
    except RuntimeError as error:
        raise SimulatorLostError(f"{doing}: {' '.join(str(error).split())}") from error


class Connection:
    """A client and its world, which ticks only when told to.

    :param address: of a server that is known to answer.
    :param tick_s: length of a tick.
    :param timeout_s: longest wait for an answer or a tick.
    :param load_timeout_s: longest wait for a map to be loaded.
    :param found_settings: what an earlier connection found; None: what there is now.
    :raises SimulatorLostError: if the server does not do as asked.
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
            self._take_over()
        self.last_frame = self._first_tick()
        self.map = self._read_map()

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was made in this process: CARLA's client does not survive a fork."""
        return self._pid == os.getpid()

    @property
    def map_name(self) -> str:
        """The map that is loaded, as people name it."""
        return map_name_of(self.map.name)

    def load(self, map_name: str) -> None:
        """Load a map, unless it is loaded; what was spawned before is gone then.

        :raises SimulatorUnusableError: if the server has no such map.
        :raises SimulatorLostError: if the server does not do as asked.
        """
        with lost_on_error(f"loading {map_name}"):
            if map_name in {"", self.map_name}:
                return
            available = self.client.get_available_maps()
            known = sorted({map_name_of(name) for name in available})
            if not known:
                raise SimulatorLostError("the server names no maps: it is only half up")
            if map_name not in known:
                raise SimulatorUnusableError(f"there is no map {map_name!r} on this server: choose from {known}")
            self.client.set_timeout(self._load_timeout_s)
            try:
                self.world = self.client.load_world(map_name, reset_settings=False)
            finally:
                self.client.set_timeout(self._timeout_s)
            self._take_over()
        self.last_frame = self.tick()
        self.map = self._read_map()

    def _read_map(self) -> Any:
        with lost_on_error("reading the map"):
            return self.world.get_map()

    def ground(self, x_m: float, y_m: float) -> tuple[float, float]:
        """Return height and pitch in degrees of the road near a place, all in CARLA's coordinates."""
        waypoint = self.map.get_waypoint(self._carla.Location(x_m, y_m, 0.0))
        if waypoint is None:
            return 0.0, 0.0
        return waypoint.transform.location.z, waypoint.transform.rotation.pitch

    def transform(self, pose: Pose, above_m: float = 0.0) -> Any:
        """Return CARLA's Transform of a place on the road, ``above_m`` above it."""
        x, y, yaw_deg = to_carla(pose)
        height_m, pitch_deg = self.ground(x, y)
        place = self._carla.Location(x=x, y=y, z=height_m + above_m)
        return self._carla.Transform(place, self._carla.Rotation(pitch=pitch_deg, yaw=yaw_deg))

    def _take_over(self) -> None:
        settings = self.world.get_settings()
        is_set = math.isclose(
            settings.fixed_delta_seconds or 0.0, self._tick_s, rel_tol=1e-5
        )  # it has single precision
        if settings.synchronous_mode and is_set:
            return  # the client would wait for a tick that nobody makes
        settings.synchronous_mode = True
        settings.fixed_delta_seconds = self._tick_s
        self.world.apply_settings(settings)

    def tick(self) -> int:
        """Let the world make one tick and return the number of its frame.

        :raises SimulatorLostError: if it does not.
        """
        with lost_on_error("ticking"):
            self.last_frame = int(self.world.tick(self._timeout_s))
        return self.last_frame

    def _first_tick(self) -> int:
        """Let the world make a tick, another one where nothing is heard of it.

        The client hears of ticks some moments after it was made, and waits for one that it has missed until time is up.
        """
        for wait_s in (_FIRST_TICK_S, _SECOND_TICK_S):
            if wait_s < self._timeout_s:
                with contextlib.suppress(RuntimeError):
                    return int(self.world.tick(wait_s))
        return self.tick()

    def tick_alone(self) -> int:
        """Let the world make one tick, nobody else having made one since the last.

        :raises SimulatorLostError: if it does not, or another client has.
        """
        expected = self.last_frame + 1
        frame = self.tick()
        if frame != expected:
            raise SimulatorLostError(f"frame {frame} came after frame {expected - 1}: another client ticks this server")
        return frame

    def blueprint(self, blueprint_id: str) -> Any:
        """Return one of the server's blueprints.

        :raises SimulatorUnusableError: if it has no such one.
        """
        with lost_on_error("reading the blueprints"):
            library = self.world.get_blueprint_library()
            found = [each for each in library if each.id == blueprint_id]
        if not library:
            raise SimulatorLostError("the server has no blueprints: it is only half up")
        if not found:
            kind = blueprint_id.split(".", maxsplit=1)[0]
            known = sorted(each.id for each in library if each.id.startswith(kind))
            raise SimulatorUnusableError(f"there is no blueprint {blueprint_id!r} on this server: choose from {known}")
        return found[0]

    def remove_actors_of(self, role_names: Sequence[str]) -> None:
        """Destroy what an earlier run, or another environment of this server, has left.

        :raises SimulatorLostError: if the server does not do as asked.
        """
        with lost_on_error("removing what was left"):
            actors = list(self.world.get_actors())
            left = {each.id for each in actors if each.attributes.get("role_name") in role_names}
            sensors = [each.id for each in actors if each.parent is not None and each.parent.id in left]
            self.destroy([*sensors, *left])

    def destroy(self, actor_ids: Sequence[int]) -> None:
        """Destroy actors by number; those that are gone already are none."""
        commands = [self._carla.command.DestroyActor(number) for number in actor_ids]
        if commands:
            self.client.apply_batch_sync(commands, False)

    def leave(self, role_names: Sequence[str], *, as_found: bool) -> None:
        """Remove our actors and give the world back; never raises.

        :param role_names: of our actors.
        :param as_found: whether in the mode in which it was found; another client may go on ticking.
        """
        with contextlib.suppress(RuntimeError):
            self.remove_actors_of(role_names)
            if as_found:
                self.world.apply_settings(self.found_settings)
