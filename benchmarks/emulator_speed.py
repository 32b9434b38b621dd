"""How many ticks per second does the emulator make for different maps and numbers of cars, cameras and pixels?

CARLA's client drives one vehicle with the given cameras in synchronous mode. Small images (84 x 84) are those of the
policy's camera; larger ones come from a camera behind the windscreen that looks 10 degrees down. Rates are ticks per
second of the server's processor time, not of wall-clock time, so that the client and other processes on the machine do
not matter.

    python benchmarks/emulator_speed.py --maps OpenDrive train_0 streets_0 Town01 Town02
    python benchmarks/emulator_speed.py --before CHECKOUT train_0 streets_0

With ``--before``, the script also measures the server of another checkout of the project. In each round of a case it
measures this checkout first and the other checkout second. The median of the rounds counts. The table is written to
benchmarks/results/emulator_speed.csv, or to ``--output``.
"""

from __future__ import annotations

import argparse
import csv
import os
import queue
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import carla

from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess

RESULTS = Path(__file__).resolve().parent / "results" / "emulator_speed.csv"
TIMEOUT_S = 300.0
SMALL = 84
WARM_UP_TICKS = 20
N_TICKS_AT_A_TIME = 50


class Case(NamedTuple):
    """What is measured: other cars, cameras, and the size of their images."""

    cars: int
    cameras: int
    width: int
    height: int


CASES = (
    Case(0, 0, 0, 0),
    Case(0, 1, SMALL, SMALL),
    Case(0, 4, SMALL, SMALL),
    Case(0, 1, 640, 480),
    Case(0, 4, 640, 480),
    Case(0, 1, 1280, 720),
    Case(10, 1, SMALL, SMALL),
    Case(50, 1, SMALL, SMALL),
    Case(50, 1, 640, 480),
    Case(100, 1, SMALL, SMALL),
)


def processor_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


class Server:
    """Start an emulator, connect CARLA's client to it, and spawn one vehicle.

    :param map_name: the map.
    :param folder: the folder of OpenDRIVE files; None for the built-in maps only.
    :param n_cars: cars that the server drives.
    :param checkout: folder of a checkout of this project; the server in this folder is measured.
    """

    def __init__(self, map_name: str, folder: str | None, n_cars: int, checkout: Path) -> None:
        arguments = ["--cars", str(n_cars), "--quiet"]
        if folder is not None:
            arguments += ["--maps", folder]
        here = Path.cwd()
        os.chdir(checkout)  # python -m prefers the package of the working folder
        try:
            self.emulator = EmulatorProcess(map_name, *arguments)
            self.emulator.start()
        finally:
            os.chdir(here)
        self.client = carla.Client(self.emulator.host, self.emulator.port)
        self.client.set_timeout(TIMEOUT_S)
        self.world = self.client.get_world()
        self.world.apply_settings(carla.WorldSettings(synchronous_mode=True, fixed_delta_seconds=0.05))
        self.world.tick()
        self.n_cars = len(self.world.get_actors().filter("vehicle.*"))
        blueprint = self.world.get_blueprint_library().find("vehicle.tesla.model3")
        # The cars of the server occupy some spawn points.
        for point in self.world.get_map().get_spawn_points():
            car = self.world.try_spawn_actor(blueprint, point)
            if car is not None:
                self.car, self.start = car, point
                break

    def ticks_per_second(self, case: Case, seconds: float) -> float:
        """Return how many ticks the server makes in one second of its processor time.

        :param case: the cameras to spawn.
        :param seconds: the shortest duration of the measurement, in seconds of the server's processor time.
        """
        self.car.set_transform(self.start)
        self.car.apply_control(carla.VehicleControl(throttle=0.3))
        cameras = self._spawn_cameras(case)
        for _ in range(WARM_UP_TICKS):
            # A subscription is asynchronous: the first images may not have been sent.
            self.world.tick()
        self._tick(cameras)
        n_ticks, used_s = 0, 0.0
        begin_s = processor_s(self.emulator.pid)
        while used_s < seconds:
            for _ in range(N_TICKS_AT_A_TIME):
                self._tick(cameras)
            n_ticks += N_TICKS_AT_A_TIME
            used_s = processor_s(self.emulator.pid) - begin_s
        for camera, _ in cameras:
            camera.stop()
            camera.destroy()
        self.world.tick()
        return n_ticks / used_s

    def _spawn_cameras(self, case: Case) -> list[tuple[carla.Sensor, queue.Queue[Any]]]:
        """Spawn the cameras of a case on the vehicle, and return them with the queues of their images."""
        if case.width == SMALL:
            place = carla.Transform(carla.Location(x=2.0, z=1.5))
        else:
            place = carla.Transform(carla.Location(x=0.7, z=1.6), carla.Rotation(pitch=-10.0))
        blueprint = self.world.get_blueprint_library().find("sensor.camera.rgb")
        cameras = []
        for _ in range(case.cameras):
            blueprint.set_attribute("image_size_x", str(case.width))
            blueprint.set_attribute("image_size_y", str(case.height))
            images: queue.Queue[Any] = queue.Queue()
            camera = self.world.spawn_actor(blueprint, place, attach_to=self.car)
            camera.listen(images.put)
            cameras.append((camera, images))
        return cameras

    def _tick(self, cameras: list[tuple[carla.Sensor, queue.Queue[Any]]]) -> None:
        """Make a tick and wait for its images."""
        frame = self.world.tick()
        for _, images in cameras:
            while images.get(timeout=TIMEOUT_S).frame < frame:
                pass


