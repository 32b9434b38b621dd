from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from sb3_visual_td3.report import command

Report = Callable[..., int]


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """Return the command as the command line calls it; it runs in an empty folder and writes to ``out`` there."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, output: object = "out") -> int:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        where = ["--output", str(output)] if output else []
        return command.run(parser.parse_args([*map(str, arguments), *where]))

    return call
