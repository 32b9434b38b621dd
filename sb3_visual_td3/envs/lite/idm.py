"""How a driver follows the one ahead: the intelligent driver model."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property

from sb3_visual_td3.envs.arguments import check_quantity


@dataclass(frozen=True)
class IdmSettings:
    """A calm driver in a town.

    :raises ValueError: if a value is not positive.
    """

    time_gap_s: float = 1.5
    min_gap_m: float = 2.0
    """From bumper to bumper, at standstill."""
    acceleration_mps2: float = 1.5
    braking_mps2: float = 2.0
    """What the driver finds comfortable."""
    max_braking_mps2: float = 8.0
    """What the brakes can do; the model alone asks for any amount where somebody cuts in."""

    @cached_property
    def comfort_mps2(self) -> float:
        """The model's 2 sqrt(a b)."""
        return 2.0 * math.sqrt(self.acceleration_mps2 * self.braking_mps2)

    def __post_init__(self) -> None:
        for setting in fields(self):
            check_quantity(setting.name, getattr(self, setting.name), 1e-6, 1e3, "SI units")


def idm_acceleration_mps2(
    speed_mps: float, desired_mps: float, gap_m: float, approach_mps: float, settings: IdmSettings
) -> float:
    """Return the acceleration of a driver who keeps lane and distance.

    Source: Treiber, Hennecke, Helbing 2000, "Congested traffic states in empirical observations and microscopic
    simulations", Phys. Rev. E 62, 1805: the IDM acceleration a (1 - (v / v0)^4 - (s* / s)^2) with the desired gap
    s* = s0 + T v + v dv / (2 sqrt(a b)), whose s1 is 0 here and which never falls below s0.

    :param speed_mps: own speed v, >= 0.
    :param desired_mps: speed v0 on an empty road, > 0.
    :param gap_m: metres s from the own bumper to the one ahead; ``inf`` on an empty road.
    :param approach_mps: own speed less the leader's, dv.
    :param settings: T, s0, a and b.
    :return: at least ``-settings.max_braking_mps2``, which is what no gap at all gives.
    """
    if gap_m <= 0.0:
        return -settings.max_braking_mps2
    # Called for every car at every step: plain products and comparisons, which are the fastest here.
    following_m = speed_mps * (settings.time_gap_s + approach_mps / settings.comfort_mps2)
    near = (settings.min_gap_m + (following_m if following_m > 0.0 else 0.0)) / gap_m
    free = speed_mps / desired_mps
    free *= free
    acceleration = settings.acceleration_mps2 * (1.0 - free * free - near * near)
    return acceleration if acceleration > -settings.max_braking_mps2 else -settings.max_braking_mps2
