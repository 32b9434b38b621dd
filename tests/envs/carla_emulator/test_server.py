"""The server as a process, tested through its sockets, without CARLA's client."""

import contextlib
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import msgpack
import numpy as np
import pytest

from sb3_visual_td3.envs.carla_emulator.process import EmulatorControl, EmulatorProcess
from tests.envs.carla_emulator.wire import TIMEOUT_S, Stream, WireClient, actors_of

CAMERA = {"image_size_x": 84, "image_size_y": 84, "fov": 90.0}
MOUNT = (2.0, 0.0, 1.5, 0.0, 0.0, 0.0)


def world_stream(client):
    _, (token,) = client.call("get_episode_info")
    return client.subscribe(token)


def camera_on_a_car(client):
    car, _ = client.spawn("vehicle.tesla.model3", client.spawn_points()[0])
    camera, token = client.spawn("sensor.camera.rgb", MOUNT, car, **CAMERA)
    stream = client.subscribe(token)
    stream.settle(client)
    return car, camera, stream


def test_server_starts_in_asynchronous_mode_and_ticks_in_real_time(own_emulator):
    with WireClient(own_emulator.port) as client:
        stream = world_stream(client)
        first = stream.next()
        begin = time.monotonic()
        for _ in range(20):
            last = stream.next()
        assert last[1] - first[1] == 20
        assert last[2] - first[2] == pytest.approx(1.0)
        assert time.monotonic() - begin >= 0.85  # a busy machine is slower


def test_clients_cannot_speed_up_the_clock_of_asynchronous_mode(own_emulator):
    with WireClient(own_emulator.port) as client:
        stream = world_stream(client)
        before = stream.next()
        begin = time.monotonic()
        walkers = []
        for x in range(10):
            walkers.append(client.spawn("walker.pedestrian.0001", (3.0 * x, 0.0, 1.0, 0.0, 0.0, 0.0))[0])
            frame = client.tick()
            client.raw("apply_batch", [], True)
        while (message := stream.next())[1] < frame:
            pass
        passed_s = message[2] - before[2]
        assert 0.3 < passed_s < time.monotonic() - begin + 0.2
        assert set(walkers) <= set(actors_of(message[4]))


def test_clients_do_not_wait_long_for_a_long_tick_of_asynchronous_mode(own_emulator):
    with WireClient(own_emulator.port) as client:
        stream = world_stream(client)
        settings = client.call("get_episode_settings")
        client.call("set_episode_settings", [False, False, [True, 10.0], *settings[3:]])
        begin = time.monotonic()
        first = stream.next()
        while (message := stream.next())[2] < first[2] + 30.0:
            pass
        assert time.monotonic() - begin < 15.0
        assert message[1] - first[1] <= 4


def test_synchronous_server_sends_the_world_state_before_it_answers_a_tick(client, emulator):
    stream = world_stream(client)
    frame = stream.settle(client)[1]
    time.sleep(0.2)
    assert emulator.control.status()["frame"] == frame
    for _ in range(100):
        frame = client.tick()
        assert stream.next()[1] == frame, "the world state arrived before the response"


def test_settings_without_effect_are_read_back_until_an_episode_resets_them(client, map_name):
    defaults = client.call("get_episode_settings")
    assert defaults[3:] == [True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True]
    changed = [True, False, [True, 0.05], False, 0.005, 16, 77.0, True, 500.0, 1000.0, False]
    for distance_m in (math.inf, -math.inf, 1e10, -1.0):
        far = [*changed[:6], distance_m, changed[7], distance_m, *changed[9:]]
        client.call("set_episode_settings", far)
        assert client.call("get_episode_settings") == far
    client.call("set_episode_settings", changed)
    assert client.call("get_episode_settings") == changed
    with pytest.raises(RuntimeError, match="expected a setting"):
        client.call("set_episode_settings", [*changed[:6], math.nan])
    with pytest.raises(RuntimeError, match="expected a setting"):
        client.call("set_episode_settings", [*changed[:4], "x"])
    assert client.call("get_episode_settings") == changed
    client.call("load_new_episode", map_name, False, 65_535)
    assert client.call("get_episode_settings") == changed
    client.call("load_new_episode", map_name, True, 65_535)
    assert client.call("get_episode_settings")[3:] == defaults[3:]


