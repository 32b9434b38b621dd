"""Collect the ``--help`` of every subcommand for the page about commands.

The module runs as a separate process that prints all help texts as JSON, because importing rl-zoo's commands changes
other libraries. If a command needs an extra that is not installed, its text says so.
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
    """Return what the command line prints with these arguments, or why it cannot run."""
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
    """Return the help text of each subcommand by name; the name ``""`` stands for ``visual-td3`` itself."""
    code = [sys.executable, __file__]
    environment = {**os.environ, "COLUMNS": WIDTH, "NO_COLOR": "1"}
    done = subprocess.run(code, env=environment, capture_output=True, text=True, check=True)
    texts: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return texts


def command_sections() -> str:
    """Return a Markdown section with the help text of each subcommand."""
    from sb3_visual_td3.cli import COMMANDS

    texts = all_help()
    parts = [f"```text\n{texts['']}\n```"]
    for name, command in COMMANDS.items():
        sentence = f"{command.help[:1].upper()}{command.help[1:]}."
        parts.append(f"## {name}\n\n{sentence}\n\n```text\n{texts[name]}\n```")
    return "\n\n".join(parts)


if __name__ == "__main__":
    from sb3_visual_td3.cli import COMMANDS as _COMMANDS

    _texts = {name: help_of([name, "--help"] if name else ["--help"]) for name in ("", *_COMMANDS)}
    print("\n" + json.dumps(_texts))
