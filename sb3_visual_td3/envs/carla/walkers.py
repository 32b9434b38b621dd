"""Show the pedestrians of an episode as CARLA's walkers.

``road.street_life`` determines where and when a pedestrian crosses. The server has one walker for each pedestrian, and
``carla.WalkerControl`` makes the walker move with the speed and in the direction of its pedestrian.
"""

from __future__ import annotations

import math
from typing import Any

from sb3_visual_td3.envs.carla.connection import Connection, client_library, lost_on_error
from sb3_visual_td3.envs.carla.failures import SimulatorLostError
from sb3_visual_td3.envs.carla.spawning import ROLE_NAME
from sb3_visual_td3.envs.road.carla_coordinates import to_carla
from sb3_visual_td3.envs.road.street_life import StreetLife, WalkerMotion

# A walker's origin is in the middle of its body, and a pavement is somewhat higher than the road.
_ORIGIN_ABOVE_M = 0.93
_SPAWN_ABOVE_M = _ORIGIN_ABOVE_M + 0.2


class Walkers:
    """Spawn the walkers of each episode, and control how they walk."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._speeds_mps: list[float] = []

    def reset(self, connection: Connection, street: StreetLife) -> None:
        """Replace the walkers of the last episode by those of a new episode.

        If the simulator has no room for a walker, the episode has one pedestrian less.

        :param connection: the connection to the server
        :param street: the pedestrians of the new episode
        :raises SimulatorLostError: if the server fails
        """
        carla = client_library()
        with lost_on_error("spawning pedestrians"):
            connection.destroy(self._ids)
            self._ids = []
            known = list(connection.world.get_blueprint_library().filter("walker.pedestrian.*"))
            if not known:
                raise SimulatorLostError(
                    "the server has no walkers: it is still starting; increase patience_s if this persists"
                )
            known.sort(key=lambda blueprint: str(blueprint.id))
            commands = []
            for number, motion in enumerate(street.walker_motions()):
                blueprint = known[number % len(known)]
                if blueprint.has_attribute("role_name"):
                    blueprint.set_attribute("role_name", ROLE_NAME)
                commands.append(carla.command.SpawnActor(blueprint, connection.transform(motion.pose, _SPAWN_ABOVE_M)))
            # False: do not tick. With True the call deadlocks until its timeout when Python sensors listen (0.9.16).
            responses = connection.client.apply_batch_sync(commands, False) if commands else []
        street.keep_walkers([number for number, response in enumerate(responses) if not response.error])
        self._ids = [response.actor_id for response in responses if not response.error]
        self._speeds_mps = [math.nan] * len(self._ids)  # NaN: each walker is placed at its first step
        self.walk(connection, street)

    def walk(self, connection: Connection, street: StreetLife) -> None:
        """Make each walker move like its pedestrian in ``street`` during the next ticks.

        :param connection: the connection to the server
        :param street: the simulation of the pedestrians
        :raises SimulatorLostError: if the server fails
        """
        carla = client_library()
        commands: list[Any] = []
        for number, motion in enumerate(street.walker_motions()):
            if motion.speed_mps == self._speeds_mps[number]:
                continue
            self._speeds_mps[number] = motion.speed_mps
            # The walker is placed at each start and stop, which removes deviations caused by its own physics.
            place = connection.transform(motion.pose, _ORIGIN_ABOVE_M)
            commands.append(carla.command.ApplyTransform(self._ids[number], place))
            commands.append(carla.command.ApplyWalkerControl(self._ids[number], _control_of(motion)))
        if not commands:
            return
        with lost_on_error("moving pedestrians"):
            responses = connection.client.apply_batch_sync(commands, False)
        errors = [response.error for response in responses if response.error]
        if errors:
            raise SimulatorLostError(
                f"CARLA could not move the pedestrians: {errors[0]}; restart CARLA if this persists"
            )


def _control_of(motion: WalkerMotion) -> Any:
    """Return the ``carla.WalkerControl`` for the motion of a pedestrian."""
    carla = client_library()
    _, _, yaw_deg = to_carla(motion.pose)
    direction = carla.Vector3D(x=math.cos(math.radians(yaw_deg)), y=math.sin(math.radians(yaw_deg)))
    return carla.WalkerControl(direction=direction, speed=motion.speed_mps)
