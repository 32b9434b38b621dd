"""Runs whose snapshot has been rewritten by someone who wants more than to have it resumed."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

from sb3_visual_td3.runs.snapshot import read_record, rewrite_record


class Touch:
    """Unpickling it writes the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def touching(path):
    """A pickle that writes the file."""
    return pickle.dumps(Touch(path))


def rewritten(run_dir, folder, change):
    """A copy of the run whose snapshots hold another state, with right digests."""
    copy = Path(shutil.copytree(run_dir, folder / run_dir.name, symlinks=True))
    for snapshot in (copy / "snapshots").glob("step_*"):
        record = read_record(snapshot)
        state = dict(record.state)
        change(state)
        rewrite_record(snapshot, replace(record, state=state))
    return copy


def contents(folder):
    """What lies in a folder: name to bytes, or to where a link points."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_bytes()
    return found
