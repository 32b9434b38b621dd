"""What rl-zoo's plotting commands have in common: packages, and where figures go on a machine without a display."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from sb3_visual_td3.runs.durable_files import replacing
from sb3_visual_td3.zoo.mistakes import need_extra
from sb3_visual_td3.zoo.script import run_script

_WITHOUT_WINDOW = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}


def run_plot(command: str, arguments: Sequence[str] | None, function: str, defaults: Sequence[str] = ()) -> int:
    """Run one of rl_zoo3's plotting commands.

    :param command: our subcommand
    :param arguments: rl-zoo's flags; those of the process by default
    :param function: of ``rl_zoo3.plots``
    :param defaults: flags that stand before the others
    :return: the exit code
    """

    def plot() -> None:
        need_extra("plots")
        with figures_kept(command):
            play: Callable[[], None] = getattr(import_module("rl_zoo3.plots"), function)
            play()

    return run_script(command, arguments, plot, defaults)


@contextmanager
def figures_kept(command: str) -> Iterator[None]:
    """Where there is no display, write figures to ``COMMAND-1.png`` and so on: rl-zoo would show nothing at all."""
    from matplotlib import pyplot as plt

    def keep() -> None:
        if not any(axes.has_data() for number in plt.get_fignums() for axes in plt.figure(number).axes):
            raise ValueError(
                "nothing to plot: no run with enough episodes or evaluations was found for -a, -e and -f (and -w)"
            )
        for number in plt.get_fignums():
            path = Path(f"{command}-{number}.png").resolve()
            with replacing(path) as begun:
                plt.figure(number).savefig(begun)
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
    """Let go of all figures."""
    from matplotlib import pyplot as plt

    plt.close("all")
