"""Hold the settings of ``CarlaDriving-v0``, and check them before anything is started or connected."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sb3_visual_td3.envs.arguments import check_count, check_flag, check_quantity, coerce_count, coerce_quantity
from sb3_visual_td3.envs.backend import CAMERA_AHEAD_M, CAMERA_HEIGHT_M

DEFAULT_PORT = 2000
"""CARLA's own default for the RPC port."""
# Two more ports, for streams and for a secondary server, must fit above the RPC port.
_MAX_PORT = 65_532
_SINGLE_QUOTED, _ESCAPED, _DOUBLE_QUOTED = r"'[^']*'", r"\\.", r'"(?:\\.|[^"\\])*"'
_QUOTED = re.compile(f"{_SINGLE_QUOTED}|{_ESCAPED}|{_DOUBLE_QUOTED}", re.DOTALL)
# Characters that no command contains take the place of quoted ones while variables are replaced.
_DOLLAR, _TILDE = "\x00", "\x01"


def launch_command(command: str, port: int) -> list[str]:
    """Return program and arguments of the command that starts a simulator on a port.

    :param command: command as typed in a shell; ``~`` and variables such as ``$CARLA_ROOT`` are replaced, except in
        single quotes and after a backslash. ``{port}`` is replaced by the port; without ``{port}``,
        ``-carla-rpc-port=PORT`` is appended.
    :param port: RPC port
    :raises ValueError: if the command is empty or its quotes do not match
    """
    try:
        words = [_expanded(word) for word in shlex.split(_QUOTED.sub(_protected, command))]
    except ValueError as error:
        raise ValueError(f"command={command!r}: {error}; write the command as in a shell") from error
    if not words:
        raise ValueError(f"command={command!r}: expected the simulator's command, such as './CarlaUE4.sh'")
    if any("{port}" in word for word in words):
        return [word.replace("{port}", str(port)) for word in words]
    return [*words, f"-carla-rpc-port={port}"]


def _protected(quoted: re.Match[str]) -> str:
    """Return a quoted part of a command with other characters for each ``$`` and ``~`` that a shell would keep."""
    text = quoted[0].replace("~", _TILDE)
    if text.startswith('"'):
        # In double quotes, a shell replaces a variable unless a backslash is before it, which is not escaped itself.
        return re.sub(r"\\[\\$]", lambda pair: _DOLLAR if pair[0] == r"\$" else pair[0], text)
    return text.replace("$", _DOLLAR)


def _expanded(word: str) -> str:
    """Return a word of a command with the home folder and the values of its variables."""
    return os.path.expandvars(os.path.expanduser(word)).replace(_DOLLAR, "$").replace(_TILDE, "~")


@dataclass(frozen=True)
class ServerSettings:
    """Hold the address of the simulator or the command that starts it, and the timeouts.

    :raises ValueError: if a value is out of range
    """

    host: str = "127.0.0.1"
    port: int | Sequence[int] = DEFAULT_PORT
    """The port of a running server, or a list of ports. From a list, each environment takes a port that no other
    environment uses. With ``command``, the first port to try."""
    command: str | None = None
    """The command that starts the simulator; None connects to a running simulator."""
    timeout_s: float = 10.0
    """Longest wait for an answer, a tick or an image."""
    start_timeout_s: float = 120.0
    """Longest wait for the simulator to start or to load a map."""
    patience_s: float = 600.0
    """How long to keep reconnecting to the simulator after a failure."""
    restart_every: int | None = None
    """The number of episodes after which the simulator is restarted, because CARLA's memory grows; None for never."""
    is_shared: bool = False
    """Whether another environment, such as an evaluation environment, may use the same server; the two take turns."""

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not self.host:
            raise ValueError(f"host={self.host!r}: expected a name or an address, such as '127.0.0.1'")
        if not self.ports:
            raise ValueError(f"port={self.port!r}: expected a port, or a list of ports; give at least one")
        object.__setattr__(self, "port", tuple(check_count("port", port, 1, _MAX_PORT) for port in self.ports))
        if self.command is not None:
            launch_command(self.command, self.ports[0])  # raises if the command is malformed
            if self.host not in {"127.0.0.1", "localhost"}:
                raise ValueError(
                    f"host={self.host!r}: the setting 'command' can start CARLA only on this machine; "
                    f"leave 'command' out, and start CARLA on {self.host} by hand"
                )
            if self.is_shared:
                raise ValueError(
                    "shares_server=True and a command: an environment with a command starts a simulator of its own; "
                    "leave one of them out. To share a server, start it by hand, and give its port to both environments"
                )
        elif self.restart_every is not None:
            raise ValueError(
                "restart_every without a command: an environment restarts only a simulator that it starts itself; set "
                "command, or leave restart_every out"
            )
        coerce_quantity(self, "timeout_s", 0.01, 3600.0, "s")
        coerce_quantity(self, "start_timeout_s", 0.1, 3600.0, "s")
        coerce_quantity(self, "patience_s", 0.0, 86_400.0, "s")
        if self.restart_every is not None:
            coerce_count(self, "restart_every", 1, 1_000_000)
        check_flag("shares_server", self.is_shared)

    @property
    def ports(self) -> tuple[int, ...]:
        """Return the ports as a tuple, even if only one was given."""
        # A string is one port (and rejected later), not a sequence of its characters.
        is_list = isinstance(self.port, Sequence) and not isinstance(self.port, str)
        return tuple(self.port) if is_list else (self.port,)  # type: ignore[arg-type, return-value]