@pytest.mark.parametrize("step_s", [0.05, 1.0 / 30.0, 0.01])
def test_settings_survive_a_round_trip(client, step_s):
    client.synchronous(step_s)
    settings = client.call("get_episode_settings")
    assert settings[:3] == [True, False, [True, step_s]]
    stream = world_stream(client)
    before = stream.settle(client)[2]
    client.tick()
    _, _, seconds, _, body = stream.next()
    assert seconds - before == pytest.approx(step_s)
    assert struct.unpack_from("<Qdf", body)[2] == pytest.approx(step_s)


def test_camera_sends_one_image_of_the_requested_size_per_tick(client):
    _, _, stream = camera_on_a_car(client)
    frame = client.tick()
    sensor, seen, _, place, body = stream.next()
    assert (sensor, seen) == (13, frame)
    assert struct.unpack_from("<IIf", body) == (84, 84, 90.0)
    pixels = np.frombuffer(body[12:], np.uint8).reshape(84, 84, 4)
    assert (pixels[..., 3] == 255).all()
    assert pixels.std() > 10.0
    assert place[2] == pytest.approx(1.5)


def test_vehicle_on_the_ground_is_not_exactly_level(client):
    # CARLA's BasicAgent ignores a traffic light that lies at an angle of exactly 0 degrees.
    car, _ = client.spawn("vehicle.tesla.model3", client.spawn_points()[0])
    stream = world_stream(client)
    stream.settle(client)
    frame = client.tick()
    while (message := stream.next())[1] < frame:  # the first frames may be older than the car
        pass
    pitch_deg = actors_of(message[4])[car][3]
    assert 0.01 < pitch_deg < 0.1
    assert np.float32(np.cos(np.radians(pitch_deg))) < 1.0
    height_m = actors_of(message[4])[car][2]
    assert 0.0 < height_m < 0.01, "some environments take a height of 0 as a failed spawn"


def test_sensor_tick_sets_the_interval(client):
    car, _ = client.spawn("vehicle.tesla.model3", client.spawn_points()[0])
    _, token = client.spawn("sensor.other.imu", (0.0,) * 6, car, sensor_tick=0.2)
    stream = client.subscribe(token)
    stream.settle(client)
    client.tick(41)
    frames = [stream.next()[1] for _ in range(10)]
    assert np.diff(frames).tolist() == [4] * 9


def test_unknown_and_malformed_calls_are_answered_and_keep_the_connection(capfd):
    with EmulatorProcess("train_0") as emulator, WireClient(emulator.port) as client:
        with pytest.raises(RuntimeError, match="does not support the call 'make_coffee'"):
            client.call("make_coffee", 1, 2)
        for name, arguments in (
            ("spawn_actor", ()),
            ("spawn_actor", (1, 2)),
            ("apply_batch", ([[[1, []]]], False)),
            ("apply_batch", (7,)),
            ("apply_control_to_vehicle", (1, [1.0])),
            ("set_actor_transform", (1, [[0, 0], [0]])),
            ("set_weather_parameters", ([1.0],)),
            ("set_episode_settings", (None,)),
            ("load_new_episode", (3,)),
            ("get_actors_by_id", (5,)),
        ):
            assert client.raw(name, *arguments)[2] is None, name
        assert client.call("version") == "0.9.16"
    assert "unknown call 'make_coffee'" in capfd.readouterr().err


def test_calls_without_support_are_named_once(capfd):
    with EmulatorProcess("train_0") as emulator, WireClient(emulator.port) as client:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="does not support the call 'make_coffee'"):
                client.call("make_coffee")
            assert client.call("get_environment_objects", 0) == []
            assert client.call("draw_debug_shape", []) is None
            assert client.call("query_lights_state", "127.0.0.1:2000") == []
    lines = capfd.readouterr().err.splitlines()
    for part in ("unknown call 'make_coffee'", "get_environment_objects returns an empty list", "draw_debug_shape is"):
        assert sum(part in line for line in lines) == 1, part
    assert not any("query_lights_state" in line for line in lines), "the client makes this call by itself"


