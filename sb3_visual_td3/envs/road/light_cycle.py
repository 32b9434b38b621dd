"""Simulate the traffic lights of a map: which light is green, yellow or red, and where vehicles must stop.

The embedded world and the CARLA emulator share this model. As in CARLA, the lights of a junction are divided into
stages, which are green one after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sb3_visual_td3.envs.road.road_signs import RoadSigns, StopLine, lights_of

LightColour = Literal["red", "yellow", "green", "off", "unknown"]
GREEN_S, YELLOW_S, RED_S = 10.0, 3.0, 2.0
"""Default durations of CARLA's traffic lights."""
_COLOURS: tuple[LightColour, ...] = ("green", "yellow", "red")


@dataclass
class StageTimes:
    """Hold the duration of each colour in one stage of a junction's light cycle, in seconds.

    A stage consists of the lights that are green at the same time. After green and yellow, all lights of the junction
    are red for ``red_s``.
    """

    green_s: float = GREEN_S
    yellow_s: float = YELLOW_S
    red_s: float = RED_S

    def of(self, colour: LightColour) -> float:
        """Return the duration of a colour, in seconds."""
        if colour == "green":
            return self.green_s
        if colour == "yellow":
            return self.yellow_s
        return self.red_s


class _Cycle:
    """Run the light cycle of one junction.

    :param stages: for each stage of the cycle, the indices of the lights that are green in it
    """

    def __init__(self, stages: tuple[tuple[int, ...], ...]) -> None:
        self.stages = stages
        self.times = [StageTimes() for _ in stages]
        self.is_frozen = False
        self.reset()

    def reset(self) -> None:
        """Restart the cycle: the lights of the first stage are green, and all other lights are red."""
        self.stage = 0
        self.colour: LightColour = "green"
        self.elapsed_s = 0.0

    def advance(self, dt_s: float) -> bool:
        """Advance the cycle by ``dt_s`` seconds, and return whether the colours changed."""
        self.elapsed_s += dt_s
        has_changed = False
        # Each colour lasts at least 1 ms; otherwise this loop would not end if all durations are 0.
        while self.elapsed_s >= (limit_s := max(1e-3, self.times[self.stage].of(self.colour))):
            self.elapsed_s -= limit_s
            has_changed = True
            following = _COLOURS.index(self.colour) + 1
            if following < len(_COLOURS):
                self.colour = _COLOURS[following]
            else:
                self.colour = "green"
                self.stage = (self.stage + 1) % len(self.stages)
        return has_changed