@dataclass(frozen=True)
class CameraMount:
    """Hold the position of the policy's camera, the size of its image, and the format of the policy's frames.

    :raises ValueError: if a value is out of range
    """

    image_size: int = 84
    """Height and width of a frame as the policy sees it, in pixels."""
    grayscale: bool = True
    """True for grey frames, False for RGB frames."""
    width: int | None = None
    """Width of the image that the simulator renders, in pixels; None for ``image_size``."""
    height: int | None = None
    """Height of the image that the simulator renders, in pixels; None for ``image_size``."""
    fov_deg: float = 90.0
    """The horizontal field of view in degrees."""
    position_m: tuple[float, float, float] = (CAMERA_AHEAD_M, 0.0, CAMERA_HEIGHT_M)
    """The position forward, right and up from the vehicle's origin, in CARLA's coordinates."""
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Pitch (positive up), yaw (positive right) and roll, in degrees."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Further attributes of CARLA's ``sensor.camera.rgb``, such as ``{"motion_blur_intensity": "0.0"}``."""

    def __post_init__(self) -> None:
        coerce_count(self, "image_size", 32, 512)
        check_flag("grayscale", self.grayscale)
        for name in ("width", "height"):
            if getattr(self, name) is not None:
                coerce_count(self, name, 32, 4096, f"camera_{name}")
        coerce_quantity(self, "fov_deg", 10.0, 170.0, "degrees", "camera_fov_deg")
        for name, values, limit in (("position_m", self.position_m, 50.0), ("rotation_deg", self.rotation_deg, 360.0)):
            if isinstance(values, str) or len(values) != 3:
                raise ValueError(f"camera_{name}={values!r}: expected three numbers, such as (2.0, 0.0, 1.5)")
            unit = name.rsplit("_", maxsplit=1)[-1]
            numbers = tuple(check_quantity(f"camera_{name}", value, -limit, limit, unit) for value in values)
            object.__setattr__(self, name, numbers)

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width of the image that the simulator renders."""
        return self.height or self.image_size, self.width or self.image_size

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Return the shape of a frame: ``(height, width)`` in grey, ``(3, height, width)`` in RGB."""
        side = (self.image_size, self.image_size)
        return side if self.grayscale else (3, *side)


@dataclass(frozen=True)
class VehicleChoice:
    """Hold the blueprint and the role of the vehicle that the policy drives.

    :raises ValueError: if a name is empty, or the blueprint is not a vehicle
    """

    blueprint: str = "vehicle.tesla.model3"
    role_name: str = "hero"
    """The vehicle's role. CARLA loads the tiles of a large map around the vehicle with the role "hero"."""

    def __post_init__(self) -> None:
        for name in ("blueprint", "role_name"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a non-empty string; give a name")
        if not self.blueprint.startswith("vehicle."):
            raise ValueError(
                f"blueprint={self.blueprint!r}: expected the id of a vehicle, such as 'vehicle.tesla.model3'"
            )
