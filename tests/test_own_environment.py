"""A run on a pixel environment of the user gets GO if its agent has learned, and NO-GO if the reward is only noise.

The environment, the hyperparameter files and the scripts are those of the page ``docs/own_environment.md``. The
environment is a file in the current folder.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs_examples import blocks

PAGE = "docs/own_environment.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the files of the page ``docs/own_environment.md``.

    The subfolder ``noise`` has these files, too, but there the reward of the environment is only noise.
    """
    environment, _, script, sac_script = blocks(PAGE, "python")
    block, sac_block = blocks(PAGE, "yaml")
    noise = environment.replace("1.0 - abs(self.position)", "self.np_random.normal(0.5, 0.3)")
    assert noise != environment
    files = {
        "mycam.py": environment,
        "mine.yml": block,
        "mine_sac.yml": sac_block,
        "visual_td3.py": script,
        "sac.py": sac_script,
        "noise/mycam.py": noise,
    }
    (tmp_path / "noise").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    # Noise is known for noise from 10,000 steps on; with few updates, because they cannot change the return.
    few_updates = {
        "n_timesteps: 3000": "n_timesteps: 10500\n  train_freq: 50\n  gradient_steps: 1",
        "batch_size: 64": "batch_size: 8",
    }
    for name in ("mine.yml", "mine_sac.yml"):
        (tmp_path / "noise" / name).write_text(replaced(files[name], few_updates))
    longer = {"3_000": "10_500", "eval_freq=500": "eval_freq=1_000"}
    changes = {**longer, "learning_rate=": "train_freq=50, batch_size=8, learning_rate="}
    (tmp_path / "noise" / "visual_td3.py").write_text(replaced(script, changes))
    changes = {**longer, '"batch_size": 64': '"train_freq": 50, "batch_size": 8'}
    (tmp_path / "noise" / "sac.py").write_text(replaced(sac_script, changes))
    return tmp_path


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def run(folder: Path, *command: str) -> int:
    """Run a command as a user would, in a process of its own."""
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False, timeout=1_200
    )
    assert done.returncode in {0, 1, 3}, done.stdout[-2_000:] + done.stderr[-3_000:]
    return done.returncode


def validate(folder: Path, algo: str, *flags: str) -> tuple[int, Path]:
    conf_file = "mine.yml" if algo == "visual_td3" else "mine_sac.yml"
    environment = ["--env", "MyCamera-v0", "--gym-packages", "mycam", "--conf-file", conf_file]
    code = run(folder, "-m", "sb3_visual_td3", "validate", "--algo", algo, *environment, *flags)
    return code, folder / "logs" / algo / "MyCamera-v0_1"


def by_script(folder: Path, script: str) -> tuple[int, Path]:
    run(folder, script)
    (run_dir,) = (folder / "runs").iterdir()
    return run(folder, "-m", "sb3_visual_td3", "report", str(run_dir), "--require-evidence", "full"), run_dir


def report_of(run_dir: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run_dir / "report.json").read_text())
    return found


@pytest.mark.parametrize("algo", ["visual_td3", pytest.param("sac", marks=pytest.mark.slow)])
def test_a_run_that_is_too_short_is_insufficient_and_names_the_steps_needed(folder: Path, algo: str) -> None:
    conf_file = folder / ("mine.yml" if algo == "visual_td3" else "mine_sac.yml")
    conf_file.write_text(re.sub(r"learning_starts: \d+", "learning_starts: 20", conf_file.read_text()))
    code, run_dir = validate(folder, algo, "-n", "40")
    assert code == 3
    report = report_of(run_dir)
    assert "2,000 environment steps" in str(report["next_step"])
    metrics = report["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["train/critic_loss"]["n"] >= 1 or metrics["agent/total_iterations"]["last"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("algo", "way"), [("visual_td3", "script"), ("sac", "zoo")])
def test_a_reward_that_is_noise_is_no_go(folder: Path, algo: str, way: str) -> None:
    folder = folder / "noise"
    code, run_dir = validate(folder, algo) if way == "zoo" else by_script(folder, f"{algo}.py")
    report = report_of(run_dir)
    assert (code, report["verdict"], report["stable"], report["learning"]) == (1, "NO-GO", "yes", "no")
    diagnoses = report["diagnoses"]
    assert isinstance(diagnoses, list)
    assert "never_learned" in {diagnosis["id"] for diagnosis in diagnoses}


@pytest.mark.slow
@pytest.mark.minutes(1)
@pytest.mark.parametrize(("algo", "way"), [("visual_td3", "zoo"), ("sac", "script")])
def test_a_run_that_has_learned_is_go_with_full_evidence(folder: Path, algo: str, way: str) -> None:
    code, run_dir = validate(folder, algo) if way == "zoo" else by_script(folder, f"{algo}.py")
    report = report_of(run_dir)
    assert (code, report["verdict"], report["evidence"]) == (0, "GO", "full")
    step = report["next_step"]
    assert isinstance(step, dict)
    assert "Start the long run" in step["text"]
    assert "buffer_size" in str(step)
