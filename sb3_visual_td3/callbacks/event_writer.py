"""Writes named scalars into a run's event files, at a step of the writer's choosing."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat

from sb3_visual_td3.callbacks.dashboard import custom_scalars
from sb3_visual_td3.callbacks.saving import patient_event_files
from sb3_visual_td3.common.tags import is_known

_have_the_dashboard: weakref.WeakSet[Any] = weakref.WeakSet()


class EventWriter:
    """Writes beside Stable-Baselines3's logger, into the same event files.

    The logger dumps everything at once, every few episodes; a callback has a rhythm of its own. The first of our
    callbacks that starts with an event file writes the dashboard into it.

    :param logger: the model's logger; without a TensorBoard output nothing is written
    """

    def __init__(self, logger: Logger) -> None:
        patient_event_files(logger)
        self._writers = [out.writer for out in logger.output_formats if isinstance(out, TensorBoardOutputFormat)]
        for writer in self._writers:
            if writer not in _have_the_dashboard:
                _have_the_dashboard.add(writer)
                writer.add_custom_scalars(custom_scalars())

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Add one point to each of the names.

        :param scalars: by name; every name stands in ``common/tags.py``
        :param step: environment step, or episode where the table says so
        """
        unknown = sorted(name for name in scalars if not is_known(name))
        assert not unknown, f"not in common/tags.py: {unknown}"
        for writer in self._writers:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
            writer.flush()


def run_directory(logger: Logger) -> Path | None:
    """Find the folder of the run that a logger belongs to.

    :param logger: the model's logger
    :return: the folder that holds ``tb/``, else the event files' own; None where there are no event files
    """
    # Without a log folder Stable-Baselines3 makes up a temporary one, in which nobody would look.
    if logger.dir is None or not any(isinstance(out, TensorBoardOutputFormat) for out in logger.output_formats):
        return None
    folder = Path(logger.dir)
    holders = [parent.parent for parent in (folder, *folder.parents) if parent.name == "tb"]
    return holders[0] if holders else folder
