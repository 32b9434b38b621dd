"""Define the subcommands of ``visual-td3`` that run rl-zoo's commands, extended by our algorithm.

Large libraries are imported only when a command runs, so that ``visual-td3 --help`` is fast.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from sb3_visual_td3.common.display import has_display
from sb3_visual_td3.common.errors import UsageError
from sb3_visual_td3.zoo.flags import ALGO, DEFAULT_ENV, command_line, replaced

LAST_TRAINING = ("--algo", ALGO, "--env", DEFAULT_ENV, "-f", "logs")
"""Default flags of rl-zoo's commands that load a model: the latest run of ``visual-td3 train``."""
_PLOT_DEFAULTS = ("-a", ALGO, "-e", DEFAULT_ENV, "-f", "logs")
EPISODE_WINDOW = 100
"""Number of episodes over which rl-zoo's plot-train averages by default."""
_BACKENDS_WITHOUT_WINDOW = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
"""Backends of matplotlib that show nothing on a screen."""

TRAINING_GROUP = "rl-zoo: train and watch an agent"
PLOTS_GROUP = "rl-zoo: plots (extra: plots)"
HUB_GROUP = "rl-zoo: Hugging Face hub"


class ZooCommand(NamedTuple):
    """Describe one of rl-zoo's commands.

    :ivar help: one line in ``visual-td3 --help``
    :ivar group: heading in ``visual-td3 --help``
    :ivar play: function that runs the command with the flags in ``sys.argv``
    :ivar defaults: default flags, which the user's flags override
    :ivar extra: the extra of this package that installs the command's libraries; None if it needs no extra
    :ivar makes_environments: True makes the command accept ``--gym-packages`` and check ``--env``
    :ivar loads_models: whether the command needs our algorithm, which takes time to import
    """

    help: str
    group: str
    play: Callable[[], object]
    defaults: Sequence[str] = ()
    extra: str | None = None
    makes_environments: bool = False
    loads_models: bool = True


def run_zoo_command(name: str, arguments: Sequence[str] | None = None) -> int:
    """Run one of rl-zoo's commands as if a user had typed it in a shell.

    :param name: a key of :data:`ZOO_COMMANDS`
    :param arguments: rl-zoo's flags; None for ``sys.argv[1:]``
    :return: the exit code
    """
    from sb3_visual_td3.zoo.mistakes import answer, need_extra

    command = ZOO_COMMANDS[name]
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if name == "enjoy":
            _check_display(given)
        if command.loads_models:
            from sb3_visual_td3.zoo import register

            register()
        defaults = list(command.defaults)
        if name == "plot-train" and not {"-h", "--help"} & set(given):
            defaults += _window_flag([*command.defaults, *given])
        # rl-zoo's parsers run within play(), so argparse must be changed before.
        with command_line(
            name, [*defaults, *given], makes_environments=command.makes_environments, trained_with=_packages_of_the_run
        ):
            if command.extra is not None:
                need_extra(command.extra)
            command.play()
    except Exception as error:
        return answer(name, error)
    return 0


def _packages_of_the_run(parsed: argparse.Namespace, env_id: str) -> list[str]:
    """Return the modules with which the run was trained that ``enjoy`` and similar commands load; empty if unknown."""
    if not hasattr(parsed, "exp_id"):  # benchmark loads the models of a folder
        return []
    from sb3_visual_td3.zoo.saved_run import find_run

    try:
        with redirect_stdout(io.StringIO()):
            return find_run(parsed.folder, parsed.algo, env_id, parsed.exp_id).gym_packages()
    except (AssertionError, OSError, ValueError):  # the command reports a missing run itself
        return []


def _enjoy() -> None:
    from sb3_visual_td3.zoo.plugin_scripts import statistics_of_the_model

    module = import_module("rl_zoo3.enjoy")
    with statistics_of_the_model(module):
        module.enjoy()


def _check_display(arguments: Sequence[str]) -> None:
    """Check for a display before slow imports begin."""
    # If SDL's video driver is set, the user has decided where the window appears.
    if {"--no-render", "-h", "--help"} & set(arguments) or has_display() or "SDL_VIDEODRIVER" in os.environ:
        return
    raise UsageError(
        "there is no display to show the agent on: film the agent with 'visual-td3 record-video', or use "
        "--no-render, which only prints the return"
    )


def _record_video() -> None:
    """Film an agent; the mp4 goes to RUN_DIR/videos by default."""
    from sb3_visual_td3.zoo.plugin_scripts import run_watching

    run_watching("rl_zoo3.record_video", ALGO)