def measure(
    name: str, folder: str | None, checkouts: dict[str, Path], settings: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Measure every case on a map, and yield its row.

    :param name: the map.
    :param folder: the folder of OpenDRIVE files; None for the built-in maps only.
    :param checkouts: maps each column title of the table to the folder of the checkout to measure.
    :param settings: number of rounds, seconds, and the largest number of cars.
    """
    for n_cars in sorted({case.cars for case in CASES if case.cars <= settings.cars}):
        servers = {title: Server(name, folder, n_cars, checkout) for title, checkout in checkouts.items()}
        for server in servers.values():
            # All servers use one start: spawn points may differ between versions, and the cost depends on the view.
            server.start = next(iter(servers.values())).start
        for case in CASES:
            if case.cars != n_cars:
                continue
            rates: dict[str, list[float]] = {title: [] for title in servers}
            for _ in range(settings.rounds):
                for title, server in servers.items():
                    rates[title].append(server.ticks_per_second(case, settings.seconds))
            cars = " ".join(str(number) for number in sorted({server.n_cars for server in servers.values()}))
            row = {"map": name, **case._asdict(), "cars": cars}
            yield row | {title: round(statistics.median(of_rounds), 1) for title, of_rounds in rates.items()}
        for server in servers.values():
            server.emulator.stop()


def main() -> None:
    """Measure every case on every map, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="MAP")
    parser.add_argument("--maps", help="folder of OpenDRIVE files")
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="another checkout of the project to compare with"
    )
    parser.add_argument("--rounds", type=int, default=1, help="measurements per case, for the median (default: 1)")
    parser.add_argument("--seconds", type=float, default=1.0, help="processor time of each measurement (default: 1)")
    parser.add_argument("--cars", type=int, default=100, help="leave out cases with more cars than this (default: 100)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    settings = parser.parse_args()
    folder = None if settings.maps is None else str(Path(settings.maps).resolve())
    checkouts = {"ticks per cpu second": Path(__file__).resolve().parents[1]}
    if settings.before is not None:
        checkouts["before"] = settings.before
    rows: list[dict[str, Any]] = []
    for name in settings.names:
        for row in measure(name, folder, checkouts, settings):
            rows.append(row)
            print(row, flush=True)
            with settings.output.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    # CARLA's client may still have threads of closed streams. What they do at a normal exit of the interpreter is not
    # defined, so end the process directly.
    os._exit(0)
