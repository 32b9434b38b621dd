"""CarlaDriving-v0 through the genuine client, on the emulator."""

import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.envs.carla.connection import Connection
from sb3_visual_td3.envs.carla.failures import SimulatorUnusableError
from sb3_visual_td3.envs.drivers import PurePursuitDriver
from tests.envs.carla.conftest import EMULATOR
from tests.envs.episodes import drive_episode

pytest.importorskip("carla", reason="carla's client is not installed")
pytestmark = pytest.mark.carla

AHEAD = np.array([0.0, 0.5], np.float32)


def drive(env, n_steps, action=AHEAD):
    """Step until the episode ends, and return the last result."""
    for _ in range(n_steps):
        answer = env.step(action)
        if answer[2] or answer[3]:
            break
    return answer


def test_environment_passes_stable_baselines3_check_env(make_env):
    check_env(make_env(observation="camera+state").unwrapped, warn=False)


@pytest.mark.parametrize("name", ["train_0", "train_1", "held_out_0", "junction_0", "three_lanes_0"])
def test_vehicle_camera_and_rewards_match_lite_driving_in_every_step(make_env, name):
    lite = gym.make("LiteDriving-v0", maps=[name], observation="camera+state").unwrapped
    env = make_env(maps=[name], observation="camera+state").unwrapped
    driver = PurePursuitDriver()
    for seed in range(2):
        seen, info = env.reset(seed=seed)
        expected, lite_info = lite.reset(seed=seed)
        assert info.keys() == lite_info.keys()
        for key in ("speed_mps", "lateral_offset_m", "heading_error_rad", "map"):
            assert info[key] == pytest.approx(lite_info[key], abs=1e-3)
        for _ in range(200):
            difference = np.abs(seen["camera"].astype(int) - expected["camera"]).mean()
            assert difference < 2.0
            assert seen["state"] == pytest.approx(expected["state"], abs=0.03)  # waypoints lie half a metre apart
            action = driver.act(lite)
            seen, reward, *ended, info = env.step(action)
            expected, lite_reward, *lite_ended, lite_info = lite.step(action)
            assert np.hypot(env.vehicle.x_m - lite.vehicle.x_m, env.vehicle.y_m - lite.vehicle.y_m) < 0.01
            assert reward == pytest.approx(lite_reward, abs=2e-3)
            assert ended == lite_ended
        assert info["lane_invasions"] == lite_info["lane_invasions"]


def test_driver_returns_match_lite_driving_within_5_percent(make_env):
    lite = gym.make("LiteDriving-v0", maps="held_out").unwrapped
    env = make_env(maps=["held_out_0", "held_out_1"]).unwrapped
    driver = PurePursuitDriver()
    returns, begin = [], time.monotonic()
    for seed in range(4):
        carla_drive, lite_drive = (drive_episode(each, driver.act, seed, max_steps=250) for each in (env, lite))
        returns.append((carla_drive.episode_return, lite_drive.episode_return))
        assert carla_drive.last_info["map"] == lite_drive.last_info["map"]
    assert np.array(returns)[:, 0] == pytest.approx(np.array(returns)[:, 1], rel=0.05)
    # A thousand steps of a tenth of a second: in real time they take 100 s at least, on a quiet machine they take 2.
    assert time.monotonic() - begin < 80.0


def test_large_images_match_lite_driving_and_are_scaled_down_for_the_policy(make_env):
    import cv2

    from sb3_visual_td3.envs.lite.camera import PICTURE_BANDS, Camera
    from sb3_visual_td3.envs.road.maps import load_map

    env = make_env(camera_width=320, camera_height=240).unwrapped
    seen, _ = env.reset(seed=3)
    image = cv2.cvtColor(env._backend._image, cv2.COLOR_BGRA2GRAY)
    assert image.shape == (240, 320)
    place = env.vehicle
    lite = Camera(240, 320, PICTURE_BANDS).draw(load_map("train_0"), place.x_m, place.y_m, place.yaw_rad)
    assert np.abs(image.astype(int) - lite).mean() < 2.0
    assert seen.shape == (4, 84, 84)
    small = cv2.resize(lite, (84, 84), interpolation=cv2.INTER_AREA)
    assert np.abs(seen[-1].astype(int) - small).mean() < 2.0


