"""``visual-td3 carla-emulator``: the command line of the server."""

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

from sb3_visual_td3.envs.arguments import check_count
from sb3_visual_td3.envs.carla_emulator.faults import KINDS, parse_fault
from sb3_visual_td3.envs.carla_emulator.maps import ALIASES, NAMES
from sb3_visual_td3.envs.carla_emulator.server import EmulatorServer, EmulatorSettings
from sb3_visual_td3.envs.road.traffic import MAX_CARS

_BAD_USAGE = 2
_LOOK_EVERY_S = 0.3
_LAUNCHER_PORT = "-carla-rpc-port="
_LAUNCHER_FLAG = re.compile("-[A-Za-z]")
DESCRIPTION = (
    "Serve the embedded driving world in CARLA 0.9.16's protocol: CARLA's own client (pip install carla==0.9.16) and "
    "the scripts that use it run without Unreal and without a GPU."
)
EPILOG = f"""maps: {", ".join(NAMES)}
towns that scripts name are these roads: {", ".join(f"{town} is {name}" for town, name in ALIASES.items())}

faults: {", ".join(KINDS)}
  KIND@TICK once, KIND@every:N again and again, KIND from the start; KIND=AMOUNT: seconds of a hang or of each slow
  tick, images to drop or truncate, spawns to refuse (a hang lasts for ever, the others 1, if none is given)

examples:
  visual-td3 carla-emulator                          on port 2000, as CARLA's own server
  visual-td3 carla-emulator --port 0 --map Town02    on any free port, which is printed
  visual-td3 carla-emulator --cars 10 --seed 3       with traffic
  visual-td3 carla-emulator --fault die@500          to see what your client does when its server dies
  visual-td3 carla-emulator --fault hang=30@every:2000 --fault drop-frames=2@every:100

CARLA's launcher flags are understood where they mean something here (-carla-rpc-port=N) and ignored elsewhere
(-RenderOffScreen, -quality-level=Low, ...)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the server can be told."""
    parser.add_argument("--port", type=int, default=2000, help="of the calls; streams have the next (default: 2000)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine's own)")
    parser.add_argument("--allow-remote", action="store_true", help="let --host be one that other machines reach")
    parser.add_argument("--map", default="train_0", help="the first map (default: train_0)")
    parser.add_argument("--realtime", action="store_true", help="synchronous ticks, too, keep to the clock")
    parser.add_argument("--cars", type=int, default=0, metavar="N", help="cars that the server drives itself, 0 to 20")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of those cars (default: 0)")
    parser.add_argument("--quiet", action="store_true", help="say nothing of calls that are not known")
    parser.add_argument("--end-with", type=int, metavar="PID", help="end when this process, which started it, is gone")
    parser.add_argument("--fault", action="append", default=[], metavar="KIND[=AMOUNT][@TICK]", help="see below")


def run(arguments: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM.

    :param arguments: of the command line.
    :return: the exit code.
    """
    parser = argparse.ArgumentParser(
        prog="visual-td3 carla-emulator",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    settings = parser.parse_args(_without_launcher_flags(arguments))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    if settings.end_with is not None:
        threading.Thread(target=_end_with, args=(settings.end_with,), daemon=True).start()
    try:
        server = EmulatorServer(_checked(settings))
    except _StoppedError:
        return 0
    except (ValueError, OSError, ImportError) as error:
        print(f"visual-td3 carla-emulator: {_told(error, settings)}", file=sys.stderr)
        return _BAD_USAGE
    try:
        print(
            f"carla-emulator: listening on {settings.host}:{server.port} (streams {server.stream_port}), "
            f"map {settings.map}",
            flush=True,
        )
        server.serve()
    except (_StoppedError, BrokenPipeError):  # the latter: whoever started it is gone
        return 0
    finally:
        server.close()


def _end_with(parent: int) -> None:
    """End this process as soon as another process is its parent, whatever it does: it may hang on purpose."""
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(0)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _StoppedError


class _StoppedError(BaseException):
    """A signal asks for the end; it is no Exception, lest somebody catches it on its way, as from within a hang."""


def _without_launcher_flags(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with CARLA's launcher flags turned into ours, or left out."""
    kept = []
    for word in arguments:
        if word.startswith(_LAUNCHER_PORT):
            kept += ["--port", word.removeprefix(_LAUNCHER_PORT)]
        elif word == "-h" or not _LAUNCHER_FLAG.match(word):
            kept.append(word)
    return kept


def _checked(settings: argparse.Namespace) -> EmulatorSettings:
    """:raises ValueError: if something is not as it must be."""
    try:
        is_local = settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        is_local = False
    if not is_local and not settings.allow_remote:
        raise ValueError(
            f"--host {settings.host}: other machines would reach it, and it asks nobody for a password; "
            "add --allow-remote if that is meant"
        )
    if settings.map not in NAMES and settings.map not in ALIASES:
        raise ValueError(f"--map {settings.map}: there is no such map; choose from {', '.join((*NAMES, *ALIASES))}")
    faults = tuple(parse_fault(text) for text in settings.fault)
    cars = check_count("--cars", settings.cars, 0, MAX_CARS)
    seed = check_count("--seed", settings.seed, 0, 2**32 - 1)
    port = check_count("--port", settings.port, 0, 65_534)
    return EmulatorSettings(port, settings.host, settings.map, settings.realtime, faults, cars, seed, settings.quiet)


def _told(error: Exception, settings: argparse.Namespace) -> str:
    if isinstance(error, OSError):
        return f"cannot listen on {settings.host}:{settings.port} and the next port ({error}); name another --port"
    return str(error)
