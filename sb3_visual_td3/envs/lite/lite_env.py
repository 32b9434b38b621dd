"""``LiteDriving-v0``: the driving task in the embedded world."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_visual_td3.envs.driving_env import DrivingEnv
from sb3_visual_td3.envs.lite.world import LiteWorld


class LiteDrivingEnv(DrivingEnv):
    """Drive in the embedded world; see ``DrivingEnv`` for what is seen and done.

    :param frame_stack: number of camera frames in an observation, 1 to 16.
    :param frame_skip: ticks of the world per step, 1 to 100.
    :param dt_s: length of a tick, 0.001 to 0.2 s.
    :param image_size: height and width of a frame, an even number from 32 to 512.
    :param maps: ``"train"``, ``"held_out"``, or the names of maps; each episode draws one of them.
    :param render_mode: ``None`` or ``"rgb_array"``.
    :param target_speed_mps: the speed that the reward asks for, in m/s.
    :raises ValueError: if an argument is none of these.
    """

    def __init__(
        self,
        *,
        frame_stack: int = 4,
        frame_skip: int = 2,
        dt_s: float = 0.05,
        image_size: int = 84,
        maps: str | Sequence[str] = "train",
        render_mode: str | None = None,
        target_speed_mps: float = 30 / 3.6,
    ) -> None:
        super().__init__(
            LiteWorld(tick_s=dt_s, image_size=image_size),
            frame_stack=frame_stack,
            frame_skip=frame_skip,
            maps=maps,
            render_mode=render_mode,
            target_speed_mps=target_speed_mps,
        )
