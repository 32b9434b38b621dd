"""Run the emulator from the command line, as ``visual-td3 carla-emulator``."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from sb3_visual_td3.common.errors import ExitCode
from sb3_visual_td3.envs.arguments import check_count
from sb3_visual_td3.envs.carla_emulator.faults import KINDS, parse_fault
from sb3_visual_td3.envs.carla_emulator.protocol import CallError
from sb3_visual_td3.envs.carla_emulator.served_maps import MAP_NAMES, TOWN_ALIASES, MapLibrary
from sb3_visual_td3.envs.carla_emulator.server import EmulatorServer, EmulatorSettings
from sb3_visual_td3.envs.carla_emulator.server_traffic import MAX_SERVER_CARS
from sb3_visual_td3.envs.road.maps import OPENDRIVE_SUFFIX

_DEFAULT_MAP = "train_0"
_PARENT_CHECK_INTERVAL_S = 0.3
# CARLA's launcher takes Unreal's flags, which begin with one dash: -carla-rpc-port=2000 -RenderOffScreen.
_LAUNCHER_PORT = "-carla-rpc-port="
_LAUNCHER_FLAG = re.compile("-[A-Za-z]")
_DESCRIPTION = (
    "Serve the embedded driving world in CARLA 0.9.16's protocol: CARLA's own client (pip install carla==0.9.16) and "
    "the scripts that use it run without Unreal and without a GPU."
)
_EPILOG = f"""maps: {", ".join(MAP_NAMES)}
CARLA's towns, and the map that is loaded instead if --maps has no file of that name:
  {", ".join(f"{town}: {name}" for town, name in TOWN_ALIASES.items())}

faults: {", ".join(KINDS)}
  KIND          from the start
  KIND@TICK     once, at that tick, counted from the connection of the first client
  KIND@every:N  at every N-th tick, counted in the same way
  KIND=AMOUNT   seconds of a hang or of each slow tick, number of images to drop or truncate, or of spawns to refuse
                (default: a hang lasts forever, a slow tick 0.2 s, and one image or spawn is affected)

examples:
  visual-td3 carla-emulator                          on port 2000, CARLA's default
  visual-td3 carla-emulator --port 0 --map Town02    on any free port, which is printed
  visual-td3 carla-emulator --maps Maps/OpenDrive    on the road networks of CARLA's towns
  visual-td3 carla-emulator --map my_town.xodr       on one file
  visual-td3 carla-emulator --cars 10 --seed 3       with traffic
  visual-td3 carla-emulator --fault die@500          to see what your client does when its server dies
  visual-td3 carla-emulator --fault hang=30@every:2000 --fault drop-frames=2@every:100

