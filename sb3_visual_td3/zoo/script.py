"""Runs one of rl_zoo3's commands as its own command line would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from sb3_visual_td3.zoo.environments import environments_found
from sb3_visual_td3.zoo.mistakes import complain, mistakes, usage_errors
from sb3_visual_td3.zoo.plugin import register


@contextmanager
def command_line(command: str, arguments: Sequence[str]) -> Iterator[None]:
    """Have rl_zoo3 read these arguments instead of the process's.

    :param command: our subcommand, which ``--help`` shows
    :param arguments: its flags
    """
    own_argv, sys.argv = sys.argv, [f"visual-td3 {command}", *arguments]
    try:
        with usage_errors():
            yield
    finally:
        sys.argv = own_argv


def run_script(
    command: str,
    arguments: Sequence[str] | None,
    play: Callable[[], object],
    defaults: Sequence[str] = (),
    *,
    makes_environments: bool = False,
) -> int:
    """Run a command of rl_zoo3 with our algorithm in it.

    :param command: our subcommand
    :param arguments: rl-zoo's flags; those of the process by default
    :param play: what reads the flags and does the work
    :param defaults: flags that stand before the others, so that the others win
    :param makes_environments: whether it takes ``--gym-packages``, and looks for ``--env`` first
    :return: the exit code
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        register()
        looked_for = environments_found() if makes_environments else nullcontext()
        with looked_for, command_line(command, [*defaults, *given]):
            play()
    except mistakes() as error:
        return complain(command, error)
    return 0
