"""The arguments of CarlaDriving-v0, which are checked before anything connects: no client is needed here."""

import subprocess
import time

import gymnasium as gym
import numpy as np
import pytest

import sb3_visual_td3  # noqa: F401  registers the environments
from sb3_visual_td3.envs.carla.backend import weather_of_scene
from sb3_visual_td3.envs.carla.failures import SimulatorLostError, SimulatorUnusableError
from sb3_visual_td3.envs.carla.port_lease import lease_free, lease_running
from sb3_visual_td3.envs.carla.server import Simulator
from sb3_visual_td3.envs.carla.settings import launch_command
from sb3_visual_td3.envs.carla.spawning import starts_on
from sb3_visual_td3.envs.road.carla_coordinates import image_array, to_frame
from sb3_visual_td3.envs.road.maps import load_map
from sb3_visual_td3.envs.road.shapes import Pose

INVALID = [
    ({"town": "Town01", "maps": "train"}, "expected only one of them"),
    ({"town": 5}, "town=5: expected the names of maps"),
    ({"maps": []}, "names of maps"),
    ({"maps": ["", "Town01"]}, "names of maps"),
    ({"town": "/"}, "town='/': expected the names of maps"),
    ({"maps": ["Town01", "//"]}, "names of maps"),
    ({"maps": ["Town01", "/Game/Carla/Maps/Town01"]}, "each once"),
    ({"maps": ["Town01", "Town01"]}, "each once"),
    ({"maps": np.array([1, 2])}, "maps=array([1, 2]"),
    ({"spawn": np.array([1, 2]), "route": "random"}, "spawn=array([1, 2]"),
    ({"weather": "fog"}, "weather='fog'"),
    ({"spawn": "anywhere"}, "spawn='anywhere'"),
    ({"spawn": -1}, "spawn=-1"),
    ({"port": 0}, "port=0"),
    ({"port": 70_000}, "port=70000"),
    ({"port": []}, "expected a port"),
    ({"host": ""}, "host=''"),
    ({"host": "gpu7", "command": "./CarlaUE4.sh"}, "leave 'command' out"),
    ({"command": ""}, "the simulator's command"),
    ({"command": "echo 'x"}, "as in a shell"),
    ({"restart_every": 5}, "without a command"),
    ({"command": "x", "restart_every": 0}, "restart_every=0"),
    ({"dt_s": 0.2}, "dt_s=0.2"),
    ({"timeout_s": 0}, "timeout_s=0"),
    ({"patience_s": -1}, "patience_s=-1"),
    ({"n_cars": 21}, "n_cars=21"),
    ({"image_size": 8}, "image_size=8"),
    ({"camera_width": 8}, "camera_width=8"),
    ({"camera_fov_deg": 200}, "camera_fov_deg=200"),
    ({"camera_position_m": (1.0, 2.0)}, "expected three numbers"),
    ({"camera_rotation_deg": (1.0, 2.0, float("nan"))}, "camera_rotation_deg=nan"),
    ({"blueprint": "tesla"}, "vehicle.tesla.model3"),
    ({"role_name": ""}, "role_name=''"),
    ({"frame_stack": 0}, "frame_stack=0"),
    ({"seed": -1}, "seed=-1"),
    ({"shares_server": 1}, "shares_server=1"),
    ({"shares_server": True, "command": "x"}, "shares_server=True and a command"),
]


