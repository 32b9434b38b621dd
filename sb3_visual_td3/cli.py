"""Define the command line ``visual-td3``: its subcommands, their arguments and its exit codes.

Except for rl-zoo's commands, each subcommand parses its arguments before it imports the module that does the work. So
``--help`` does not wait for the import of torch.

To add a subcommand, write a function that takes the arguments and returns the exit code, and add it to
:data:`COMMANDS`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sb3_visual_td3 import __version__
from sb3_visual_td3.common.errors import (
    CODE_FAULTS,
    DEBUG_FLAG,
    DEBUG_VARIABLE,
    ExitCode,
    debugging,
    reader_is_gone,
    report_bug,
)
from sb3_visual_td3.common.installation import install_command
from sb3_visual_td3.zoo.commands import TRAINING_GROUP, ZOO_COMMANDS, run_zoo_command
from sb3_visual_td3.zoo.flags import (
    ALGO,
    DEFAULT_ENV,
    END_ON_HELP,
    EXIT_CODES,
    VALIDATION_TIMESTEPS,
    StorePlainPairs,
    add_packages_argument,
    positive_int,
)

VERDICT_EXIT_CODES = "exit codes: 0 GO, 1 NO-GO, 2 bad usage or unreadable input, 3 INSUFFICIENT, 4 internal error"
VERDICTS = (ExitCode.GO, ExitCode.NO_GO, ExitCode.INSUFFICIENT)
"""Exit codes of a command that has written a report."""


class Command(NamedTuple):
    """Describe a subcommand: its help, its group and the function that runs it.

    :ivar help: one line for ``visual-td3 --help``
    :ivar group: heading under which ``visual-td3 --help`` lists it
    :ivar run: function that takes the arguments and returns the exit code
    """

    help: str
    group: str
    run: Callable[[list[str]], int]


def _train(arguments: list[str]) -> int:
    from sb3_visual_td3.zoo.train import main

    return main(arguments)


def _validate(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="visual-td3 validate",
        description="Train for a short while and judge whether the long run may start. The run evaluates the policy at "
        "least five times and starts to train after a fifth of its steps at the latest, even if the hyperparameter "
        "file is for a longer run.",
        epilog=VERDICT_EXIT_CODES,
    )
    parser.add_argument(
        "--algo", default=ALGO, help="algorithm to train, by its name in rl-zoo, such as sac (default: %(default)s)"
    )
    parser.add_argument("--env", default=DEFAULT_ENV, help="environment to train on (default: %(default)s)")
    parser.add_argument(
        "--env-kwargs",
        nargs="+",
        metavar="KEY:VALUE",
        help="arguments of the environment, such as n_cars:8, or port:2010 for CarlaDriving-v0",
    )
    parser.add_argument(
        "--eval-env-kwargs",
        nargs="+",
        metavar="KEY:VALUE",
        help="arguments of the environment that evaluates the policy (default: as in the training, on held-out maps)",
    )
    parser.add_argument(
        "-n",
        "--n-timesteps",
        type=positive_int,
        help=f"number of environment steps, such as 20000 (default: {VALIDATION_TIMESTEPS}; with --conf-file, "
        "n_timesteps of the file)",
    )
    parser.add_argument(
        "--eval-freq",
        type=positive_int,
        metavar="STEPS",
        help="steps between two evaluations of the policy (default: that of the hyperparameter file, but at most a "
        "fifth of the run)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the run (default: %(default)s)")
    parser.add_argument("-f", "--log-folder", default="logs", help="folder to write the run to (default: %(default)s)")
    parser.add_argument(
        "-conf", "--conf-file", help="your own hyperparameter file, in rl-zoo's format, such as my_env.yml"
    )
    parser.add_argument(
        "-params",
        "--hyperparams",
        nargs="+",
        metavar="KEY:VALUE",
        help="hyperparameters that replace those of the file, such as gamma:0.99 n_envs:4",
    )
    add_packages_argument(parser)
    parser.add_argument(
        "--verbose", type=int, default=0, help="1 prints Stable-Baselines3's tables during the training (default: 0)"
    )
    settings = parser.parse_args(arguments)

    from sb3_visual_td3.zoo.train import run_validation

    outcome = run_validation(settings)
    if isinstance(outcome, int):
        return outcome
    return _report([str(outcome), "--require-evidence", "full"])


def _resume(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="visual-td3 resume",
        description="Continue a run that was killed, from its newest valid snapshot.",
        epilog="If the simulator can save its state (LiteDriving-v0), the resumed run gives the same results as a "
        "run that was never killed, bit for bit. Otherwise (CARLA) the run continues with a new episode, and a message "
        "says so. A run without a snapshot starts again. A run that was killed while it saved its final model needs no "
        "more training: the command only saves the model. "
        f"{EXIT_CODES}",
    )
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="folder of the run, such as logs/visual_td3/LiteDriving-v0_1"
    )
    parser.add_argument("--list", action="store_true", help="list the snapshots and exit")
    parser.add_argument(
        "--allow",
        nargs="+",
        default=[],
        metavar="PACKAGE",
        help="your own packages, such as my_envs, that the run may import if its hyperparameters name them (default: "
        "none)",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="allow what the run's saved settings ask for: to start a simulator, to load the model that 'train -i' "
        "began with, and to write outside RUN_DIR. Use this flag for your own runs only",
    )
    parser.add_argument(
        "-tb",
        "--tensorboard-log",
        metavar="DIR",
        help="folder for the event files (default: RUN_DIR/tb). If DIR is outside RUN_DIR, 'resume' copies the run's "
        "event files to a new subfolder of DIR, and logging continues there. If you have moved the run's event files "
        "to DIR, 'resume' finds them",
    )
    parser.add_argument(
        "--without-logs",
        action="store_true",
        help="resume the run even if its event files or other logs are lost, truncated or not writable",
    )
    parser.add_argument(
        "--num-threads",
        type=positive_int,
        metavar="N",
        help="number of PyTorch's threads on the CPU (default: as in the command that started the run)",
    )
    parser.add_argument("--end-on", nargs="+", metavar="SIGNAL", help=END_ON_HELP)
    settings = parser.parse_args(arguments)

    from sb3_visual_td3.zoo.resume import run

    return run(settings)


def _sweep(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="visual-td3 sweep",
        description="Train once for each of several seeds, or search for good hyperparameters, as Ray tasks on this "
        "machine or a cluster. A training run that turns NO-GO is stopped early. One report compares the runs, and the "
        "trials are kept in an Optuna storage.",
        epilog=f"All other flags are passed to 'visual-td3 train'. {VERDICT_EXIT_CODES}; 1 also if a run crashes",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", type=int, nargs="+", metavar="N", help="train once with each seed, such as 0 1 2")
    what.add_argument(
        "-optimize", "--optimize-hyperparameters", action="store_true", help="search for good hyperparameters"
    )
    parser.add_argument(
        "--n-trials",
        type=int,
        default=20,
        help="number of finished trials after which a search ends (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="number of parallel workers in a search (default: %(default)s)"
    )
    parser.add_argument(
        "--num-cpus", type=float, default=1.0, help="CPUs reserved for each training run or worker (default: 1)"
    )
    parser.add_argument(
        "--num-gpus",
        type=float,
        default=0.0,
        help="GPUs reserved for each training run or worker; with 0.5, two share a GPU (default: 0)",
    )
    parser.add_argument(
        "--address", help="address of a Ray cluster, such as auto (default: RAY_ADDRESS if it is set, or this machine)"
    )
    parser.add_argument(
        "-f",
        "--log-folder",
        default="logs",
        help="folder for the runs; on a cluster, all machines must share it (default: logs)",
    )
    parser.add_argument(
        "--storage",
        help="Optuna storage: a journal file, or a database such as sqlite:///sweep.db (default: sweep.log in the log "
        "folder)",
    )
    parser.add_argument(
        "--study-name", default="sweep", help="name of the Optuna study in the storage (default: %(default)s)"
    )
    settings, flags = parser.parse_known_args(arguments)

    from sb3_visual_td3.zoo import sweep
    from sb3_visual_td3.zoo.mistakes import answer

    result = sweep.run(settings, flags)
    if not result.run_dirs:
        return result.code
    folder = Path(settings.log_folder)
    report = folder / "report.json"
    report.unlink(missing_ok=True)  # the report of an earlier sweep, which would be taken for the report of this one
    code = _report([*map(str, result.run_dirs.values()), "--output", str(folder)])
    if not report.is_file():  # _report has printed why
        return result.code or code
    try:
        storage = sweep.storage_of(settings)
        sweep.keep_seeds(storage, settings.study_name, result.run_dirs, report, flags)
    except Exception as error:
        return answer("sweep", error)
    # A training run that failed counts for more than the verdicts on the others.
    return result.code or code


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select a finished run: its folder, or rl-zoo's flags."""
    parser.add_argument(
        "run_dir",
        type=Path,
        nargs="?",
        metavar="RUN_DIR",
        help="folder of the run, such as logs/visual_td3/LiteDriving-v0_1 (default: the run that --algo, --env, "
        "--folder and --exp-id select)",
    )
    parser.add_argument("--algo", default=ALGO, help="name of the algorithm in rl-zoo (default: %(default)s)")
    parser.add_argument("--env", default=DEFAULT_ENV, help="id of the environment (default: %(default)s)")
    parser.add_argument("-f", "--folder", default="logs", help="folder that holds the runs (default: %(default)s)")
    parser.add_argument("--exp-id", type=int, default=0, help="number of the run (default: 0, the latest)")