def test_same_seed_gives_the_same_episode(make_env):
    env = make_env(n_cars=6)

    def episode():
        seen = [env.reset(seed=5)[0]]
        seen += [env.step(AHEAD)[0] for _ in range(20)]
        return np.array(seen)

    assert (episode() == episode()).all()


def test_episodes_start_at_spawn_points_of_both_towns_in_random_weather(make_env):
    env = make_env(grayscale=False, maps=["Town03", "Town02"], weather="random", spawn="points").unwrapped
    maps, sun_altitudes_deg = set(), set()
    for seed in (0, 1, 4):
        seen, info = env.reset(seed=seed)
        assert seen.shape == (12, 84, 84)
        world = env._backend._connected()[0].world
        maps.add(info["map"])
        sun_altitudes_deg.add(round(world.get_weather().sun_altitude_angle))
        places = [each.location for each in world.get_map().get_spawn_points()]
        # CARLA's y axis points to the right. The start is moved sideways by up to 0.5 m.
        assert min(np.hypot(each.x - env.vehicle.x_m, each.y + env.vehicle.y_m) for each in places) < 0.6
        assert drive(env, 5)[4]["distance_m"] > 0.0
    assert maps == {"Town03", "Town02"}
    assert sun_altitudes_deg == {60, 45, -30}, "clear, rain and night"


def test_night_is_dark_and_carlas_presets_work(make_env):
    day, night, preset = (make_env(weather=weather) for weather in ("clear", "night", "HardRainNight"))
    brightness = []
    for env in (day, night, preset):
        brightness.append(env.reset(seed=0)[0].mean())
        env.close()
    assert brightness[1] < 0.7 * brightness[0]
    assert brightness[2] < 0.7 * brightness[0]


def test_driving_into_another_car_is_a_collision(make_env):
    env = make_env(n_cars=20, target_speed_mps=12.0)
    endings = set()
    for seed in range(4):
        env.reset(seed=seed)
        driver = PurePursuitDriver()
        for _ in range(400):
            _, _, terminated, truncated, info = env.step(driver.act(env.unwrapped))
            if terminated or truncated:
                endings.add(info["termination"])
                break
    assert "collision" in endings


NOTICED_S = 5.0
"""Longest wait for an answer of the server, in seconds.

The wait is short, so that a failed server is noticed soon, but longer than an answer takes on a busy machine.
"""

FAULTS = {
    "hang": lambda emulator: emulator.control.fault("hang", 12.0),
    "dropped images": lambda emulator: emulator.control.fault("drop-frames", 3),
    "truncated images": lambda emulator: emulator.control.fault("truncate-images", 3),
    "another client's tick": lambda emulator: client(emulator, "w.tick()"),
    "another map": lambda emulator: client(emulator, "c.load_world('Town03')"),
    "its vehicle destroyed": lambda emulator: client(
        emulator, "w.tick(); c.apply_batch_sync([carla.command.DestroyActor(a) for a in w.get_actors()], False)"
    ),
}


