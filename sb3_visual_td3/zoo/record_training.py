"""``visual-td3 record-training``: rl-zoo's film of how an agent learned, one checkpoint after another."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

from sb3_visual_td3.zoo.enjoy import WHERE_WE_TRAIN
from sb3_visual_td3.zoo.mistakes import need_extra
from sb3_visual_td3.zoo.plugin_scripts import run_record_training
from sb3_visual_td3.zoo.script import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    """Film a run as ``python -m rl_zoo3.record_training`` does: its checkpoints, its last and its best model.

    The film is RUN_DIR/videos/training.mp4 by default; what is in its folder is deleted first.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return run_script("record-training", arguments, _record, WHERE_WE_TRAIN, makes_environments=True)


def _record() -> None:
    need_extra("video")
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
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ffmpeg").symlink_to(import_module("imageio_ffmpeg").get_ffmpeg_exe())
        with patch.dict(os.environ, PATH=f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"):
            yield