def _evaluate(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="visual-td3 evaluate",
        description="Drive a trained agent on held-out maps, and compare it with two simple drivers: one acts at "
        "random, one only brakes. The tables show success, route completion, return and infractions for each map, "
        "with 95 % bootstrap intervals. In an environment without maps, the agent is compared with a random policy "
        "by the return and length of episodes from held-out seeds.",
    )
    _add_run_arguments(parser)
    parser.add_argument("--load-best", action="store_true", help="load the best model instead of the last one")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="also evaluate two other policies of the run: its best model, and the last actor (by default VisualTD3 "
        "drives with an average of the recent actors)",
    )
    parser.add_argument(
        "--load-checkpoint",
        type=int,
        metavar="STEP",
        help="load the checkpoint that was saved at this step, such as 100000",
    )
    parser.add_argument("--load-last-checkpoint", action="store_true", help="load the last checkpoint of the run")
    parser.add_argument(
        "-n",
        "--n-episodes",
        type=positive_int,
        help="number of episodes on each map with each seed (default: 10). With --suite, number of routes for each "
        "map or each task, such as 'one turn' (the default depends on the suite)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        help="one or more seeds of the episodes, such as 1000 2000 (default: 1000, or 1000000 in an environment "
        "without maps)",
    )
    parser.add_argument(
        "--maps",
        nargs="+",
        help="maps or groups of maps of a driving environment (default: held_out, which training never sees)",
    )
    parser.add_argument(
        "--suite",
        help="set of routes to drive and score: lite-routes (on held-out maps), town01-train (with --maps "
        "Town01.xodr), town02-test (with --maps Town02.xodr), or a route file of CARLA's leaderboard (with --maps)",
    )
    parser.add_argument(
        "--n-envs",
        type=positive_int,
        help="number of parallel environments (default: 10, or 1 if the environment needs a CARLA server)",
    )
    parser.add_argument(
        "--stochastic", action="store_true", help="sample actions (by default the policy acts deterministically)"
    )
    parser.add_argument(
        "--device", default="auto", help="device of the networks, such as cpu or cuda (default: %(default)s)"
    )
    add_packages_argument(parser)
    parser.add_argument(
        "--output",
        "--json",
        type=Path,
        metavar="FILE",
        help="JSON file for all results and episodes; with --suite it also has the infractions and the score of "
        "each route",
    )
    settings = parser.parse_args(arguments)

    from sb3_visual_td3.zoo.evaluate import run

    return run(settings)


def _report(arguments: list[str]) -> int:
    from sb3_visual_td3.report.command import add_arguments, run

    parser = argparse.ArgumentParser(
        prog="visual-td3 report",
        description="Judge training runs by their TensorBoard event files: write a verdict, its cause, and the first "
        "thing to do.",
        epilog=VERDICT_EXIT_CODES,
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def _export(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="visual-td3 export",
        description="Write the policy of a trained agent as one file that needs neither this package nor "
        "Stable-Baselines3: an ONNX file or TorchScript. It maps raw observations to the environment's actions. The "
        "file holds the policy that 'evaluate' measures (the average of the recent actors), with its encoder, the "
        "action bounds and VecNormalize's scales.",
    )
    _add_run_arguments(parser)
    parser.add_argument("--load-best", action="store_true", help="export the best model instead of the last one")
    add_packages_argument(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("policy.onnx"),
        metavar="FILE",
        help="file to write: .onnx (needs the extra 'export') or .pt for TorchScript (default: %(default)s)",
    )
    settings = parser.parse_args(arguments)

    from sb3_visual_td3.zoo.export import run

    return run(settings)


def _address(text: str) -> tuple[str, int]:
    """Return host and port of ``[HOST:]PORT``; this is an argparse type."""
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        raise argparse.ArgumentTypeError(f"expected [HOST:]PORT, such as 2000 or 10.0.0.5:2000, got {text!r}")
    return host or "127.0.0.1", int(port)


def _demo(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="visual-td3 demo",
        description="Watch a trained policy drive, on roads that it was not trained on: in a window, or in the file "
        "demo.gif if there is no display. The policy comes with the package; it learned in 10,000 steps on "
        "LiteDriving-v0.",
    )
    parser.add_argument("--record", action="store_true", help="film the drive even if there is a display")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="film to write: .gif or .mp4 (default: demo.gif)"
    )
    parser.add_argument(
        "--seconds",
        type=positive_int,
        default=30,
        metavar="N",
        help="length of the drive in seconds (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the starting places (default: %(default)s)")
    parser.add_argument(
        "--env-kwargs",
        nargs="+",
        action=StorePlainPairs,
        default={},
        metavar="KEY:VALUE",
        help="arguments of the environment, such as n_cars:8 weather:rain maps:train_0",
    )
    parser.add_argument(
        "--route",
        help="route to drive: loop, random, or a route file of CARLA's leaderboard (.xml). The policy does not see "
        "where the route turns, so it may leave the route at a junction",
    )
    parser.add_argument(
        "--carla",
        type=_address,
        nargs="?",
        const=("127.0.0.1", 2000),
        metavar="[HOST:]PORT",
        help="drive in CARLA or in 'visual-td3 carla-emulator' (extra: carla; default address: 127.0.0.1:2000)",
    )
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="ONNX file of the policy to drive with, as 'visual-td3 export' writes it",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="instead of driving, write two reports to demo_report/: one on the run that trained the demo's policy, "
        "and one on a run that failed; the reports open if there is a display",
    )
    settings = parser.parse_args(arguments)

    from sb3_visual_td3.zoo.mistakes import answer

    try:
        if settings.report:
            return _demo_report()
        from sb3_visual_td3.demo.drive import run

        return run(settings)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        return answer("demo", error)