def _record_training() -> None:
    """Film a training run; rl-zoo first empties the folder of the film."""
    from sb3_visual_td3.zoo.plugin_scripts import run_record_training

    # ffmpeg reads the paths of the film's parts from a list file. It resolves relative paths from the folder of this
    # file, not from the current folder, so it would not find the parts in a relative output folder.
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-o", "--output-folder")
    if folder := parser.parse_known_args(sys.argv[1:])[0].output_folder:
        sys.argv += ["-o", os.path.abspath(folder)]
    with ffmpeg_on_path():
        run_record_training()


@contextmanager
def ffmpeg_on_path() -> Iterator[None]:
    """Make ``ffmpeg`` available to the shell: the system's program, or else moviepy's."""
    if shutil.which("ffmpeg"):
        yield
        return
    before = os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(import_module("imageio_ffmpeg").get_ffmpeg_exe())
        # The suffix of "ffmpeg-linux-x86_64-v9.0.2" is ".2", so only that of a Windows program is kept.
        name = Path(folder) / ("ffmpeg.exe" if program.suffix == ".exe" else "ffmpeg")
        try:
            name.symlink_to(program)
        except OSError:  # on Windows, only administrators may make links
            shutil.copy(program, name)
        os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before


def _benchmark() -> None:
    """Evaluate the agents in a folder and rl-zoo's agents on the Hugging Face hub; ``--no-hub`` skips the hub."""
    from sb3_visual_td3.zoo.plugin_scripts import run_benchmark

    run_benchmark()


def _push_to_hub() -> None:
    from sb3_visual_td3.zoo.mistakes import need_extra
    from sb3_visual_td3.zoo.plugin_scripts import run_push_to_hub

    # The agent's model card on the hub shows a video.
    if "--no-render" not in sys.argv:
        need_extra("video")
    run_push_to_hub(ALGO)


def _load_from_hub() -> None:
    from sb3_visual_td3.zoo.plugin_scripts import run_load_from_hub

    run_load_from_hub()


def _plot_train() -> None:
    """Plot the episodes of training, one curve for each run."""
    with figures_kept("plot-train"):
        import_module("rl_zoo3.plots").plot_train()


