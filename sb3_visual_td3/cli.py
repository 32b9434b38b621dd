"""The command line ``visual-td3``: subcommands and exit codes. Imports are lazy: ``report`` never waits for torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sb3_visual_td3 import __version__
from sb3_visual_td3.common.errors import BAD_USAGE, CODE_FAULTS, DEBUG_FLAG, DEBUG_VARIABLE, debugging, report_bug
from sb3_visual_td3.zoo.commands import ZOO_COMMANDS, run_zoo_command


class Command(NamedTuple):
    """One subcommand."""

    help: str
    run: Callable[[list[str]], int]


def _train(arguments: list[str]) -> int:
    from sb3_visual_td3.zoo.train import main

    return main(arguments)


def _validate(arguments: list[str]) -> int:
    from sb3_visual_td3.zoo.train import add_validation_arguments, run_validation

    parser = argparse.ArgumentParser(
        prog="visual-td3 validate",
        description="Train VisualTD3 for a short while and judge the run: may the long one start?",
        epilog=_EXIT_CODES,
    )
    add_validation_arguments(parser)
    run_dir = run_validation(parser.parse_args(arguments))
    return run_dir if isinstance(run_dir, int) else _report([str(run_dir)])


def _resume(arguments: list[str]) -> int:
    from sb3_visual_td3.zoo.hyperparameters import EXIT_CODES
    from sb3_visual_td3.zoo.resume import add_arguments, run

    parser = argparse.ArgumentParser(
        prog="visual-td3 resume",
        description="Continue a run that was killed, from its newest good snapshot, as if nothing had happened.",
        epilog="Where the simulator can hand over its state (LiteDriving-v0) the run is the one that was never killed, "
        "bit for bit; elsewhere (CARLA) it goes on with a new episode, and says so. A run that was killed before its "
        f"first snapshot begins again; one that was killed while its end was being saved is saved. {EXIT_CODES}",
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def _sweep(arguments: list[str]) -> int:
    from sb3_visual_td3.zoo import sweep
    from sb3_visual_td3.zoo.mistakes import answer

    parser = argparse.ArgumentParser(
        prog="visual-td3 sweep",
        description="Train once for each of several seeds, or search hyperparameters, as Ray tasks on this machine or "
        "a cluster; what is NO-GO is ended early. One comparison report, and the trials in an Optuna storage.",
        epilog=f"All other flags are those of 'visual-td3 train'. {_EXIT_CODES}",
        allow_abbrev=False,
    )
    sweep.add_arguments(parser)
    settings, flags = parser.parse_known_args(arguments)
    found = sweep.run(settings, flags)
    if not found.run_dirs:
        return found.code
    folder = Path(settings.log_folder)
    code = _report([*map(str, found.run_dirs.values()), "--output", str(folder)])
    try:
        storage = sweep.storage_of(settings)
        sweep.keep_seeds(storage, settings.study_name, found.run_dirs, folder / "report.json", flags)
    except Exception as error:
        return answer("sweep", error)
    return found.code or code


def _evaluate(arguments: list[str]) -> int:
    from sb3_visual_td3.zoo.evaluate import add_arguments, run

    parser = argparse.ArgumentParser(
        prog="visual-td3 evaluate",
        description="Drive a trained agent on roads that it has not seen, beside a random and a full-brake driver: "
        "success, route, return, infractions for each map, with bootstrap intervals of 95 %.",
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def _report(arguments: list[str]) -> int:
    from sb3_visual_td3.report.command import add_arguments, run

    parser = argparse.ArgumentParser(
        prog="visual-td3 report",
        description="Judge training runs by their TensorBoard event files: a verdict, the cause, what to do first.",
        epilog=_EXIT_CODES,
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def _carla_emulator(arguments: list[str]) -> int:
    try:
        from sb3_visual_td3.envs.carla_emulator.command import run
    except ModuleNotFoundError as error:
        if error.name != "msgpack":
            raise
        print("visual-td3 carla-emulator needs msgpack: pip install 'sb3-visual-td3[carla]'", file=sys.stderr)
        return BAD_USAGE
    return run(arguments)


READER_IS_GONE = 141
_EXIT_CODES = "exit codes: 0 GO, 1 NO-GO, 2 bad usage or unreadable input, 3 INSUFFICIENT, 4 internal error"

COMMANDS = {
    "train": Command("train an agent: rl-zoo's command and flags, visual_td3 by default", _train),
    "resume": Command("continue a run that was killed, from its newest snapshot", _resume),
    "validate": Command("train for a short while, then report: may the long run start?", _validate),
    "report": Command("a go/no-go verdict, its cause and its remedy, from event files", _report),
    "sweep": Command("several seeds, or a hyperparameter search, side by side on Ray", _sweep),
    "evaluate": Command("a trained agent on held-out maps: success, infractions, as table and JSON", _evaluate),
    "carla-emulator": Command("a server for CARLA's own client, without Unreal and without a GPU", _carla_emulator),
    **{name: Command(each.help, partial(run_zoo_command, name)) for name, each in ZOO_COMMANDS.items()},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    :param arguments: of the command line by default
    :return: the exit code; 141 where the program that reads our stdout ended first, as a shell has it for SIGPIPE
    """
    try:
        return _run(arguments)
    except BrokenPipeError:
        from sb3_visual_td3.report.console import reader_is_gone

        if not reader_is_gone():
            raise
        return READER_IS_GONE
    finally:
        _flush()


def _flush() -> None:
    """Write out what is left here: at exit Python would complain that a pipe is broken."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    commands = "\n".join(f"  {name:<15} {command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="visual-td3",
        description="TD3 from camera pixels that does not blow up, and a verdict that says why when it does.",
        epilog=f"commands:\n{commands}\n\n'visual-td3 COMMAND --help' says more.\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="visual-td3 [-h] [--version] [--debug] COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"visual-td3 {__version__}")
    parser.add_argument(
        DEBUG_FLAG, action="store_true", help=f"show the traceback of a usage error too, as {DEBUG_VARIABLE}=1 does"
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = list(sys.argv[1:] if arguments is None else arguments)
    known = [argument for argument in given if argument != DEBUG_FLAG]
    command = parser.parse_args(known[:1]).command
    with debugging(is_wanted=len(known) < len(given)):
        try:
            return COMMANDS[command].run(known[1:])
        except CODE_FAULTS as error:
            return report_bug(command, error)
