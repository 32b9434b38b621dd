"""rl-zoo's commands with our algorithm in them, in one table: what each runs, and the extra that it needs.

Nothing heavy is imported before a command runs, so that ``visual-td3 --help`` is quick. To add a command, add an entry
to :data:`ZOO_COMMANDS`.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ALGO = "visual_td3"
_PLOT_DEFAULTS = ("-a", ALGO, "-e", "LiteDriving-v0", "-f", "logs")
WHERE_WE_TRAIN = ("--algo", ALGO, "--env", "LiteDriving-v0", "-f", "logs")
"""What rl-zoo's commands that load a model look for unless told otherwise: what ``visual-td3 train`` leaves."""
WINDOW = 100
"""Episodes that rl-zoo averages in plot-train; it draws no curve at all of a run that has fewer."""
_WITHOUT_WINDOW = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
"""Backends of matplotlib that show nothing on a screen."""


class ZooCommand(NamedTuple):
    """One of rl-zoo's commands.

    :ivar help: one line, which ``visual-td3 --help`` shows
    :ivar play: reads rl-zoo's flags from ``sys.argv`` and does the work
    :ivar defaults: flags that stand before the user's, so that the user's win
    :ivar extra: the extra of this package whose libraries it imports; None where it needs none
    :ivar makes_environments: whether it takes ``--gym-packages``, and looks for ``--env`` first
    :ivar loads_models: whether it must know our algorithm; a command that reads logs alone starts sooner without it
    """

    help: str
    play: Callable[[], object]
    defaults: Sequence[str] = ()
    extra: str | None = None
    makes_environments: bool = False
    loads_models: bool = True


def run_zoo_command(name: str, arguments: Sequence[str] | None = None) -> int:
    """Run one of rl-zoo's commands as its own command line would.

    :param name: a key of :data:`ZOO_COMMANDS`
    :param arguments: rl-zoo's flags; those of the process by default
    :return: the exit code
    """
    from sb3_visual_td3.zoo.flags import command_line, environments_found
    from sb3_visual_td3.zoo.mistakes import answer, need_extra

    command = ZOO_COMMANDS[name]
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if command.loads_models:
            from sb3_visual_td3.zoo import register

            register()
        defaults = [*command.defaults, *(_window([*command.defaults, *given]) if name == "plot-train" else ())]
        looked_for = environments_found() if command.makes_environments else nullcontext()
        with looked_for, command_line(name, [*defaults, *given]):
            if command.extra is not None:
                need_extra(command.extra)
            command.play()
    except Exception as error:
        return answer(name, error)
    return 0


def _enjoy() -> None:
    import_module("rl_zoo3.enjoy").enjoy()


def _record_video() -> None:
    """Film an agent; the mp4 goes to RUN_DIR/videos by default."""
    from sb3_visual_td3.zoo.plugin_scripts import run_watching

    run_watching("rl_zoo3.record_video", ALGO)


def _record_training() -> None:
    """Film a run: its checkpoints, its last and its best model.

    The film is RUN_DIR/videos/training.mp4 by default; what is in its folder is deleted first.
    """
    from sb3_visual_td3.zoo.plugin_scripts import run_record_training

    # ffmpeg looks for the parts of the film beside the list of them, not in the current folder.
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-o", "--output-folder")
    if folder := parser.parse_known_args(sys.argv[1:])[0].output_folder:
        sys.argv += ["-o", os.path.abspath(folder)]
    with ffmpeg_on_path():
        run_record_training()


@contextmanager
def ffmpeg_on_path() -> Iterator[None]:
    """Have the shell find ``ffmpeg``: that of the system, or else the one that comes with moviepy."""
    if shutil.which("ffmpeg"):
        yield
        return
    before = os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ffmpeg").symlink_to(import_module("imageio_ffmpeg").get_ffmpeg_exe())
        os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before


def _benchmark() -> None:
    """Evaluate the agents of a folder, and without ``--no-hub`` all of rl-zoo's, which are fetched."""
    from sb3_visual_td3.zoo.plugin_scripts import run_benchmark

    run_benchmark()


def _push_to_hub() -> None:
    from sb3_visual_td3.zoo.mistakes import need_extra
    from sb3_visual_td3.zoo.plugin_scripts import run_push_to_hub

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