Flags of CARLA's launcher are accepted: -carla-rpc-port=N sets the port, the others (-RenderOffScreen,
-quality-level=Low, ...) are listed and ignored."""


def run(arguments: Sequence[str]) -> int:
    """Run the emulator until SIGINT or SIGTERM arrives.

    :param arguments: the command line's arguments
    :return: the exit code
    """
    kept, ignored = _without_launcher_flags(arguments)
    settings = _parser().parse_args(kept)
    if ignored and not settings.quiet:
        print(f"visual-td3 carla-emulator: ignored: {_with_hints(ignored, settings)}", file=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    if settings.end_with is not None:
        threading.Thread(target=_end_with, args=(settings.end_with,), daemon=True).start()
    try:
        server = EmulatorServer(_checked(settings))
    except _StoppedError:
        return 0
    except (ValueError, OSError, ImportError, CallError) as error:
        message = str(error)
        if isinstance(error, OSError):
            address = f"{settings.host}:{settings.port}"
            message = f"cannot listen on {address} and the next port ({error}); choose another --port"
        print(f"visual-td3 carla-emulator: {message}", file=sys.stderr)
        return ExitCode.BAD_USAGE
    try:
        print(
            f"carla-emulator: listening on {settings.host}:{server.port} (streams {server.stream_port}), "
            f"map {server.map_name}",
            flush=True,
        )
        server.serve()
    except (
        _StoppedError,
        BrokenPipeError,
    ):  # BrokenPipeError: the process that started the server has closed its output
        return 0
    finally:
        server.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="visual-td3 carla-emulator",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--port",
        type=int,
        default=2000,
        help="port for calls; streams use the next port (default: 2000; 0: any free port)",
    )
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    add("--allow-remote", action="store_true", help="permit a --host that other machines can reach")
    add(
        "--map",
        help="the map to start with: a name, or an OpenDRIVE file (default: the first of --maps, otherwise train_0)",
    )
    add(
        "--maps",
        metavar="FOLDER",
        help="serve each NAME.xodr of this folder as the map NAME, in addition to the built-in maps",
    )
    add(
        "--traffic-lights",
        action="store_true",
        help="put traffic lights at some junctions of the built-in maps; --seed selects the junctions",
    )
    add(
        "--carla-steering",
        action="store_true",
        help="make vehicle.tesla.model3 steer as in CARLA (default: it steers like the car of LiteDriving-v0; the "
        "emulator's other vehicles always steer as in CARLA)",
    )
    add("--realtime", action="store_true", help="run no faster than real time, even in synchronous mode")
    add("--cars", type=int, default=0, metavar="N", help="number of cars that the server drives itself, 0 to 100")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the server's cars and of the junctions that --traffic-lights selects (default: 0)",
    )
    add("--quiet", action="store_true", help="do not report unsupported calls, refused connections and errors")
    add(
        "--end-with", type=int, metavar="PID", help="id of the parent process; the emulator ends when that process ends"
    )
    add(
        "--fault",
        action="append",
        default=[],
        metavar="KIND[=AMOUNT][@TICK]",
        help="a fault to produce, as listed below; the option can be repeated",
    )
    return parser


def _end_with(parent: int) -> None:
    """End this process as soon as its parent has ended, even while a fault makes the main thread hang."""
    # An orphan gets another parent.
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_INTERVAL_S)
    os._exit(0)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _StoppedError


class _StoppedError(BaseException):
    """Stop the server's loop after SIGINT or SIGTERM.

    The class is not an ``Exception``, so that the loop's handlers do not catch it.
    """


def _without_launcher_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without the flags of CARLA's launcher, and the flags that were left out.

    The flag of the port is translated.
    """
    kept, ignored = [], []
    for word in arguments:
        if word.startswith(_LAUNCHER_PORT):
            kept += ["--port", word.removeprefix(_LAUNCHER_PORT)]
        elif word == "-h" or not _LAUNCHER_FLAG.match(word):
            kept.append(word)
        else:
            ignored.append(word)
    return kept, ignored


def _with_hints(flags: Sequence[str], settings: argparse.Namespace) -> str:
    """Return a list of flags that were ignored, with a hint for each that is an option with one dash too few."""
    shown = []
    for flag in flags:
        name = flag[1:].partition("=")[0].replace("-", "_")
        hint = f" (did you mean -{flag}?)" if name in settings else ""
        shown.append(flag + hint)
    return ", ".join(shown)


def _checked(settings: argparse.Namespace) -> EmulatorSettings:
    """Return the server's settings from the parsed arguments.

    :param settings: the parsed arguments
    :raises ValueError: if an argument is out of range
    """
    try:
        is_local = settings.host == "localhost" or ipaddress.IPv4Address(settings.host).is_loopback
    except ValueError:
        is_local = False
    if ":" in settings.host:
        raise ValueError(f"--host {settings.host}: expected an IPv4 address, such as 127.0.0.1")
    # Any client can spawn and destroy actors and load maps, and a message could exhaust the machine's memory.
    if not is_local and not settings.allow_remote:
        raise ValueError(
            f"--host {settings.host}: other machines could reach the server, which has no password; "
            "add --allow-remote if you want this"
        )
    seed = check_count("--seed", settings.seed, 0, 2**32 - 1)
    maps = _library(settings.maps, seed if settings.traffic_lights else None)
    return EmulatorSettings(
        port=check_count("--port", settings.port, 0, 65_534),
        host=settings.host,
        map_name=_first_map(settings.map, maps),
        maps=maps,
        is_realtime=settings.realtime,
        faults=tuple(parse_fault(text) for text in settings.fault),
        n_cars=check_count("--cars", settings.cars, 0, MAX_SERVER_CARS),
        seed=seed,
        has_carla_steering=settings.carla_steering,
        is_quiet=settings.quiet,
    )


def _library(folder: str | None, lights_seed: int | None) -> MapLibrary:
    try:
        return MapLibrary(folder, lights_seed)
    except (ValueError, OSError) as error:
        raise ValueError(f"--maps {error}") from error


def _first_map(name: str | None, maps: MapLibrary) -> str:
    """Return the short name of the map to start with; if ``name`` is a file, add the file to the library."""
    if name is None:
        return maps.names[0] if maps.has_files else _DEFAULT_MAP
    if name.endswith(OPENDRIVE_SUFFIX):
        try:
            return maps.add_file(name)
        except (ValueError, OSError) as error:
            raise ValueError(f"--map {error}") from error
    if name not in maps.names:
        raise ValueError(f"--map {name}: there is no such map; choose from {', '.join(maps.names)}")
    return name
