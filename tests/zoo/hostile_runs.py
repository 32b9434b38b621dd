"""Create runs whose snapshots an attacker has changed."""

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import yaml

from sb3_visual_td3.cli import main
from sb3_visual_td3.runs.snapshot import read_record, rewrite_record


class Touch:
    """Create the file ``path`` when an object of this class is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def touching(path):
    """Return a pickle that creates the file ``path`` when it is loaded."""
    return pickle.dumps(Touch(path))


def rewritten(run_dir, folder, change):
    """Copy a run, apply ``change`` to the state of each snapshot, and make the digests valid again."""
    copy = Path(shutil.copytree(run_dir, folder / run_dir.name, symlinks=True))
    for snapshot in (copy / "snapshots").glob("step_*"):
        record = read_record(snapshot)
        state = dict(record.state)
        change(state)
        rewrite_record(snapshot, replace(record, state=state))
    return copy


def contents(folder):
    """Return the content of each file by its path in the folder; for a link, return its target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


RUN = {
    "LiteDriving-v0": {
        "policy": "CnnPolicy",
        "n_timesteps": 30,
        "buffer_size": 40,
        "learning_starts": 15,
        "batch_size": 4,
        "normalize": {"norm_obs": False, "norm_reward": True},
        "policy_kwargs": "dict(net_arch=[8], trunk_dim=4, activation_fn=nn.Tanh, optimizer_class=th.optim.AdamW)",
        "callback": [
            "sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback",
            {"sb3_visual_td3.callbacks.gradient_norm.GradientNormCallback": {"log_freq": 5, "sample_freq": 1}},
            {"sb3_visual_td3.callbacks.snapshot.SnapshotCallback": {"save_freq": 10, "keep": 3}},
        ],
    }
}


def killed_run(folder, *extra):
    """Return the RUN_DIR of a short run that looks as if it was killed after its last snapshot."""
    (folder / "run.yml").write_text(yaml.safe_dump(RUN))
    arguments = ["train", "--env", "LiteDriving-v0", "-conf", str(folder / "run.yml"), "-f", str(folder / "logs")]
    arguments += ["--seed", "1", "--verbose", "0", "--eval-freq", "-1"]
    arguments += ["--env-kwargs", "image_size:48", "n_cars:1", "maps:'train'"]
    assert main([*arguments, *extra]) == 0
    run_dir = folder / "logs" / "visual_td3" / "LiteDriving-v0_1"
    (run_dir / "LiteDriving-v0.zip").unlink()
    shutil.rmtree(run_dir / "snapshots" / "step_000000030")
    manifest = (run_dir / "run.json").read_text()
    (run_dir / "run.json").write_text("\n".join(line for line in manifest.splitlines() if '"finished"' not in line))
    assert sorted(os.listdir(run_dir / "snapshots")) == ["lock", "step_000000010", "step_000000020"], "snapshots"
    return run_dir