def _demo_report() -> int:
    """Write and open the reports of the two training runs that the package contains."""
    from importlib.resources import as_file, files

    from sb3_visual_td3.common.display import has_display

    pages = []
    for name in ("good", "failed"):
        output = Path("demo_report") / name
        with as_file(files("sb3_visual_td3.demo") / "runs" / name) as run_dir:
            code = _report([str(run_dir), "--output", str(output)])
        if code not in VERDICTS:
            return code
        pages.append((output / "report.html").resolve())
    if has_display():
        import webbrowser

        for page in pages:
            webbrowser.open(page.as_uri())
    return 0


def _doctor(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="visual-td3 doctor",
        description="Examine a training run before it starts: the environment (images, actions, rewards, episodes, "
        "seeds, speed), the settings, and the learner (gradients, targets, one batch). It takes about a minute, and "
        "no file is written unless you ask for one.",
        epilog="All other flags are those of 'visual-td3 train': to examine a training command, replace 'train' by "
        "'doctor' and keep its flags. Exit codes: 0 no problem, 1 a problem, 2 bad usage, 4 internal error.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--probes",
        action="store_true",
        help="also train the algorithm on five small environments whose correct result is known (up to 3 minutes)",
    )
    parser.add_argument(
        "--roll-out-steps",
        type=positive_int,
        default=2000,
        metavar="N",
        help="largest number of steps with random actions; fewer are made if the environment is slow (default: "
        "%(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write findings and checks to this JSON file")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write findings and checks to this HTML file")
    settings, flags = parser.parse_known_args(arguments)

    from sb3_visual_td3.zoo.doctor import run

    return run(settings, flags)


