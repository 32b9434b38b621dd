"""rl-zoo's commands on CarlaDriving-v0: one server for training and evaluation."""

import json

import numpy as np
import pytest

from sb3_visual_td3.cli import main

pytest.importorskip("carla", reason="carla's client is not installed")
pytestmark = pytest.mark.carla

SMALL = ["-params", "buffer_size:500", "learning_starts:100", "batch_size:8"]


@pytest.fixture
def emulator():
    from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess

    with EmulatorProcess("train_0") as process:
        yield process


def test_training_evaluation_and_video_recording_work_on_one_carla_server(emulator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kwargs = ["--env-kwargs", f"port:{emulator.port}", "maps:['train_0']", "--eval-env-kwargs", "maps:['held_out_0']"]
    assert main(["train", "--env", "CarlaDriving-v0", "-n", "120", "--eval-freq", "60", *kwargs, *SMALL]) == 0
    run_dir = tmp_path / "logs" / "visual_td3" / "CarlaDriving-v0_1"
    evaluations = np.load(run_dir / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [60, 120]
    assert evaluations["results"].shape == (2, 10)
    assert json.loads((run_dir / "run.json").read_text())["env_id"] == "CarlaDriving-v0"
    assert emulator.control.status()["n_actors"] == 0
    output = tmp_path / "drives.json"
    assert main(["evaluate", str(run_dir), "-n", "1", "--maps", "held_out_0", "--output", str(output)]) == 0
    assert set(json.loads(output.read_text())["results"]) == {"policy", "random", "full brake"}
    assert main(["record-video", "--env", "CarlaDriving-v0", "-f", "logs", "-n", "20"]) == 0
    (video,) = (run_dir / "videos").glob("*.mp4")
    assert video.stat().st_size > 1_000


def test_a_missing_carla_server_gives_a_one_line_error_and_leaves_no_run_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--env", "CarlaDriving-v0", "-n", "10", "--env-kwargs", "port:2999", *SMALL]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("visual-td3 train")]
    assert "nothing listens on 127.0.0.1:2999" in line
    assert "visual-td3 carla-emulator --port 2999" in line
    assert not list(tmp_path.glob("logs/*/*_1"))


def test_the_documented_command_trains_in_one_town_and_is_evaluated_in_another(emulator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--env-kwargs", f"port:{emulator.port}", "town:train_0", "--eval-env-kwargs", "town:'held_out_0'"]
    flags += ["--eval-freq", "30", "--eval-episodes", "1", "--verbose", "0"]
    assert main(["train", "--env", "CarlaDriving-v0", "-n", "40", *flags, *SMALL]) == 0
    run_dir = tmp_path / "logs" / "visual_td3" / "CarlaDriving-v0_1"
    assert np.load(run_dir / "evaluations.npz")["timesteps"].tolist() == [30, 40]
    assert main(["evaluate", str(run_dir), "-n", "1", "--maps", "held_out_0"]) == 0