@pytest.mark.parametrize(("kwargs", "message"), INVALID, ids=lambda value: str(value)[:40])
def test_invalid_argument_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[").replace("(", r"\(")):
        gym.make("CarlaDriving-v0", **kwargs)


def test_maps_can_be_a_town_several_towns_or_a_group():
    def maps(**kwargs):
        return gym.make("CarlaDriving-v0", **kwargs).unwrapped.maps

    assert maps() == ("",)
    assert maps(town="") == maps(maps="") == ("",)
    assert maps(town="Town05") == ("Town05",)
    assert maps(town="/Game/Carla/Maps/Town05") == ("Town05",)
    assert maps(maps="Carla/Maps/Town05") == ("Town05",)
    assert maps(maps="held_out") == ("Town02",)
    assert maps(maps=["Town01", "Town07"]) == ("Town01", "Town07")


def test_spaces_are_those_of_lite_driving():
    for kwargs in ({}, {"observation": "camera+state"}, {"grayscale": False}, {"image_size": 64}):
        carla, lite = (gym.make(name, **kwargs) for name in ("CarlaDriving-v0", "LiteDriving-v0"))
        assert carla.observation_space == lite.observation_space
        assert carla.action_space == lite.action_space


def test_seed_can_be_given_at_construction():
    streams = [gym.make("CarlaDriving-v0", seed=3).unwrapped.np_random.random(4).tolist() for _ in range(2)]
    assert streams[0] == streams[1]


def test_step_before_the_first_reset_is_refused():
    env = gym.make("CarlaDriving-v0").unwrapped
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(2, np.float32))


def test_state_cannot_be_saved():
    assert not hasattr(gym.make("CarlaDriving-v0").unwrapped, "get_state")
    assert hasattr(gym.make("LiteDriving-v0").unwrapped, "get_state")


def test_port_is_inserted_or_appended_to_the_command():
    assert launch_command("./CarlaUE4.sh -RenderOffScreen", 2004) == [
        "./CarlaUE4.sh",
        "-RenderOffScreen",
        "-carla-rpc-port=2004",
    ]
    assert launch_command("emulator --port {port} --x 'a b'", 7) == ["emulator", "--port", "7", "--x", "a b"]


def test_home_and_variables_in_the_command_are_replaced_as_in_a_shell(monkeypatch):
    monkeypatch.setenv("CARLA_ROOT", "/opt/carla 0.9.15")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("UNKNOWN", raising=False)
    assert launch_command('"$CARLA_ROOT/CarlaUE4.sh" -log=${UNKNOWN} {port}', 7) == [
        "/opt/carla 0.9.15/CarlaUE4.sh",
        "-log=${UNKNOWN}",
        "7",
    ]
    assert launch_command("~/carla/CarlaUE4.sh {port}", 7) == ["/home/me/carla/CarlaUE4.sh", "7"]


@pytest.mark.parametrize(
    "command",
    [
        "bash -c 'PORT=2; exec carla -p $PORT ${PORT}' ~/x",
        r"carla \$PORT \~/x \\$PORT a\ b '\$PORT' $PORT",
        r"""carla "it's $PORT" "\$PORT" "\\$PORT" "~/x" "a 'b' $PORT" 'say "$PORT"' it\'s\ $PORT""",
        "carla '~/x y' --x=~ --y='~' '~'/x -e X='${PORT}'Y=$PORT",
        'carla $TEXT "$TEXT" "${TEXT}"',
    ],
)
def test_quotes_in_the_command_have_the_effect_they_have_in_a_shell(command, monkeypatch):
    monkeypatch.setenv("PORT", "9999")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("TEXT", "~'\"x")  # the values of variables are not read again
    words = subprocess.run(["/bin/sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    assert launch_command(command + " {port}", 7) == [*words.stdout.splitlines(), "7"]


def test_error_of_an_ended_simulator_contains_its_output():
    simulator = Simulator("sh -c 'echo out of memory; exit 7' {port}", 2000)
    while simulator.is_running():
        time.sleep(0.02)
    with pytest.raises(SimulatorLostError, match="exit code 7; it printed: out of memory"):
        simulator.check()
    simulator.stop()


def test_missing_program_is_named():
    with pytest.raises(SimulatorUnusableError, match=r"no program \./CarlaUE5\.sh"):
        Simulator("./CarlaUE5.sh", 2000)


def test_no_two_environments_get_the_same_port():
    first, second = lease_free(23_000), lease_free(23_000)
    assert second.port >= first.port + 4
    with pytest.raises(SimulatorUnusableError, match=f"{first.port} .by process"):
        lease_running("127.0.0.1", [first.port])
    third = lease_running("localhost", [first.port, 23_900])
    assert third.port == 23_900
    first.release()
    again = lease_running("localhost", [first.port])
    assert again.port == first.port
    for lease in (second, third, again):
        lease.release()


def test_spawn_points_off_or_against_the_route_are_excluded():
    track = load_map("train_0").track
    on, beside, against = (Pose(*track.pose_at(100, offset)) for offset in (0.5, 3.5, 0.0))
    against = against._replace(heading_rad=against.heading_rad + 3.1)
    points = [beside, on, against, Pose(*track.pose_at(40, 0.0))]
    assert starts_on(track, points, "route") is None
    assert starts_on(track, points, "points") == [40, 100]
    assert starts_on(track, points, 3) == [40]
    with pytest.raises(SimulatorUnusableError, match=r"choose from \[1, 3\]"):
        starts_on(track, points, 0)
    with pytest.raises(SimulatorUnusableError, match="use spawn='route'"):
        starts_on(track, [beside], "points")


def test_random_weather_follows_from_the_scene_seed():
    drawn = [weather_of_scene("random", seed) for seed in range(30)]
    assert set(drawn) == {"clear", "rain", "night"}
    assert drawn == [weather_of_scene("random", seed) for seed in range(30)]
    assert weather_of_scene("WetNoon", 3) == "WetNoon"


def test_bgra_images_are_converted_to_grey_or_rgb_frames():
    image = np.zeros((60, 80, 4), np.uint8)
    image[..., 2] = 100  # red
    assert to_frame(image, 40, grayscale=True).shape == (40, 40)
    assert to_frame(image, 40, grayscale=True).mean() == pytest.approx(30.0)
    colours = to_frame(image, 40, grayscale=False)
    assert colours.shape == (3, 40, 40)
    assert colours.mean(axis=(1, 2)).tolist() == [100.0, 0.0, 0.0]
    assert image_array(image.tobytes(), 60, 80).tobytes() == image.tobytes()
    with pytest.raises(ValueError, match="an image of 4 bytes: expected 19200"):
        image_array(bytes(4), 60, 80)
