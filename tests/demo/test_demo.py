"""``visual-td3 demo``: it drives without torch, writes a film, and shows two reports."""

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import cv2
import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from sb3_visual_td3.cli import main
from sb3_visual_td3.common.display import has_display
from sb3_visual_td3.demo.drive import ExportedPolicy

DEMO = Path(str(files("sb3_visual_td3.demo")))


@pytest.fixture(autouse=True)
def in_folder_without_display(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def screen(monkeypatch):
    """SDL's dummy screen."""
    pytest.importorskip("pygame", reason="the extra video has it")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr("sb3_visual_td3.demo.drive.has_display", lambda: True)


def test_without_a_display_the_drive_is_filmed(capsys):
    assert main(["demo", "--seconds", "2"]) == 0
    out = capsys.readouterr().out
    assert "No display: 2 s of driving are filmed." in out
    assert f"The film is in {Path('demo.gif').resolve()}" in out
    with Image.open("demo.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"]) == (10, (400, 300), 200)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"SDL_VIDEODRIVER": "kmsdrm"}, True),
        ({"DISPLAY": ":0", "SDL_VIDEODRIVER": "dummy"}, False),
    ],
)
def test_the_environment_variables_tell_whether_there_is_a_display(variables, expected, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert has_display() is expected


def test_the_demo_needs_neither_torch_nor_a_training(tmp_path):
    hidden = "import sys; sys.modules['torch'] = sys.modules['stable_baselines3'] = None\n"
    code = hidden + "from sb3_visual_td3.cli import main\nraise SystemExit(main(['demo', '--seconds', '1']))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=dict(os.environ))
    assert (tmp_path / "demo.gif").is_file()


def test_the_policy_of_the_package_drives_a_whole_episode_on_a_road_it_has_not_seen():
    policy = ExportedPolicy(DEMO / "policy.onnx")
    env = gym.make("LiteDriving-v0", maps="held_out")
    observation, info = env.reset(seed=3)
    is_over, truncated = False, False
    while not is_over:
        observation, _, terminated, truncated, info = env.step(policy.predict(observation))
        is_over = terminated or truncated
    assert truncated
    assert info["termination"] == ""
    assert info["distance_m"] > 300


@pytest.fixture(scope="module")
def route_policy(tmp_path_factory):
    """Export an untrained policy for routes, whose actor does not read the vehicle's state."""
    pytest.importorskip("onnx", reason="the extra export has it")
    from sb3_visual_td3 import VisualTD3
    from sb3_visual_td3.visual_td3.export import exportable_actor
    from sb3_visual_td3.zoo.export import example_inputs, write_onnx

    keys = {"encoder": "separate", "actor_keys": ["camera", "command"]}
    env = gym.make("LiteRoutes-v0", observation="camera+state+command")
    model = VisualTD3("MultiInputPolicy", env, buffer_size=10, policy_kwargs=keys, seed=0)
    actor = exportable_actor(model)
    path = tmp_path_factory.mktemp("export") / "route.onnx"
    write_onnx(actor, example_inputs(model, actor), path, {})
    return path, model


@pytest.mark.parametrize("kind", ["camera+command", "camera+state+command"])
def test_a_policy_for_routes_gets_the_inputs_that_it_reads(route_policy, kind):
    path, model = route_policy
    observation, _ = gym.make("LiteRoutes-v0", observation="camera+state+command").reset(seed=1)
    expected = model.predict(observation)[0]
    given = {key: observation[key] for key in kind.split("+")}
    np.testing.assert_allclose(ExportedPolicy(path).predict(given), expected, atol=1e-5)
    flags = ["--policy", str(path), "--route", "random", "--env-kwargs", f"observation:{kind}"]
    assert main(["demo", "--seconds", "1", *flags]) == 0
    assert Path("demo.gif").is_file()


def test_a_policy_whose_inputs_are_missing_is_a_usage_error(route_policy, capsys):
    flags = ["--policy", str(route_policy[0]), "--route", "random", "--env-kwargs", "observation:camera+state"]
    assert main(["demo", "--seconds", "1", *flags]) == 2
    assert "cannot take an observation of shape camera (4, 84, 84), state (11,)" in capsys.readouterr().err


def test_the_files_of_the_package_are_small():
    assert (DEMO / "policy.onnx").stat().st_size < 2_000_000
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < 3_500_000


def test_an_mp4_has_a_picture_for_each_step():
    assert main(["demo", "--seconds", "1", "-o", "a.mp4"]) == 0
    film = cv2.VideoCapture("a.mp4")
    assert (film.get(cv2.CAP_PROP_FRAME_COUNT), film.get(cv2.CAP_PROP_FPS)) == (10, 10)


@pytest.mark.parametrize(("frame_skip", "n_steps", "fps"), [(1, 60, 20.0), (4, 15, 5.0), (6, 10, 1 / 0.3)])
def test_a_film_plays_in_real_time_with_any_length_of_a_step(frame_skip, n_steps, fps, capsys):
    flags = ["demo", "--seconds", "3", "--env-kwargs", f"frame_skip:{frame_skip}"]
    assert main([*flags, "-o", "a.mp4"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(" m in 3 s, end of the demo")
    film = cv2.VideoCapture("a.mp4")
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == n_steps
    assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=1e-3)
    assert main([*flags, "-o", "a.gif"]) == 0
    with Image.open("a.gif") as film:
        assert film.info["duration"] == pytest.approx(2_000 / fps, abs=10)


def test_a_drive_of_less_than_a_step_has_one_step():
    assert main(["demo", "--seconds", "1", "--env-kwargs", "frame_skip:100"]) == 0
    with Image.open("demo.gif") as film:
        assert film.n_frames == 1


@pytest.mark.usefixtures("screen")
def test_with_a_display_a_window_is_opened_and_nothing_is_written(capsys):
    assert main(["demo", "--seconds", "1"]) == 0
    assert "Close the window" in capsys.readouterr().out
    assert not list(Path().iterdir())


@pytest.mark.usefixtures("screen")
def test_the_drive_ends_when_the_window_is_closed(monkeypatch, capsys):
    import pygame

    monkeypatch.setattr(pygame.event, "get", lambda *_: ["quit"])
    assert main(["demo", "--seconds", "600"]) == 0
    assert "end of the demo" not in capsys.readouterr().out


@pytest.mark.usefixtures("screen")
def test_the_record_option_writes_a_film_although_there_is_a_display():
    assert main(["demo", "--seconds", "1", "--record"]) == 0
    assert Path("demo.gif").is_file()


@pytest.mark.usefixtures("screen")
def test_without_pygame_a_film_is_written_and_a_message_names_pygame(monkeypatch, capsys):
    monkeypatch.setattr("sb3_visual_td3.demo.drive.find_spec", lambda _name: None)
    assert main(["demo", "--seconds", "1"]) == 0
    assert "A window needs pygame (pip install" in capsys.readouterr().out
    assert Path("demo.gif").is_file()


def film_of(*flags):
    """Return a film of one second as bytes."""
    assert main(["demo", "--seconds", "1", *flags]) == 0
    return Path("demo.gif").read_bytes()


@pytest.mark.parametrize(
    "flags", [["--env-kwargs", "weather:rain"], ["--env-kwargs", "n_cars:9"], ["--route", "random"]]
)
def test_env_kwargs_and_a_random_route_change_the_world_of_the_demo(flags, capsys):
    plain = film_of()
    assert film_of() == plain
    assert film_of(*flags) != plain
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith(" m in 1 s, end of the demo")]
    assert len(lines) == 3


def test_the_demo_accepts_several_env_kwargs(capsys):
    one = film_of("--env-kwargs", "maps:['train_0']")
    assert film_of("--env-kwargs", "maps:['train_0']", "weather:rain") != one
    assert capsys.readouterr().out.count("train_0: ") == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--env-kwargs", "wether:rain"], "unexpected keyword argument 'wether'"),
        (["--env-kwargs", "image_size:64"], "four grey frames of 84 x 84"),
        (["-o", "a.avi"], "expected a name that ends in .gif or .mp4"),
        (["-o", "nowhere/a.gif"], "there is no folder"),
        (["--policy", "nowhere.onnx"], "there is no such file"),
        (["--policy", "bad.onnx"], "cannot read it as an ONNX file"),
        (["--route", "round"], "route='round'"),
    ],
)
def test_an_invalid_option_prints_its_cause_and_writes_no_file(flags, words, capsys):
    Path("bad.onnx").write_bytes(b"no network")
    assert main(["demo", "--seconds", "1", *flags]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("visual-td3 demo: ")
    assert words in line
    assert [path.name for path in Path().iterdir()] == ["bad.onnx"]


@pytest.mark.carla
def test_the_policy_drives_in_the_emulator(capsys):
    pytest.importorskip("carla", reason="carla's client is not installed")
    from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess

    with EmulatorProcess("train_0") as process:
        assert main(["demo", "--seconds", "5", "--carla", str(process.port)]) == 0
    assert "train_0: " in capsys.readouterr().out
    assert Path("demo.gif").is_file()


def test_report_writes_the_pages_of_a_good_and_of_a_failed_run():
    assert main(["demo", "--report"]) == 0
    verdicts = {}
    for name in ("good", "failed"):
        report = json.loads(Path("demo_report", name, "report.json").read_text())
        verdicts[name] = report["verdict"]
        assert Path("demo_report", name, "report.html").is_file()
    assert verdicts == {"good": "GO", "failed": "NO-GO"}
    causes = [each["id"] for each in report["diagnoses"]]
    assert causes[0] == "feature_leak"