def _window_flag(arguments: Sequence[str]) -> list[str]:
    """Return the flag ``-w`` for ``plot-train`` if a run has fewer episodes than rl-zoo averages over.

    :param arguments: the flags, defaults first
    """
    parser = argparse.ArgumentParser(add_help=False)
    for flags in (("-a", "--algo"), ("-f", "--exp-folder"), ("-w", "--episode-window")):
        parser.add_argument(*flags)
    parser.add_argument("-e", "--env", nargs="+")
    try:
        settings = parser.parse_known_args(arguments)[0]
    except SystemExit:  # rl-zoo's own parser reports the error
        return []
    if settings.episode_window is not None:
        return []
    folder = Path(settings.exp_folder, settings.algo)
    runs = [run for run in folder.glob("*") if any(env in run.name for env in settings.env)]
    n_episodes = [n for n in map(_count_episodes, runs) if n]
    if not n_episodes or min(n_episodes) >= EPISODE_WINDOW:
        return []
    window = max(1, min(n_episodes) // 5)
    print(
        f"The shortest run has {min(n_episodes)} episodes, so each point averages {window} episodes; -w sets "
        "another number"
    )
    return ["-w", str(window)]


def _count_episodes(run: Path) -> int:
    """Return the number of episodes of a run, from its monitor files."""
    n_episodes = 0
    for path in run.glob("*.monitor.csv"):
        with open(path, encoding="utf-8", errors="replace") as file:
            n_episodes += max(sum(1 for line in file if line.strip()) - 2, 0)
    return n_episodes


def _all_plots() -> None:
    """Run rl-zoo's ``all_plots``, which plots the evaluations of several algorithms and environments."""
    with figures_kept("all-plots"):
        _load_alone("rl_zoo3", "plots/all_plots.py").all_plots()


def _load_alone(package: str, file: str) -> ModuleType:
    """Import one file of a package without importing the package, which is slow."""
    found = find_spec(package)  # does not import a top-level package
    assert found is not None
    assert found.submodule_search_locations
    spec = spec_from_file_location(Path(file).stem, Path(found.submodule_search_locations[0], file))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _plot_from_file() -> None:
    """Plot the file that ``all-plots -o`` has written."""
    load = pickle.load

    def load_results(file: Any, *args: Any, **kwargs: Any) -> Any:
        return _with_axis_of_runs(load(file, *args, **kwargs))

    with figures_kept("plot-from-file"), replaced(pickle, "load", load_results):
        import_module("rl_zoo3.plots").plot_from_file()


def _with_axis_of_runs(results: Any) -> Any:
    """Restore the axis of runs in the results; all-plots (rl_zoo3 2.9) drops this axis if there is a single run."""
    if not isinstance(results, dict) or "results_table" not in results:
        return results
    for env, by_key in results.items():
        if env == "results_table":
            continue
        for entry in by_key.values():
            if np.ndim(entry["last_evals"]) == 0:
                entry["last_evals"] = np.atleast_1d(entry["last_evals"])
            # (evaluation,) becomes (evaluation, run)
            if np.ndim(entry.get("mean_per_eval", np.zeros((1, 1)))) == 1:
                entry["mean_per_eval"] = np.asarray(entry["mean_per_eval"])[:, None]
    return results


@contextmanager
def figures_kept(command: str) -> Iterator[None]:
    """Save figures as ``COMMAND-1.png`` and so on if there is no display, because rl-zoo would show nothing.

    :param command: name of the subcommand of ``visual-td3``
    """
    from matplotlib import pyplot as plt

    from sb3_visual_td3.runs.durable_files import atomic_write

    # rl-zoo calls plt.show() once, at the end of each of its plot commands.
    show = plt.show
    has_window = plt.get_backend().lower() not in _BACKENDS_WITHOUT_WINDOW

    def show_or_save(*args: Any, **kwargs: Any) -> None:
        # rl-zoo makes a figure for each environment, even without results.
        for number in plt.get_fignums():
            if not any(axes.has_data() for axes in plt.figure(number).axes):
                plt.close(number)
        if not plt.get_fignums():
            raise UsageError(
                "nothing to plot: no run with enough episodes or evaluations was found for the flags -a, -e and -f "
                "(and -w). Check them, or train longer"
            )
        if has_window:
            show(*args, **kwargs)
            return
        for number in plt.get_fignums():
            path = Path(f"{command}-{number}.png").resolve()
            with atomic_write(path) as temporary:
                plt.figure(number).savefig(temporary, format="png")
            print(f"No display: the figure is in {path}")

    plt.show = show_or_save
    try:
        yield
    finally:
        plt.show = show
        close_figures()


def close_figures() -> None:
    """Close all figures of matplotlib."""
    from matplotlib import pyplot as plt

    plt.close("all")


ZOO_COMMANDS: dict[str, ZooCommand] = {
    "enjoy": ZooCommand(
        "show a trained agent, and print its return", TRAINING_GROUP, _enjoy, LAST_TRAINING, makes_environments=True
    ),
    "record-video": ZooCommand(
        "film a trained agent (extra: video)",
        TRAINING_GROUP,
        _record_video,
        LAST_TRAINING,
        extra="video",
        makes_environments=True,
    ),
    "record-training": ZooCommand(
        "film the checkpoints of a training run (extra: video)",
        TRAINING_GROUP,
        _record_training,
        LAST_TRAINING,
        extra="video",
        makes_environments=True,
    ),
    "benchmark": ZooCommand(
        "tabulate the returns of a folder's agents (extra: plots)",
        TRAINING_GROUP,
        _benchmark,
        ("--log-dir", "logs"),
        extra="plots",
        makes_environments=True,
    ),
    "plot-train": ZooCommand(
        "plot the episodes of training, one curve for each run",
        PLOTS_GROUP,
        _plot_train,
        _PLOT_DEFAULTS,
        extra="plots",
        loads_models=False,
    ),
    "all-plots": ZooCommand(
        "plot evaluations, one curve for each algorithm and folder",
        PLOTS_GROUP,
        _all_plots,
        _PLOT_DEFAULTS,
        extra="plots",
        loads_models=False,
    ),
    "plot-from-file": ZooCommand(
        "compare results that all-plots has written",
        PLOTS_GROUP,
        _plot_from_file,
        extra="plots",
        loads_models=False,
    ),
    "push-to-hub": ZooCommand(
        "publish a trained agent on the Hugging Face hub",
        HUB_GROUP,
        _push_to_hub,
        LAST_TRAINING,
        makes_environments=True,
    ),
    "load-from-hub": ZooCommand("download a published agent", HUB_GROUP, _load_from_hub, LAST_TRAINING),
}
"""rl-zoo's commands by the name of the subcommand, in the order of ``visual-td3 --help``."""