def test_console_reports_errors_of_calls_for_whose_answer_the_client_does_not_wait(capfd):
    with EmulatorProcess("train_0") as emulator, WireClient(emulator.port) as client:
        for _ in range(2):
            client.send("add_actor_impulse", 1, [1.0, 0.0, 0.0])
            client.send("set_actor_target_velocity", 1, [1e6, 0.0, 0.0])
            client.send("apply_batch", [[[1, [999]]]], False)
        with pytest.raises(RuntimeError, match="999"):
            client.call("apply_control_to_vehicle", 999, [0.0] * 3 + [False] * 3 + [0])
        client.send("version")
        assert client.call("version") == "0.9.16"
    assert capfd.readouterr().err.splitlines() == [
        "carla-emulator: unknown call 'add_actor_impulse' has no effect; the client does not wait for an answer",
        "carla-emulator: set_actor_target_velocity: 1000000.0: expected a number between -10000 and 10000",
        "carla-emulator: apply_batch: unable to destroy actor 999: not found",
    ]


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"\xc1", b"\x94\x00\x01"])
def test_other_protocols_are_disconnected_without_affecting_other_clients(client, emulator, garbage):
    for port in (emulator.port, emulator.port + 1):
        with socket.create_connection(("127.0.0.1", port)) as other:
            other.sendall(garbage)
            client.tick()
    client.tick(3)
    assert client.call("version") == "0.9.16"


def test_subscriber_that_does_not_read_blocks_nothing(client, emulator):
    _, camera, fast = camera_on_a_car(client)
    slow = Stream("127.0.0.1", client.call("get_sensor_token", 1 + camera)[0])
    begin = time.monotonic()
    client.tick(500)
    assert time.monotonic() - begin < TIMEOUT_S
    frames = [fast.next()[1] for _ in range(500)]
    assert frames == list(range(frames[0], frames[0] + 500))
    assert emulator.control.status()["n_stream_connections"] == 2
    slow.close()
    client.tick(2)
    assert emulator.control.status()["n_stream_connections"] == 1
    assert emulator.control.status()["n_clients"] == 1


def test_client_that_does_not_read_its_responses_is_disconnected(client, emulator):
    with socket.create_connection(("127.0.0.1", emulator.port)) as deaf:
        question = msgpack.packb([0, 1, "get_map_data", [[False]]])
        with contextlib.suppress(OSError):
            deaf.sendall(question * 500)  # ten megabytes of responses
        begin = time.monotonic()
        client.tick()
        assert time.monotonic() - begin < TIMEOUT_S
    assert emulator.control.status()["n_clients"] == 1


def test_errors_have_carlas_texts(client):
    point = client.spawn_points()[0]
    car, _ = client.spawn("vehicle.tesla.model3", point)
    with pytest.raises(RuntimeError, match="Spawn failed because of collision at spawn position"):
        client.spawn("vehicle.audi.tt", point)
    with pytest.raises(RuntimeError, match="map not found"):
        client.call("load_new_episode", "Atlantis", True, 65_535)
    with pytest.raises(RuntimeError, match=r"invalid actor description 'vehicle\.ford\.t'"):
        client.spawn("vehicle.ford.t", point)
    assert client.call("destroy_actor", car) is True
    assert client.call("destroy_actor", car) is False
    with pytest.raises(RuntimeError, match="destroyed actor"):
        client.spawn("sensor.other.imu", (0.0,) * 6, car)
    with pytest.raises(RuntimeError, match="is not a transform"):
        client.spawn("vehicle.audi.tt", (float("nan"), *point[1:]))
    answers = client.raw("apply_batch", [[[1, [car]]], [[99, [car]]]], False)[3]
    assert [answer[0][0] for answer in answers] == [0, 0]


