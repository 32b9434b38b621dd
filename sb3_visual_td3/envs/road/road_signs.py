"""Describe the traffic lights, signs and crosswalks of a map, which are part of its lane graph.

``sign_reading`` builds them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

LIGHT_TYPE, STOP_TYPE, YIELD_TYPE, SPEED_TYPE = "1000001", "206", "205", "274"
"""Types of signals in CARLA's maps: one number for traffic lights, and the numbers of German traffic signs."""


class StopLine(NamedTuple):
    """Describe the place on a lane at which vehicles stop."""

    segment: int
    along_m: float
    """Distance from the beginning of the segment."""
    ways: tuple[int, ...] = ()
    """Lanes of the junction after the segment. Only vehicles that take one of these lanes stop. If the tuple is empty,
    all vehicles stop."""


class Signal(NamedTuple):
    """Describe a traffic light or a traffic sign."""

    id: str
    """Id of the signal in the map file."""
    type: str
    """``LIGHT_TYPE`` for a traffic light; otherwise the kind of sign in the map file, such as ``STOP_TYPE``."""
    value: float
    """Value of a sign, such as a speed in km/h; -1 if it has none."""
    x_m: float
    y_m: float
    z_m: float
    """Height of the pole's foot."""
    yaw_rad: float
    """Rotation of the signal in the map file; in most maps it is the direction of the traffic that the signal
    concerns."""
    stops: tuple[StopLine, ...]
    """Stop lines of the lanes that the signal concerns; for a speed limit, the places where it begins."""

    @property
    def is_light(self) -> bool:
        """Return whether this is a traffic light."""
        return self.type == LIGHT_TYPE


class RoadSigns(NamedTuple):
    """Hold all lights, signs and crosswalks of a map."""

    signals: tuple[Signal, ...] = ()
    cycles: tuple[tuple[tuple[int, ...], ...], ...] = ()
    """For each junction, the stages of its light cycle. A stage holds the indices of the lights that are green
    together.
    """
    crosswalks: tuple[tuple[tuple[float, float], ...], ...] = ()
    """For each crosswalk, x and y of its corners, in order around the crosswalk."""

    def to_json(self) -> str:
        """Return signals, cycles and crosswalks as a JSON document."""
        return json.dumps([list(field) for field in self])

    @classmethod
    def from_json(cls, text: str) -> RoadSigns:
        """Rebuild the signs from a document that ``to_json`` wrote.

        :param text: the JSON document
        :return: new signs
        """
        signals, cycles, crosswalks = json.loads(text)
        return cls(
            tuple(
                Signal(name, kind, value, x_m, y_m, z_m, yaw_rad, tuple(_stop_line(*stop) for stop in stops))
                for name, kind, value, x_m, y_m, z_m, yaw_rad, stops in signals
            ),
            tuple(tuple(tuple(stage) for stage in stages) for stages in cycles),
            tuple(tuple((x_m, y_m) for x_m, y_m in corners) for corners in crosswalks),
        )


def _stop_line(segment: int, along_m: float, ways: Sequence[int] = ()) -> StopLine:
    return StopLine(segment, along_m, tuple(ways))


NO_SIGNS = RoadSigns()


def lights_of(signs: RoadSigns) -> list[tuple[int, Signal]]:
    """Return the traffic lights of a map, each with its index in ``signs.signals``.

    :param signs: the signs of the map
    """
    return [(number, signal) for number, signal in enumerate(signs.signals) if signal.is_light]
