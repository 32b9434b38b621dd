"""Does CARLA's own BasicAgent drive random routes in the emulator, without collisions and without running red lights?

The agent is not part of CARLA's Python package: pass the folder that contains ``agents``, which is ``PythonAPI/carla``
in a CARLA installation. It needs ``shapely`` and ``networkx``. Each route leads from one random spawn point to another.

    python benchmarks/agents_drive.py --agents CARLA/PythonAPI/carla --towns OpenDrive Town01 Town02
    python benchmarks/agents_drive.py --agents CARLA/PythonAPI/carla --towns OpenDrive --cars 20 Town01 Town02

With ``--cars``, the emulator drives other cars, and the agent's car steers as in CARLA (``--carla-steering``). Without
``--cars``, the agent's car steers like the car of LiteDriving-v0, which is the emulator's default. That steering is too
weak for this agent: in turns the car swings into the opposite lane.

A route is completed if the agent reports that it is done, or if the car comes within 5 m of the goal. The agent reports
this only when the car is within 1 m of the last waypoint. After a sharp turn the car can miss that waypoint. It
then circles around the waypoint, and the agent is never done.

A red light is run (``red_run``) if the front of the car crosses the stop line while the light is red. BasicAgent
ignores yellow lights and brakes at the first red frame. If the light turns red when the stop line is closer than the
stopping distance, the agent cannot stop in time: such a crossing counts as unavoidable (``red_unavoidable``) instead.

The results are added to benchmarks/results/agents_drive.csv.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import carla

from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess

RESULTS = Path(__file__).resolve().parent / "results" / "agents_drive.csv"
TIMEOUT_S = 300.0
STEP_S = 0.05
MAX_TICKS = 8000
STANDING_MPS, MOVING_MPS = 0.1, 1.0
AT_LINE_M = 20.0
ARRIVED_M = 5.0
CLEAR_M = 15.0


class StopLine(NamedTuple):
    """The stop line of a light on one lane."""

    light: carla.TrafficLight
    waypoint: carla.Waypoint


class Approach(NamedTuple):
    """Where the car was when a light turned red."""

    distance_m: float
    """From the front of the car to the stop line."""
    speed_mps: float


class Drive:
    """Drive routes on one town, and count collisions, stops at red lights and crossed stop lines.

    :param world: the world, in synchronous mode.
    :param agent_class: CARLA's ``BasicAgent``.
    :param speed_kmh: the speed that the agent drives at.
    """

    def __init__(self, world: carla.World, agent_class: Any, speed_kmh: float) -> None:
        self.world, self.agent_class, self.speed_kmh = world, agent_class, speed_kmh
        self.counts = dict.fromkeys(
            ("routes", "completed", "collisions", "stops_at_red", "lines_crossed", "red_run", "red_unavoidable"), 0
        )
        self.distance_m = 0.0
        lights = world.get_actors().filter("traffic.traffic_light*")
        self._lines = [StopLine(light, waypoint) for light in lights for waypoint in light.get_stop_waypoints()]

    def drive(self, start: carla.Transform, goal: carla.Location) -> None:
        """Drive one route and add to the counts.

        :param start: a spawn point.
        :param goal: the end of the route.
        """
        library = self.world.get_blueprint_library()
        car = self.world.spawn_actor(library.find("vehicle.tesla.model3"), start)
        hits: list[str] = []
        sensor = self.world.spawn_actor(library.find("sensor.other.collision"), carla.Transform(), attach_to=car)
        sensor.listen(lambda event: hits.append(event.other_actor.type_id))
        self.world.tick()
        agent = self.agent_class(car, self.speed_kmh, opt_dict={})
        agent.set_destination(goal)
        self.counts["routes"] += 1
        has_arrived = False
        ahead_m: dict[int, float] = {}
        at_red: dict[int, Approach] = {}
        is_standing = False
        place = car.get_location()
        for _ in range(MAX_TICKS):
            has_arrived = agent.done() or place.distance(goal) < ARRIVED_M
            if has_arrived or hits:
                break
            car.apply_control(agent.run_step())
            self.world.tick()
            self.distance_m += car.get_location().distance(place)
            place = car.get_location()
            speed_mps = car.get_velocity().length()
            self._look_at_lines(car, ahead_m, at_red)
            is_red = car.is_at_traffic_light() and car.get_traffic_light_state() == carla.TrafficLightState.Red
            if is_red and speed_mps < STANDING_MPS and not is_standing:
                self.counts["stops_at_red"] += 1
                is_standing = True
            if speed_mps > MOVING_MPS:
                is_standing = False
        if hits:
            self.counts["collisions"] += 1
            print(f"  collision with {hits[0]} at {place}", flush=True)
        elif has_arrived:
            self.counts["completed"] += 1
        else:
            print(f"  not done after {MAX_TICKS} ticks, at {place}", flush=True)
        sensor.stop()
        time.sleep(0.1)
        sensor.destroy()
        car.destroy()
        self.world.tick()

    def _look_at_lines(self, car: carla.Vehicle, ahead_m: dict[int, float], at_red: dict[int, Approach]) -> None:
        """Count the stop lines that the front of the car has crossed in this tick.

        :param car: the car.
        :param ahead_m: distance to each near line one tick ago; updated.
        :param at_red: where the car was when the light of a near line turned red; updated.
        """
        transform, speed_mps = car.get_transform(), car.get_velocity().length()
        forward = transform.get_forward_vector()
        front = transform.location + car.bounding_box.extent.x * forward
        for number, (light, waypoint) in enumerate(self._lines):
            line, direction = waypoint.transform.location, waypoint.transform.get_forward_vector()
            dx, dy = line.x - front.x, line.y - front.y
            if math.hypot(dx, dy) > AT_LINE_M:
                ahead_m.pop(number, None)
                at_red.pop(number, None)
                continue
            distance_m = dx * direction.x + dy * direction.y
            aside_m = abs(dy * direction.x - dx * direction.y)
            is_in_lane = aside_m < 0.5 * waypoint.lane_width and forward.dot(direction) > 0.5
            is_red = light.state == carla.TrafficLightState.Red
            before_m = ahead_m.get(number)
            if is_in_lane and before_m is not None and before_m > 0.0 >= distance_m:
                self.counts["lines_crossed"] += 1
                if is_red:
                    self._judge(light, at_red.get(number))
            if not is_red:
                at_red.pop(number, None)
            elif number not in at_red:
                at_red[number] = Approach(distance_m, speed_mps)
            ahead_m[number] = distance_m

    def _judge(self, light: carla.TrafficLight, approach: Approach | None) -> None:
        """Count the crossing of a red light's stop line.

        :param light: the light.
        :param approach: where the car was when the light turned red; None if it turned red in this tick.
        """
        needed_m = 0.0
        if approach is not None:
            # One tick passes before the agent's answer to the red frame takes effect.
            needed_m = approach.speed_mps * STEP_S + approach.speed_mps**2 / (2.0 * self.braking_mps2)
        if approach is None or approach.distance_m < needed_m:
            self.counts["red_unavoidable"] += 1
        else:
            self.counts["red_run"] += 1
        print(f"  crossed the line of red light {light.id}: {approach}, needed {needed_m:.1f} m to stop", flush=True)

    def measure_braking(self, start: carla.Transform, brake: float) -> None:
        """Measure how strongly the car brakes.

        :param start: a spawn point.
        :param brake: position of the brake pedal, 0 to 1; the agent uses this position in an emergency.
        """
        car = self.world.spawn_actor(self.world.get_blueprint_library().find("vehicle.tesla.model3"), start)
        car.apply_control(carla.VehicleControl(throttle=0.8))
        for _ in range(60):
            self.world.tick()
        speed_mps = car.get_velocity().length()
        car.apply_control(carla.VehicleControl(brake=brake))
        for _ in range(10):
            self.world.tick()
        self.braking_mps2 = (speed_mps - car.get_velocity().length()) / (10 * STEP_S)
        car.destroy()
        self.world.tick()


def _free_places(
    world: carla.World, points: list[carla.Transform], rng: random.Random
) -> tuple[carla.Transform, carla.Transform]:
    """Return a random start near which no other car is, and a random goal."""
    while True:
        start, goal = rng.sample(points, 2)
        others = world.get_actors().filter("vehicle.*")
        if all(other.get_location().distance(start.location) > CLEAR_M for other in others):
            return start, goal


def drive_town(town: str, folder: str, agent_class: Any, settings: argparse.Namespace) -> dict[str, Any]:
    """Drive the routes of one town and return a row of the table.

    :param town: name of the map.
    :param folder: the folder of OpenDRIVE files.
    :param agent_class: CARLA's ``BasicAgent``.
    :param settings: number of routes, seed and speed.
    """
    arguments = ["--maps", folder, "--cars", str(settings.cars), "--quiet"]
    if settings.cars:
        arguments.append("--carla-steering")
    with EmulatorProcess(town, *arguments) as emulator:
        client = carla.Client(emulator.host, emulator.port)
        client.set_timeout(TIMEOUT_S)
        world = client.get_world()
        world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=STEP_S))
        world.tick()
        points = world.get_map().get_spawn_points()
        rng = random.Random(settings.seed)
        drive = Drive(world, agent_class, settings.speed_kmh)
        drive.measure_braking(_free_places(world, points, rng)[0], brake=0.5)
        for number in range(settings.routes):
            start, goal = _free_places(world, points, rng)
            drive.drive(start, goal.location)
            print(town, number + 1, drive.counts, f"{drive.distance_m / 1000:.2f} km", flush=True)
    return {"town": town, "cars": settings.cars, **drive.counts, "km": round(drive.distance_m / 1000, 2)}


def main() -> None:
    """Drive on each town, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="TOWN")
    parser.add_argument("--agents", required=True, help="the folder that contains CARLA's package agents")
    parser.add_argument("--towns", required=True, help="folder of OpenDRIVE files")
    parser.add_argument("--routes", type=int, default=20, help="routes on each town (default: 20)")
    parser.add_argument("--cars", type=int, default=0, help="other cars, which the emulator drives (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the routes (default: 0)")
    parser.add_argument("--speed-kmh", type=float, default=30.0, help="speed of the agent (default: 30)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    settings = parser.parse_args()
    sys.path.insert(0, settings.agents)
    from agents.navigation.basic_agent import BasicAgent

    rows: list[dict[str, Any]] = []
    if settings.output.exists():
        rows = [dict(row) for row in csv.DictReader(settings.output.open())]
    for town in settings.names:
        row = drive_town(town, str(Path(settings.towns).resolve()), BasicAgent, settings)
        is_same = [(each["town"], str(each["cars"])) == (town, str(settings.cars)) for each in rows]
        rows = [each for each, same in zip(rows, is_same, strict=True) if not same] + [row]
        print(row, flush=True)
        with settings.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    # CARLA's client may still have threads of closed streams. What they do at a normal exit of the interpreter is not
    # defined, so end the process directly.
    os._exit(0)