def _carla_emulator(arguments: list[str]) -> int:
    try:
        from sb3_visual_td3.envs.carla_emulator.command import run
    except ModuleNotFoundError as error:
        if error.name == "resource":  # Windows has no such module
            print("visual-td3 carla-emulator needs Linux", file=sys.stderr)
            return ExitCode.BAD_USAGE
        if error.name != "msgpack":
            raise
        print(f"visual-td3 carla-emulator needs msgpack: {install_command('carla')}", file=sys.stderr)
        return ExitCode.BAD_USAGE
    return run(arguments)


DEMO_GROUP = "begin here"
JUDGING_GROUP = "resume, judge and compare runs"
SIMULATOR_GROUP = "simulator"

COMMANDS = {
    "demo": Command("watch a trained policy drive, without any training", DEMO_GROUP, _demo),
    "train": Command(f"train an agent with rl-zoo's flags, by default with {ALGO}", TRAINING_GROUP, _train),
    "resume": Command("continue a run that was killed, from its newest snapshot", JUDGING_GROUP, _resume),
    "validate": Command("train for a short while and judge: may the long run start?", JUDGING_GROUP, _validate),
    "doctor": Command("find what is wrong with environment, settings or learner before a run", JUDGING_GROUP, _doctor),
    "report": Command("give a GO/NO-GO verdict on event files, with cause and remedy", JUDGING_GROUP, _report),
    "sweep": Command("train several seeds, or search for hyperparameters, with Ray", JUDGING_GROUP, _sweep),
    "evaluate": Command("measure a trained agent on held-out maps or seeds", JUDGING_GROUP, _evaluate),
    "export": Command("write a trained policy as one ONNX or TorchScript file", JUDGING_GROUP, _export),
    "carla-emulator": Command(
        "act as a CARLA server, without Unreal and without a GPU", SIMULATOR_GROUP, _carla_emulator
    ),
    **{name: Command(each.help, each.group, partial(run_zoo_command, name)) for name, each in ZOO_COMMANDS.items()},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand of ``visual-td3``.

    :param arguments: command-line arguments; None for ``sys.argv[1:]``
    :return: the exit code
    """
    try:
        return _run(arguments)
    except BrokenPipeError:
        # A pipe to a worker process can break, too; that is an error like any other.
        if not reader_is_gone():
            raise
        return ExitCode.READER_IS_GONE
    finally:
        _flush()


def _flush() -> None:
    """Flush stdout and stderr, because Python would otherwise print an error about a broken pipe at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="visual-td3",
        description="Train TD3 from camera pixels, and find out why a training run fails.",
        epilog=f"{_list_commands()}\n\n'visual-td3 COMMAND --help' describes a command and its flags.\n"
        f"{VERDICT_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="visual-td3 [-h] [--version] [--debug] COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"visual-td3 {__version__}")
    parser.add_argument(
        DEBUG_FLAG, action="store_true", help=f"show the traceback of usage errors too, as {DEBUG_VARIABLE}=1 does"
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = list(sys.argv[1:] if arguments is None else arguments)
    # --debug may stand before or after the command, also among rl-zoo's flags, whose parsers do not know it.
    known = [argument for argument in given if argument != DEBUG_FLAG]
    if not known:
        parser.print_help()
        return 0
    command = parser.parse_args(known[:1]).command
    with debugging(is_wanted=len(known) < len(given)):
        try:
            return COMMANDS[command].run(known[1:])
        except CODE_FAULTS as error:
            return report_bug(command, error)


def _list_commands() -> str:
    """Return the commands with their help, under a heading for each group."""
    groups: dict[str, list[str]] = {}
    for name, command in COMMANDS.items():
        groups.setdefault(command.group, []).append(f"  {name:<15} {command.help}")
    return "\n\n".join(f"{group}:\n" + "\n".join(lines) for group, lines in groups.items())
