"""What each subcommand's ``--help`` prints.

Run as a program it prints them all as JSON: a process of its own, because rl-zoo's commands change libraries as they
are imported. A command whose extra is not installed says so, and the others are printed nevertheless.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache

WIDTH = "96"


def help_of(arguments: Sequence[str]) -> str:
    """:return: what the command line prints with these arguments, or why it cannot"""
    from sb3_visual_td3.cli import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main(arguments)
        except SystemExit:
            pass
        except ImportError as error:
            return f"Its help needs a package that is not installed here: {error.name}."
    return printed.getvalue().strip()


@cache
def all_help() -> dict[str, str]:
    """:return: by subcommand; the one that is called by no subcommand is called by nothing, ``""``"""
    code = [sys.executable, __file__]
    environment = {**os.environ, "COLUMNS": WIDTH, "NO_COLOR": "1"}
    done = subprocess.run(code, env=environment, capture_output=True, text=True, check=True)
    told: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return told


def command_sections() -> str:
    """:return: a section for each subcommand, with its help"""
    from sb3_visual_td3.cli import COMMANDS

    told = all_help()
    parts = [f"```text\n{told['']}\n```"]
    for name, command in COMMANDS.items():
        sentence = f"{command.help[:1].upper()}{command.help[1:]}."
        parts.append(f"## {name}\n\n{sentence}\n\n```text\n{told[name]}\n```")
    return "\n\n".join(parts)


if __name__ == "__main__":
    from sb3_visual_td3.cli import COMMANDS as _COMMANDS

    _told = {name: help_of([name, "--help"] if name else ["--help"]) for name in ("", *_COMMANDS)}
    print("\n" + json.dumps(_told))