def client(emulator, code):
    script = (
        f"import carla; c = carla.Client('127.0.0.1', {emulator.port}); c.set_timeout(60.0); w = c.get_world(); {code}"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_ends_the_episode_and_the_next_one_starts(make_env, emulator, fault):
    env = make_env(timeout_s=NOTICED_S, patience_s=300.0)
    env.reset(seed=0)
    before = drive(env, 5)[0]
    FAULTS[fault](emulator)
    seen, reward, terminated, truncated, info = drive(env, 5)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["invalid_transition"] is True
    assert info["is_success"] is False
    assert (seen == before).all() or fault == "its vehicle destroyed"
    with pytest.raises(gym.error.ResetNeeded):
        env.step(AHEAD)
    env.reset()
    answer = drive(env, 10)
    assert "invalid_transition" not in answer[4]
    assert answer[4]["map"] == ("Town03" if fault == "another map" else "train_0")
    assert env.unwrapped.n_simulator_failures >= 1
    client(emulator, "w.tick(); assert len(w.get_actors().filter('vehicle.*')) == 1, list(w.get_actors())")


def test_refused_spawn_is_retried(make_env, emulator):
    env = make_env(patience_s=300.0)
    env.reset(seed=0)
    env.unwrapped._backend.lose(restart=False)
    emulator.control.fault("refuse-spawns", 100)
    env.reset()
    assert "invalid_transition" not in drive(env, 5)[4]


def test_killed_server_is_rejoined_when_it_is_back(make_env, emulator):
    env = make_env(timeout_s=NOTICED_S, patience_s=300.0)
    env.reset(seed=0)
    emulator.kill()
    assert drive(env, 3)[4]["invalid_transition"]
    threading.Timer(1.0, emulator.start).start()
    env.reset()
    assert "invalid_transition" not in drive(env, 5)[4]


def test_reset_raises_if_the_server_does_not_return_within_patience_s(make_env, emulator):
    env = make_env(timeout_s=NOTICED_S, patience_s=0.5)
    env.reset(seed=0)
    emulator.kill()
    drive(env, 3)
    with pytest.raises(RuntimeError, match=r"did not come back within patience_s.* nothing listens"):
        env.reset()


def test_no_episode_runs_after_close_or_after_a_reset_that_failed(make_env, emulator):
    env = make_env(timeout_s=NOTICED_S, patience_s=0.5).unwrapped
    env.reset(seed=0)
    env.close()
    with pytest.raises(gym.error.ResetNeeded, match=r"after close\(\)"):
        env.step(AHEAD)
    env.reset()
    emulator.kill()
    with pytest.raises(SimulatorUnusableError):
        env.reset()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(AHEAD)


def test_own_simulator_is_restarted_and_ends_with_the_environment():
    env = gym.make("CarlaDriving-v0", command=EMULATOR, port=2800, timeout_s=NOTICED_S, restart_every=2)
    env.reset(seed=0)
    address = env.unwrapped.server_address
    from sb3_visual_td3.envs.carla_emulator.process import EmulatorControl

    control = EmulatorControl(address[1])
    control.fault("die")
    assert drive(env, 3)[4]["invalid_transition"]
    env.reset()
    first = control.status()["frame"]
    env.reset()
    env.reset()  # the third episode of this server: it is restarted
    assert control.status()["frame"] <= first + 5
    assert "invalid_transition" not in drive(env, 5)[4]
    env.close()
    with pytest.raises(ConnectionRefusedError):
        control.status()


def test_simulator_ends_with_a_killed_training(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import gymnasium as gym, sb3_visual_td3, os, time\n"
        f"env = gym.make('CarlaDriving-v0', command={EMULATOR!r}, port=2840)\n"
        "env.reset()\nprint(env.unwrapped.server_address[1], flush=True)\ntime.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline())
    process.kill()
    process.wait()
    from sb3_visual_td3.envs.carla_emulator.process import EmulatorControl

    for _ in range(1_200):
        try:
            EmulatorControl(port).status()
        except OSError:
            return
        threading.Event().wait(0.1)
    pytest.fail("the simulator outlived its training")


def test_close_restores_the_world(make_env, emulator):
    env = make_env(n_cars=3)
    env.reset(seed=0)
    assert emulator.control.status()["synchronous"] is True
    env.close()
    env.close()
    status = emulator.control.status()
    assert (status["n_actors"], status["synchronous"]) == (0, False)


def test_process_exits_with_code_0_without_close(emulator):
    script = (
        "import gymnasium as gym, numpy as np, sb3_visual_td3\n"
        f"env = gym.make('CarlaDriving-v0', port={emulator.port})\n"
        "env.reset(seed=0)\nfor _ in range(20): env.step(np.array([0, 0.5], np.float32))\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("n_envs", [2, 4])
def test_parallel_environments_have_one_server_each(n_envs):
    kwargs = {"command": EMULATOR, "port": 2900, "timeout_s": 60.0}
    env = make_vec_env("sb3_visual_td3:CarlaDriving-v0", n_envs, seed=0, env_kwargs=kwargs, vec_env_cls=SubprocVecEnv)
    try:
        env.reset()
        assert len(set(env.get_attr("server_address"))) == n_envs
        for _ in range(20):
            _, _, dones, infos = env.step(np.tile(AHEAD, (n_envs, 1)))
        assert not dones.any()
        assert all(info["distance_m"] > 0.0 for info in infos)
    finally:
        env.close()


def test_two_environments_do_not_use_the_same_server(make_env, emulator):
    make_env().reset(seed=0)
    with pytest.raises(RuntimeError, match=f"in use by another environment: {emulator.port} .by process {os.getpid()}"):
        make_env().reset(seed=0)


def test_rendered_picture_matches_lite_driving(make_env):
    env = make_env(render_mode="rgb_array")
    lite = gym.make("LiteDriving-v0", maps=["train_0"], render_mode="rgb_array")
    env.reset(seed=1)
    lite.reset(seed=1)
    for _ in range(2):
        difference = np.abs(env.render().astype(int) - lite.render()).mean()
        assert difference < 4.0
        env.step(AHEAD)
        lite.step(AHEAD)


def test_visual_td3_trains_through_a_fault(make_env, emulator):
    env = make_env(timeout_s=NOTICED_S, patience_s=300.0)
    model = VisualTD3("CnnPolicy", env, buffer_size=500, learning_starts=50, batch_size=8, seed=0)
    model.learn(60)
    emulator.control.fault("drop-frames", 3)
    model.learn(40, reset_num_timesteps=False)
    assert model.num_timesteps == 100
    assert model.replay_buffer.size() == 99
    assert env.unwrapped.n_simulator_failures == 1


def test_no_server_is_needed_before_the_first_reset():
    env = gym.make("CarlaDriving-v0", port=1)
    assert env.observation_space.shape == (4, 84, 84)
    env.close()


def test_package_imports_without_carla():
    code = (
        "import sys; sys.modules['carla'] = None; import gymnasium as gym, sb3_visual_td3; gym.make('CarlaDriving-v0')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


SLOPE = """<OpenDRIVE><header revMajor="1" revMinor="4" name="" version="1" north="0" south="0" east="0" west="0"/>
<road name="" length="150" id="1" junction="-1"><link/><planView><geometry s="0" x="0" y="0" hdg="0" length="150">
<arc curvature="0.02"/></geometry></planView><elevationProfile><elevation s="0" a="200" b="0.1" c="0" d="0"/>
</elevationProfile><lanes><laneSection s="0"><center><lane id="0" type="none" level="false"/></center><right>
<lane id="-1" type="driving" level="false"><link/><width sOffset="0" a="3.5" b="0" c="0" d="0"/></lane></right>
</laneSection></lanes></road></OpenDRIVE>"""


def test_vehicles_are_placed_on_the_road_on_a_slope_high_above_zero():
    import carla

    connection = Connection.__new__(Connection)  # the height needs no server
    connection._carla, connection.map = carla, carla.Map("slope", SLOPE)
    for along_m in range(20, 150, 10):
        on_lane = connection.map.get_waypoint_xodr(1, -1, along_m).transform
        height_m, pitch_deg = connection.ground(on_lane.location.x, on_lane.location.y)
        assert height_m == pytest.approx(200.0 + 0.1 * along_m, abs=0.02)
        assert pitch_deg == pytest.approx(math.degrees(math.atan(0.1)), abs=0.1)