def test_loading_a_map_ends_sensors_keeps_the_world_stream_and_reuses_no_actor_id(client):
    stream = world_stream(client)
    stream.settle(client)
    car, camera, images = camera_on_a_car(client)
    episode, (token,) = client.call("get_episode_info")
    client.call("load_new_episode", "Town02", False, 65_535)
    assert client.call("get_episode_info") == [episode + 1, [token]]
    assert client.call("get_map_info")[0] == "Carla/Maps/Town02"
    assert client.call("get_episode_settings")[0] is True
    frame = client.tick()
    while (message := stream.next())[1] < frame:
        pass
    assert struct.unpack_from("<Q", message[4]) == (episode + 1,)
    assert images.is_closed()
    other, _ = client.spawn("vehicle.tesla.model3", client.spawn_points()[0])
    assert other > camera > car
    client.call("load_new_episode", "Town02", True, 65_535)
    assert client.call("get_episode_settings")[:3] == [False, False, [False]]


def test_without_rendering_only_cameras_are_silent(client):
    car, _, images = camera_on_a_car(client)
    imu = client.subscribe(client.spawn("sensor.other.imu", (0.0,) * 6, car)[1])
    imu.settle(client)
    client.call("set_episode_settings", [True, True, [True, 0.05], True, 0.01, 10, 0.0, False, 0.0, 0.0, True])
    last = client.tick(5)
    client.synchronous()
    first_again = client.tick()
    while (frame := images.next()[1]) < first_again:
        assert frame <= last - 5
    while imu.next()[1] < first_again:
        pass


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_hanging_server_with_exit_code_0(signal_number):
    with EmulatorProcess("train_0") as emulator, WireClient(emulator.port) as client:
        emulator.control.fault("hang")
        client._socket.sendall(msgpack.packb([0, 1, "tick_cue", [[False]]]))
        time.sleep(0.2)
        process = emulator._process
        os.kill(process.pid, signal_number)
        assert process.wait(TIMEOUT_S) == 0
        emulator._process = None
        process.stdout.close()


def run(*arguments, timeout=300.0):
    command = [sys.executable, "-m", "sb3_visual_td3", "carla-emulator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_port_in_use_is_reported_in_one_line(emulator):
    for port in (emulator.port, emulator.port - 1):  # its own, and one whose streams would need it
        done = run("--port", str(port))
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--map", "Atlantis"], "Town01"),
        (["--host", "0.0.0.0"], "--allow-remote"),
        (["--host", "example.com"], "--allow-remote"),
        (["--host", "::1"], "expected an IPv4 address"),
        (["--map", "b" * 300 + ".xodr"], "--map "),
        (["--maps", "b" * 300], "--maps "),
        (["--fault", "boom@3"], "drop-frames"),
        (["--fault", "die"], "hang and die need @TICK or @every:N"),
        (["--cars", "101"], "0 to 100"),
        (["--cars", "-1"], "0 to 100"),
        (["--port", "65535"], "--port"),
    ],
)
def test_bad_usage_is_reported_in_one_line_with_exit_code_2(arguments, words):
    done = run("--port", "0", *arguments) if "--port" not in arguments else run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_help_lists_towns_faults_and_examples():
    done = run("--help")
    assert done.returncode == 0
    for word in ("Town01: train_0", "truncate-images", "-carla-rpc-port", "examples:", "--fault die@500"):
        assert word in done.stdout


