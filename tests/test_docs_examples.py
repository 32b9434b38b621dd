"""The examples in README and documentation run, with the results that the pages state."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env

from sb3_visual_td3.cli import COMMANDS, main
from sb3_visual_td3.training_state.env_state import env_state

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language, in order."""
    return [text for name, text in _BLOCK.findall((ROOT / page).read_text()) if name == language]


def command_on(page: str, name: str) -> list[str]:
    """Return the arguments of the first command ``visual-td3 NAME`` on a page, beginning with the name."""
    lines = "".join(blocks(page, "console")).splitlines()
    return next(shlex.split(line)[2:] for line in lines if line.startswith(f"$ visual-td3 {name} "))


def shortened(code: str, n_steps: int) -> str:
    """Return a training script with ``n_steps`` steps and, where it can be set, small batches."""
    code = re.sub(r"\.learn\(\s*[\d_]+", f".learn({n_steps}", code)
    return code.replace("buffer_size=", "batch_size=8, buffer_size=")


@pytest.fixture
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write the files of the page ``own_environment.md`` to a folder, and make it the current folder.

    :return: the folder, which holds ``mycam.py`` and ``mine.yml``
    """
    (tmp_path / "mycam.py").write_text(blocks("docs/own_environment.md", "python")[0])
    (tmp_path / "mine.yml").write_text(blocks("docs/own_environment.md", "yaml")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    gym.registry.pop("MyCamera-v0", None)
    sys.modules.pop("mycam", None)


@pytest.mark.parametrize("number", [0, 1], ids=["three lines", "with callbacks"])
def test_a_script_of_the_quickstart_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(shortened(blocks("docs/quickstart.md", "python")[number], 120), names)
    assert names["model"].num_timesteps == 120
    if number == 1:
        assert main(["report", "runs/a"]) == 3  # too short for a verdict
        assert json.loads((tmp_path / "runs" / "a" / "report.json").read_text())["verdict"] == "INSUFFICIENT"


def test_the_readme_script_shows_its_progress_and_prints_its_log_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("README.md", "python")
    assert code == blocks("docs/quickstart.md", "python")[0]
    monkeypatch.chdir(tmp_path)
    exec(shortened(code, 120), {})
    out = capfd.readouterr().out
    assert "120/120" in out
    folder = Path(out.splitlines()[-1])
    assert folder == Path("runs/VisualTD3_1")
    assert list(folder.glob("events.out.tfevents.*"))


def test_the_documented_environment_passes_check_env_of_stable_baselines3(own_environment: Path) -> None:
    importlib.import_module("mycam")
    names: dict[str, Any] = {"gym": gym}
    exec(blocks("docs/own_environment.md", "python")[1], names)
    assert names["check_env"] is check_env


def test_the_documented_environment_continues_exactly_from_its_state(own_environment: Path) -> None:
    importlib.import_module("mycam")
    vec_env = make_vec_env("MyCamera-v0", seed=1)
    vec_env.reset()
    vec_env.step(np.full((1, 1), 0.3, np.float32))
    assert env_state(vec_env)["why_not_exact"] is None  # a snapshot can hold the state
    env: Any = gym.make("MyCamera-v0").unwrapped
    env.reset(seed=1)
    env.step([0.3])
    state = env.get_state()
    expected = [env.step([0.3])[1], env.reset()[0].tolist(), env.step([0.3])[1]]
    resumed: Any = gym.make("MyCamera-v0").unwrapped
    resumed.set_state(state)
    assert [resumed.step([0.3])[1], resumed.reset()[0].tolist(), resumed.step([0.3])[1]] == expected
    assert command_on("docs/own_environment.md", "resume")[2:] == ["--allow", "mycam"]


def test_the_script_for_the_documented_environment_trains_a_run_that_gets_a_report(own_environment: Path) -> None:
    names: dict[str, Any] = {}
    exec(shortened(blocks("docs/own_environment.md", "python")[2], 150), names)
    assert names["model"].num_timesteps == 150
    assert main(["report", "runs/mine"]) == 3


def test_validate_evaluate_and_record_video_run_as_the_page_shows(
    own_environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validate, evaluate, record_video = (
        command_on("docs/own_environment.md", name) for name in ("validate", "evaluate", "record-video")
    )
    assert main([*validate, "-n", "60"]) == 3  # too short for a verdict
    run_dir = own_environment / "logs" / "visual_td3" / "MyCamera-v0_1"
    assert (run_dir / "evaluations.npz").is_file()
    capsys.readouterr()
    assert main([*evaluate, "-n", "3", "--n-envs", "2", "--output", "found.json"]) == 0
    printed = capsys.readouterr().out
    assert "random" in printed
    assert "std of the return" in printed
    found = json.loads((own_environment / "found.json").read_text())
    assert list(found["results"]) == ["policy", "random"]
    for player in found["results"]:
        episodes = found["episodes"][player]["all"]
        assert [episode["length"] for episode in episodes] == [100.0] * 3
        interval = found["results"][player]["all"]["return"]
        assert interval["mean"] == pytest.approx(sum(episode["reward"] for episode in episodes) / 3)
        assert interval["low"] <= interval["mean"] <= interval["high"]
    pytest.importorskip("moviepy")
    assert main([*record_video, "-n", "5"]) == 0
    assert list((run_dir / "videos").glob("*.mp4"))


def test_the_wrapper_of_the_own_reward_page_subtracts_its_cost_and_logs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper, use = blocks("docs/own_reward.md", "python")
    (tmp_path / "my_wrappers.py").write_text(wrapper)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {}
    exec(use, names)
    sys.modules.pop("my_wrappers")
    plain, wrapped = gym.make("LiteDriving-v0"), names["env"]
    for env in (plain, wrapped):
        env.reset(seed=3)
    action = wrapped.action_space.high
    _, reward, *_, info = wrapped.step(action)
    assert reward == pytest.approx(plain.step(action)[1] - 0.1)
    assert info["reward_terms"]["smooth_steering"] == pytest.approx(-0.1)
    assert sum(info["reward_terms"].values()) == pytest.approx(reward)


def test_every_command_on_a_page_exists() -> None:
    command = re.compile(r"(?:^\$ |`)(?:OMP_NUM_THREADS=1 )?visual-td3 ([a-z][a-z-]*)", re.MULTILINE)
    named = {(page.name, name) for page in PAGES for name in command.findall(page.read_text())}
    assert {(page, name) for page, name in named if name not in COMMANDS} == set()
    assert {"train", "report", "resume", "evaluate", "validate"} <= {name for _, name in named}