class LightCycles:
    """Simulate the states of all traffic lights of a map.

    :param signs: the lights of the map, and the stages of each junction in their order
    :param offset_s: seconds by which the cycle of each junction is ahead of the previous junction's cycle
    """

    def __init__(self, signs: RoadSigns, offset_s: float = 0.0) -> None:
        self.signs = signs
        self._cycles = [_Cycle(stages) for stages in signs.cycles]
        self._cycle_of: dict[int, tuple[_Cycle, int]] = {}
        for cycle in self._cycles:
            for stage, lights in enumerate(cycle.stages):
                for light in lights:
                    self._cycle_of[light] = (cycle, stage)
        self.colours: dict[int, LightColour] = {number: "red" for number, _ in lights_of(signs)}
        """The colour of each light, by the number of its signal."""
        # For each lane its stop lines, each with its light; several lights can stop one lane.
        self._stops: dict[int, list[tuple[StopLine, int]]] = {}
        for number, signal in lights_of(signs):
            for stop in signal.stops:
                self._stops.setdefault(stop.segment, []).append((stop, number))
        for index, cycle in enumerate(self._cycles):
            cycle.advance(index * offset_s)
            self._show(cycle)

    def advance(self, dt_s: float) -> bool:
        """Advance the cycles of all junctions that are not frozen.

        :param dt_s: duration in seconds
        :return: whether a light has changed its colour
        """
        has_changed = False
        for cycle in self._cycles:
            if not cycle.is_frozen and cycle.advance(dt_s):
                self._show(cycle)
                has_changed = True
        return has_changed

    def stop_ahead_m(self, segment: int, along_m: float = 0.0, way: Collection[int] | None = None) -> float | None:
        """Return the distance along a lane at which a vehicle must stop for a light; None if there is no such place.

        :param segment: number of the lane
        :param along_m: distance of the vehicle's front from the beginning of the lane
        :param way: numbers of the lanes that the vehicle takes through the junction after the lane; None for the
            lights of all ways
        :return: distance from the beginning of the lane to the nearest stop line ahead with a red or yellow light
        """
        closed_m = [
            place_m
            for place_m, light in self.lights_on(segment, way)
            if place_m >= along_m and self.colours[light] in {"red", "yellow"}
        ]
        return min(closed_m, default=None)

    def lights_on(self, segment: int, way: Collection[int] | None = None) -> list[tuple[float, int]]:
        """Return the lights that control a lane: for each, the distance of its stop line in metres, and its number.

        :param segment: number of the lane
        :param way: numbers of the lanes that the vehicle takes through the junction after the lane; None for the
            lights of all ways
        """
        found = []
        for stop, light in self._stops.get(segment, ()):
            if way is None or not stop.ways or not set(stop.ways).isdisjoint(way):
                found.append((stop.along_m, light))
        return found

    def set_colour(self, light: int, colour: LightColour) -> None:
        """Set the colour of one light until the next change of its junction's cycle.

        :param light: number of the light
        :param colour: the new colour
        """
        self.colours[light] = colour

    def times_of(self, light: int) -> StageTimes:
        """Return how long a light is green, yellow and red in the cycle of its junction.

        Lights that are green at the same time share the returned object. Assign to the fields of this object to
        change the cycle.

        :param light: number of the light
        :return: the durations; changes have no effect for a light without a cycle
        """
        if light not in self._cycle_of:
            return StageTimes()
        cycle, stage = self._cycle_of[light]
        return cycle.times[stage]

    def elapsed_s(self, light: int) -> float:
        """Return the seconds since the cycle of a light's junction last changed a colour; 0 without a cycle.

        :param light: number of the light
        """
        if light not in self._cycle_of:
            return 0.0
        return self._cycle_of[light][0].elapsed_s

    def group_of(self, light: int) -> list[int]:
        """Return all lights of a light's junction, in the order in which they turn green.

        :param light: number of the light; without a cycle, it is returned alone
        """
        if light not in self._cycle_of:
            return [light]
        return [each for stage in self._cycle_of[light][0].stages for each in stage]

    def is_frozen(self, light: int) -> bool:
        """Return whether the light cycle of a light's junction is frozen, so that no light there changes.

        :param light: number of the light
        """
        return light in self._cycle_of and self._cycle_of[light][0].is_frozen

    def freeze(self, is_frozen: bool, light: int | None = None) -> None:
        """Freeze the light cycle of one junction or of all junctions, or continue it.

        :param is_frozen: True to freeze, False to continue
        :param light: any light of the junction; None for all junctions
        """
        for cycle in self._cycles_of(light):
            cycle.is_frozen = is_frozen

    def reset(self, light: int | None = None) -> None:
        """Restart the light cycle of one junction or of all junctions.

        :param light: any light of the junction; None for all junctions
        """
        for cycle in self._cycles_of(light):
            cycle.reset()
            self._show(cycle)

    def get_state(self) -> dict[str, Any]:
        """Return the state of all light cycles as plain values."""
        cycles = [[cycle.stage, cycle.colour, cycle.elapsed_s] for cycle in self._cycles]
        return {"cycles": cycles, "colours": [[light, colour] for light, colour in self.colours.items()]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the lights from a state that ``get_state`` returned.

        :param state: the result of ``get_state``
        :raises ValueError: if the state comes from a world with other lights
        """
        colours = dict(state["colours"])
        if len(state["cycles"]) != len(self._cycles) or colours.keys() != self.colours.keys():
            raise ValueError(
                f"the state was saved with {len(colours)} traffic lights at {len(state['cycles'])} junctions, but this "
                f"world has {len(self.colours)} at {len(self._cycles)}: the state is of another map file, or of an "
                "earlier version, which found other lights in this file; use that version, or begin a new episode"
            )
        for cycle, (stage, colour, elapsed_s) in zip(self._cycles, state["cycles"], strict=True):
            cycle.stage, cycle.colour, cycle.elapsed_s = stage, colour, elapsed_s
        self.colours = colours

    def _cycles_of(self, light: int | None) -> list[_Cycle]:
        """Return the cycle that controls a light, in a list; without a light, return all cycles.

        The list is empty if no cycle controls the light.
        """
        if light is None:
            return self._cycles
        if light not in self._cycle_of:
            return []
        return [self._cycle_of[light][0]]

    def _show(self, cycle: _Cycle) -> None:
        """Update ``colours`` of the lights of a junction from the junction's cycle."""
        for stage, lights in enumerate(cycle.stages):
            for light in lights:
                self.colours[light] = cycle.colour if stage == cycle.stage else "red"