def listening_addresses(pid):
    """Return the addresses that a process listens on, from /proc, as hexadecimal address and port."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        with open(f"/proc/{pid}/net/{table}", encoding="ascii") as lines:
            for line in list(lines)[1:]:
                fields = line.split()
                if fields[9] in inodes and (table.startswith("udp") or fields[3] == "0A"):
                    found.add((table, fields[1]))
    return found


def test_server_listens_on_loopback_only(emulator):
    ports = (emulator.port, emulator.port + 1)
    assert listening_addresses(emulator.pid) == {("tcp", f"0100007F:{port:04X}") for port in ports}


def free_pair_of_ports():
    """Return a free port whose successor, on which the server streams, is free as well."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def test_flags_of_carlas_launcher_are_accepted():
    port = free_pair_of_ports()
    command = [sys.executable, "-m", "sb3_visual_td3.envs.carla_emulator", "-RenderOffScreen", "-quality-level=Low"]
    command += [f"-carla-rpc-port={port}", "-nosound", "-benchmark", "-fps=20"]
    command += ["-map=Town02"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == (
            f"carla-emulator: listening on 127.0.0.1:{port} (streams {port + 1}), map train_0\n"
        )
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert errors == (
        "visual-td3 carla-emulator: ignored: -RenderOffScreen, -quality-level=Low, -nosound, -benchmark, -fps=20, "
        "-map=Town02 (did you mean --map=Town02?)\n"
    )


def test_realtime_slows_synchronous_ticks_to_the_clock():
    with EmulatorProcess("train_0", "--realtime") as emulator, WireClient(emulator.port) as client:
        client.synchronous(0.05)
        client.tick()
        begin = time.monotonic()
        client.tick(20)
        assert time.monotonic() - begin >= 0.9  # a busy machine is slower, and the server does not catch up


def test_neither_carlas_client_nor_a_trainer_is_imported():
    code = (
        "import sys; import sb3_visual_td3.envs.carla_emulator.command; "
        "print(sorted({'carla', 'torch', 'stable_baselines3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_thousands_of_ticks_and_actors_leak_nothing(client, emulator):
    def episode(n_ticks):
        car, camera, stream = camera_on_a_car(client)
        client.call("apply_control_to_vehicle", car, [0.4, 0.1, 0.0, False, False, False, 0])
        for _ in range(n_ticks):
            frame = client.tick()
            while stream.next()[1] < frame:
                pass
        stream.close()
        client.call("destroy_actor", camera)
        client.call("destroy_actor", car)
        client.tick()

    for _ in range(3):
        episode(100)
    before = emulator.control.status()
    for _ in range(15):
        episode(200)
    after = emulator.control.status()
    assert after["frame"] - before["frame"] >= 3000
    assert after["n_file_descriptors"] == before["n_file_descriptors"]
    assert after["n_actors"] == 0
    assert after["rss_mb"] < before["rss_mb"] * 1.02


def shortest_tick_s(client):
    """Return the duration of the shortest of twenty ticks.

    On a busy machine, some ticks take longer than the limit of the test.
    """
    durations = []
    for _ in range(20):
        begin = time.monotonic()
        client.tick()
        durations.append(time.monotonic() - begin)
    return min(durations)


def ask_forever(client):
    while True:
        client.call("version")


class TestFaults:
    """Test the faults that ``--fault`` or ``EmulatorControl.fault`` causes."""

    def test_hang_ends_after_its_seconds(self, client, emulator):
        emulator.control.fault("hang", 0.5)
        begin = time.monotonic()
        client.tick()
        assert time.monotonic() - begin >= 0.5
        assert shortest_tick_s(client) < 0.5

    def test_endless_hang_answers_no_call(self, own_emulator):
        own_emulator.control.fault("hang")
        with WireClient(own_emulator.port) as other:
            other._socket.settimeout(0.5)
            with pytest.raises(TimeoutError):
                ask_forever(other)  # it hangs from the next tick on, and answers before

    def test_die_ends_the_process_at_once(self, own_emulator):
        own_emulator.control.fault("die")
        assert own_emulator._process.wait(TIMEOUT_S) == 1

    def test_die_at_a_tick(self):
        with EmulatorProcess("train_0", "--fault", "die@10") as emulator, WireClient(emulator.port) as client:
            client.synchronous()
            with pytest.raises((ConnectionError, OSError)):
                client.tick(20)
            assert emulator._process.wait(TIMEOUT_S) == 1

    def test_frames_are_dropped(self, client, emulator):
        _, _, stream = camera_on_a_car(client)
        emulator.control.fault("drop-frames", 3)
        first = client.tick()
        client.tick(5)
        assert stream.next()[1] == first + 3

    def test_images_are_truncated_between_pixels(self, client, emulator):
        _, _, stream = camera_on_a_car(client)
        emulator.control.fault("truncate-images", 1)
        client.tick(2)
        short, whole = (len(stream.next()[4]) for _ in range(2))
        assert whole == 12 + 84 * 84 * 4
        assert short < whole
        assert (short - 12) % 4 == 0

    def test_spawns_are_refused_from_the_start(self):
        with EmulatorProcess("train_0", "--fault", "refuse-spawns=2") as emulator, WireClient(emulator.port) as client:
            point = client.spawn_points()[0]
            for _ in range(2):
                with pytest.raises(RuntimeError, match="collision at spawn position"):
                    client.spawn("vehicle.audi.tt", point)
            assert client.spawn("vehicle.audi.tt", point)

    def test_ticks_are_slow(self, client, emulator):
        emulator.control.fault("slow", 0.1)
        begin = time.monotonic()
        client.tick(5)
        assert time.monotonic() - begin >= 0.5
        emulator.control.fault("slow", 0.0)
        assert shortest_tick_s(client) < 0.1

    def test_the_version_is_wrong_from_the_start(self):
        with EmulatorProcess("train_0", "--fault", "wrong-version") as emulator, WireClient(emulator.port) as client:
            assert client.call("version") == "0.9.13"

    def test_unknown_kind_is_refused(self, emulator):
        with pytest.raises(ValueError, match="expected one of hang"):
            emulator.control.fault("boom")

    def test_control_without_an_emulator_raises(self):
        with pytest.raises(OSError, match="refused"):
            EmulatorControl(1).status()


def test_killed_emulator_restarts_on_its_port(own_emulator, map_name):
    emulator = own_emulator
    port = emulator.port
    for _ in range(2):
        emulator.kill()
        with pytest.raises(OSError, match="refused"):
            emulator.control.status()
        emulator.start()
        assert emulator.port == port
        assert emulator.control.status()["map"] == map_name
    assert emulator.stop() == 0
    with pytest.raises(RuntimeError, match="not running"):
        emulator.stop()


def test_ctrl_c_in_the_terminal_does_not_reach_the_emulator(emulator):
    assert os.getpgid(emulator.pid) != os.getpgid(0), "a terminal sends SIGINT to its foreground process group"


def test_failed_start_raises():
    with pytest.raises(RuntimeError, match="did not listen because it ended with exit code 2; see its message above"):
        EmulatorProcess("Atlantis").start()


def test_running_emulator_cannot_be_started_again_but_one_that_has_died_can(own_emulator):
    pid = own_emulator.pid
    with pytest.raises(RuntimeError, match=f"runs already, on port {own_emulator.port}"):
        own_emulator.start()
    assert own_emulator.pid == pid
    own_emulator.control.fault("die")
    assert own_emulator._process.wait(TIMEOUT_S) == 1
    own_emulator.start()
    assert own_emulator.control.status()["frame"] >= 0


def test_traffic_moves_and_brakes_for_an_obstacle():
    with EmulatorProcess("train_0", "--cars", "12", "--seed", "3") as emulator, WireClient(emulator.port) as client:
        client.synchronous()
        stream = world_stream(client)
        before = actors_of(stream.settle(client)[4])
        cars = sorted(before)[1:]  # the first is the spectator
        assert len(cars) == 12
        messages = client.call("get_actors_by_id", cars)
        assert all(["role_name", 4, "autopilot"] in message[2][2] for message in messages)
        for _ in range(100):
            frame = client.tick()
        while (message := stream.next())[1] < frame:
            pass
        now = actors_of(message[4])
        for car in cars:
            moved = np.hypot(now[car][0] - before[car][0], now[car][1] - before[car][1])
            assert moved > 5.0
            assert 2.0 < np.hypot(*now[car][6:8]) < 9.0
        # An obstacle ahead of one of them.
        x, y, _, _, yaw, _ = now[cars[0]][:6]
        ahead = (x + 25.0 * np.cos(np.radians(yaw)), y + 25.0 * np.sin(np.radians(yaw)), 0.5, 0.0, yaw, 0.0)
        obstacle, _ = client.spawn("vehicle.audi.tt", ahead)
        for _ in range(400):
            frame = client.tick()
        while (message := stream.next())[1] < frame:
            pass
        now = actors_of(message[4])
        assert np.hypot(*now[cars[0]][6:8]) < 0.2
        assert 4.4 < np.hypot(now[cars[0]][0] - now[obstacle][0], now[cars[0]][1] - now[obstacle][1]) < 12.0
        for car in cars:
            assert client.call("destroy_actor", car)
        client.tick(3)
        assert emulator.control.status()["n_actors"] == 1