def _window(arguments: Sequence[str]) -> list[str]:
    """Choose how many episodes plot-train averages.

    :param arguments: the flags, defaults in front
    :return: a flag with a smaller window where a run has fewer episodes than rl-zoo's, and none was asked for
    """
    parser = argparse.ArgumentParser(add_help=False)
    for flags in (("-a", "--algo"), ("-f", "--exp-folder"), ("-w", "--episode-window")):
        parser.add_argument(*flags)
    parser.add_argument("-e", "--env", nargs="+")
    try:
        settings = parser.parse_known_args(arguments)[0]
    except SystemExit:  # rl-zoo's own parser says what is wrong
        return []
    if settings.episode_window is not None:
        return []
    folder = Path(settings.exp_folder, settings.algo)
    runs = [run for run in folder.glob("*") if any(env in run.name for env in settings.env)]
    n_episodes = [n for n in map(_count_episodes, runs) if n]
    if not n_episodes or min(n_episodes) >= WINDOW:
        return []
    window = max(1, min(n_episodes) // 5)
    print(f"The shortest run has {min(n_episodes)} episodes: they are averaged over {window} of them, -w sets how many")
    return ["-w", str(window)]


def _count_episodes(run: Path) -> int:
    """Return the number of episodes of a run, without the two lines of heading in each of its files."""
    n_episodes = 0
    for path in run.glob("*.monitor.csv"):
        with open(path, encoding="utf-8", errors="replace") as file:
            n_episodes += max(sum(1 for line in file if line.strip()) - 2, 0)
    return n_episodes


def _all_plots() -> None:
    """Plot evaluations; ``-o`` writes what ``plot-from-file`` reads."""
    with figures_kept("all-plots"):
        import_module("rl_zoo3.plots").all_plots()


def _plot_from_file() -> None:
    """Plot what ``all-plots -o`` has written, that of a single run too."""
    from sb3_visual_td3.zoo.flags import replaced

    load = pickle.load

    def load_results(file: Any, *args: Any, **kwargs: Any) -> Any:
        return _with_axis_of_runs(load(file, *args, **kwargs))

    with figures_kept("plot-from-file"), replaced(pickle, "load", load_results):
        import_module("rl_zoo3.plots").plot_from_file()


def _with_axis_of_runs(results: Any) -> Any:
    """Give the results of a single run the axis of runs that all-plots (rl_zoo3 2.9) has squeezed away."""
    if not isinstance(results, dict) or "results_table" not in results:
        return results
    for env, by_key in results.items():
        for entry in by_key.values() if env != "results_table" else ():
            if np.ndim(entry["last_evals"]) == 0:
                entry["last_evals"] = np.atleast_1d(entry["last_evals"])
            if np.ndim(entry.get("mean_per_eval", np.zeros((1, 1)))) == 1:
                entry["mean_per_eval"] = np.asarray(entry["mean_per_eval"])[:, None]
    return results


@contextmanager
def figures_kept(command: str) -> Iterator[None]:
    """Where there is no display, write figures to ``COMMAND-1.png`` and so on: rl-zoo would show nothing at all.

    :param command: our subcommand
    """
    from matplotlib import pyplot as plt

    from sb3_visual_td3.common.errors import UsageError
    from sb3_visual_td3.runs.durable_files import atomic_write

    def keep() -> None:
        if not any(axes.has_data() for number in plt.get_fignums() for axes in plt.figure(number).axes):
            raise UsageError(
                "nothing to plot: no run with enough episodes or evaluations was found for -a, -e and -f (and -w)"
            )
        for number in plt.get_fignums():
            path = Path(f"{command}-{number}.png").resolve()
            with atomic_write(path) as begun:
                plt.figure(number).savefig(begun, format="png")
            print(f"No display: the figure is in {path}")

    show = plt.show
    if plt.get_backend().lower() in _WITHOUT_WINDOW:
        plt.show = keep  # type: ignore[assignment]
    try:
        yield
    finally:
        plt.show = show
        close_figures()


def close_figures() -> None:
    """Close all figures."""
    from matplotlib import pyplot as plt

    plt.close("all")


ZOO_COMMANDS: dict[str, ZooCommand] = {
    "enjoy": ZooCommand(
        "show a trained agent: rl-zoo's command, as are all below", _enjoy, WHERE_WE_TRAIN, makes_environments=True
    ),
    "record-video": ZooCommand(
        "film a trained agent: RUN_DIR/videos/*.mp4", _record_video, WHERE_WE_TRAIN, "video", makes_environments=True
    ),
    "record-training": ZooCommand(
        "film how an agent learned, one checkpoint after another",
        _record_training,
        WHERE_WE_TRAIN,
        "video",
        makes_environments=True,
    ),
    "plot-train": ZooCommand(
        "plot the episodes of training, a curve for each run",
        _plot_train,
        _PLOT_DEFAULTS,
        extra="plots",
        loads_models=False,
    ),
    "all-plots": ZooCommand(
        "plot evaluations, a curve for each algorithm and folder",
        _all_plots,
        _PLOT_DEFAULTS,
        extra="plots",
        loads_models=False,
    ),
    "plot-from-file": ZooCommand(
        "compare what all-plots has written, with intervals", _plot_from_file, extra="plots", loads_models=False
    ),
    "benchmark": ZooCommand(
        "a table of what the trained agents of a folder achieve",
        _benchmark,
        ("--log-dir", "logs"),
        "plots",
        makes_environments=True,
    ),
    "push-to-hub": ZooCommand(
        "publish a trained agent on the Hugging Face hub", _push_to_hub, WHERE_WE_TRAIN, makes_environments=True
    ),
    "load-from-hub": ZooCommand("fetch a published agent", _load_from_hub, WHERE_WE_TRAIN),
}
"""By the name of the subcommand, in the order of ``visual-td3 --help``."""
