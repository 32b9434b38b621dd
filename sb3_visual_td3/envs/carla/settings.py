"""What a user can ask of ``CarlaDriving-v0``, checked before anything is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.envs.arguments import check_count, check_flag, check_quantity, coerce_count, coerce_quantity
from sb3_visual_td3.envs.backend import CAMERA_AHEAD_M, CAMERA_HEIGHT_M
from sb3_visual_td3.envs.carla.launcher import command_for

DEFAULT_PORT = 2000


@dataclass(frozen=True)
class ServerSettings:
    """Where the simulator is and how patient one is with it.

    :raises ValueError: if a value is outside the range that its check names.
    """

    host: str = "127.0.0.1"
    port: int | Sequence[int] = DEFAULT_PORT
    """Of a running server, or of several: each environment takes one that no other one uses. With ``command``: the
    first port that is tried."""
    command: str | None = None
    """What starts the simulator; None joins one that runs."""
    timeout_s: float = 10.0
    """Longest wait for an answer, a tick or an image."""
    start_timeout_s: float = 120.0
    """Longest wait for a simulator that starts, or that loads a map."""
    patience_s: float = 600.0
    """After a failure: for how long it is tried to get the simulator back."""
    restart_every: int | None = None
    """The simulator is started anew after so many episodes, for it may grow; None never does."""
    is_shared: bool = False
    """Whether another environment may drive on the same server, by turns: an evaluation beside a training."""

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not self.host:
            raise ValueError(f"host={self.host!r}: expected a name or an address, such as '127.0.0.1'")
        if not self.ports:
            raise ValueError(f"port={self.port!r}: expected a port, or a list of ports")
        numbers = [to_integer("port", port, 1, "a port from 1 to 65532, or a list of ports") for port in self.ports]
        object.__setattr__(self, "port", tuple(check_count("port", port, 1, 65_532) for port in numbers))
        if self.command is not None:
            command_for(self.command, self.ports[0])
            if self.host not in {"127.0.0.1", "localhost"}:
                raise ValueError(f"host={self.host!r} with a command: expected this machine; start it there by hand")
        elif self.restart_every is not None:
            raise ValueError("restart_every without a command: expected the command that starts the simulator")
        coerce_quantity(self, "timeout_s", 0.01, 3600.0, "s")
        coerce_quantity(self, "start_timeout_s", 0.1, 3600.0, "s")
        coerce_quantity(self, "patience_s", 0.0, 86_400.0, "s")
        if self.restart_every is not None:
            coerce_count(self, "restart_every", 1, 1_000_000)
        check_flag("shares_server", self.is_shared)

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that were named."""
        # Text is one port, and not a list of its digits.
        is_list = isinstance(self.port, Sequence) and not isinstance(self.port, str)
        return tuple(self.port) if is_list else (self.port,)  # type: ignore[arg-type, return-value]


@dataclass(frozen=True)
class CameraMount:
    """The camera: how large its image is, what is made of it, and where it sits.

    :raises ValueError: if a value is outside the range that its check names.
    """

    image_size: int = 84
    """Height and width of a frame as the policy sees it."""
    grayscale: bool = True
    """Grey frames; otherwise RGB."""
    width: int | None = None
    """Of the image that the simulator draws, in pixels; None: ``image_size``."""
    height: int | None = None
    """Likewise."""
    fov_deg: float = 90.0
    """Horizontal angle of view."""
    position_m: tuple[float, float, float] = (CAMERA_AHEAD_M, 0.0, CAMERA_HEIGHT_M)
    """Forward, right and up from the vehicle's origin, as CARLA has it."""
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Pitch (up), yaw (right) and roll."""
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
            if len(values) != 3:
                raise ValueError(f"camera_{name}={values!r}: expected three numbers")
            unit = name.rsplit("_", maxsplit=1)[-1]
            numbers = tuple(check_quantity(f"camera_{name}", value, -limit, limit, unit) for value in values)
            object.__setattr__(self, name, numbers)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image that the simulator draws."""
        return self.height or self.image_size, self.width or self.image_size

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of a frame."""
        side = (self.image_size, self.image_size)
        return side if self.grayscale else (3, *side)


@dataclass(frozen=True)
class VehicleChoice:
    """The vehicle that is driven.

    :raises ValueError: if it is not named as CARLA names vehicles.
    """

    blueprint: str = "vehicle.tesla.model3"
    role_name: str = "hero"
    """CARLA streams the parts of a large map around the vehicle of this role."""

    def __post_init__(self) -> None:
        for name in ("blueprint", "role_name"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a name")
        if not self.blueprint.startswith("vehicle."):
            raise ValueError(
                f"blueprint={self.blueprint!r}: expected the id of a vehicle, such as 'vehicle.tesla.model3'"
            )
