"""Cache lane graphs on disk, so that CARLA's client reads a map only once.

The folder is ``$VISUAL_TD3_CACHE``, or ``visual_td3`` in the user's cache folder. This folder with the lane
graphs may be removed at any time. ``VISUAL_TD3_CACHE=off`` switches the cache off.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np

from sb3_visual_td3.envs.road.lane_graph import LaneGraph, graph_from_arrays

CACHE_VARIABLE = "VISUAL_TD3_CACHE"
"""Environment variable with the folder of the cache."""
NO_CACHE = "off"
GRAPH_FORMAT = 5
"""Version of the file format and of the checks of OpenDRIVE files. It is part of a file's name: files of another
version are ignored. A cached graph is not checked again, so raise the number if the checks refuse more files."""
_LOG = logging.getLogger("sb3_visual_td3")


def cache_folder() -> Path | None:
    """Return the folder in which lane graphs are stored; None if the cache is off, or the user has no home folder."""
    chosen = os.environ.get(CACHE_VARIABLE, "")
    if chosen == NO_CACHE:
        return None
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visual_td3"
    except RuntimeError as error:  # in a container, the user may have no home folder
        _LOG.warning("lane graphs are not cached (%s); set %s to a writable folder", error, CACHE_VARIABLE)
        return None


def cached_path(text: str) -> Path | None:
    """Return the path at which the cache stores the lane graph of a map; None if the cache is off.

    :param text: the OpenDRIVE document
    :return: a path that depends on every byte of the document, and on the format of the graph
    """
    folder = cache_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    return folder / f"lanes-{digest}-{GRAPH_FORMAT}.npz"


def load_graph(text: str) -> LaneGraph | None:
    """Return the lane graph of a map from the cache on disk; None if it is not stored, or the file is damaged.

    :param text: the OpenDRIVE document
    """
    path = cached_path(text)
    if path is None or not path.is_file():
        return None
    try:
        # Pickles are not loaded, because they could run code from a file in the cache folder.
        with np.load(path, allow_pickle=False) as arrays:
            return graph_from_arrays({name: arrays[name] for name in arrays.files})
    except Exception as error:  # zipfile, zlib and NumPy raise many types of exceptions, depending on the damage
        _LOG.warning("cached map %s is damaged (%s); reading the map again", path, error)
        return None


def store_graph(text: str, graph: LaneGraph) -> None:
    """Store the lane graph of a map in the cache on disk; if this fails, only log a warning.

    :param text: the OpenDRIVE document
    :param graph: the graph
    """
    path = cached_path(text)
    if path is None:
        return
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file is written under another name and then renamed, so that another process never reads an incomplete
        # file.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            np.savez_compressed(file, **graph.to_arrays())  # type: ignore[arg-type]  # names are ours
        temporary.replace(path)
    except OSError as error:
        _LOG.warning(
            "%s cannot be written (%s), so the map is read again next time; set %s to a writable folder",
            path,
            error,
            CACHE_VARIABLE,
        )
        if temporary is not None:
            temporary.unlink(missing_ok=True)
