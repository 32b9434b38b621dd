"""Malformed messages get an error or end their own connection; other clients are not affected."""

import contextlib
import math
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest

from sb3_visual_td3.envs.carla_emulator.calls import Calls
from sb3_visual_td3.envs.carla_emulator.faults import Fault, parse_fault
from sb3_visual_td3.envs.carla_emulator.process import EmulatorControl
from sb3_visual_td3.envs.carla_emulator.protocol import CallReader, packed, shortened
from sb3_visual_td3.envs.carla_emulator.simulation import Simulation
from tests.envs.carla_emulator.wire import TIMEOUT_S, WireClient

NAN, INF = math.nan, math.inf
MOUNT = [[2.0, 0.0, 1.5], [0.0, 0.0, 0.0]]
COMMAND = [sys.executable, "-m", "sb3_visual_td3.envs.carla_emulator", "--port", "0"]

NOT_REQUESTS = {
    "a map with a list as its key": b"\x81\x90\x00",
    "a map with a map as its key": b"\x81\x80\x00",
    "a request that is a map": msgpack.packb({0: 1, "name": 2}),
    "an extension type": b"\xd4\x05\x00",
    "an extension type without bytes": b"\xc7\x00\x05",
    "a timestamp of a wrong size": b"\xc7\x03\xff\x00\x00\x00",
    "a list within a list, two thousand deep": b"\x91" * 2_000,
    "a map within a map, two thousand deep": b"\x81\x01" * 2_000,
    "four billion elements": b"\xdd\xff\xff\xff\xff",
    "a hundred million elements": b"\xdd\x06\x00\x00\x00" * 50,
    "four billion pairs": b"\xdf\xff\xff\xff\xff",
    "text that is not UTF-8 as a message": b"\xa2\xff\xfe",
    "a byte that msgpack does not use": b"\xc1",
    "a number": b"\x07",
    "nothing": b"\xc0",
    "a response": msgpack.packb([1, 1, None, [[1, "0.9.16"]]]),
    "a number for a name": msgpack.packb([0, 1, 2, [[False]]]),
    "no arguments": msgpack.packb([0, 1, "version", []]),
    "a list too few": msgpack.packb([0, 1, "version", [False]]),
    "text for a number": msgpack.packb([0, "1", "version", [[False]]]),
}
OUT_OF_RANGE = [
    ("get_sensor_token", 2**63),
    ("get_sensor_token", 2**32),
    ("get_sensor_token", -1),
    ("get_sensor_token", 1.5),
    ("get_sensor_token", "x"),
    ("get_sensor_token",),
    ("emulator_fault", "hang", "x"),
    ("emulator_fault", "hang", NAN),
    ("emulator_fault", "hang", -1),
    ("emulator_fault", "hang", INF),
    ("emulator_fault", "hang", True),
    ("emulator_fault", "slow", []),
    ("emulator_fault", "drop-frames", 1.5),
    ("emulator_fault", "refuse-spawns", 2**64 - 1),
    ("emulator_fault", "die", 3),
    ("emulator_fault", ["die"]),
    ("emulator_fault", {"die": 1}),
    ("emulator_fault",),
    ("emulator_status", 1),
    ("set_weather_parameters", [INF] * 14),
    ("set_weather_parameters", [1e300] * 14),
    ("set_weather_parameters", ["x"] * 14),
    ("set_weather_parameters", 14),
    ("set_episode_settings", [True, False, [True, 1e300]]),
    ("set_episode_settings", [True, False, [True, NAN]]),
    ("set_episode_settings", [True, False, [True, "x"]]),
    ("set_episode_settings", [True]),
    ("set_actor_transform", 1, [[1e300, 0, 0], [0, 0, 0]]),
    ("set_actor_transform", 1, [["x", 0, 0], [0, 0, 0]]),
    ("set_actor_transform", 1, [[0, 0, 0], [INF, 0, 0]]),
    ("set_actor_transform", [], MOUNT),
    ("set_actor_location", 1, [0, 0]),
    ("set_actor_target_velocity", 1, [1e300, 0, 0]),
    ("spawn_actor", [1, "vehicle.audi.tt", []], [[1e39, 0, 0], [0, 0, 0]]),
    ("spawn_actor", [1, "vehicle.audi.tt", [["color", 5, "red"]]], MOUNT),
    ("spawn_actor", [1, "vehicle.audi.tt", [["color", 5, 255]]], MOUNT),
    ("spawn_actor", [1, "vehicle.audi.tt", [1]], MOUNT),
    ("spawn_actor", [1, ["vehicle.audi.tt"], []], MOUNT),
    ("spawn_actor", ["1", "vehicle.audi.tt", []], MOUNT),
    ("spawn_actor", [1, "sensor.camera.rgb", [["image_size_x", 2, "1000000000"]]], MOUNT),
    ("spawn_actor", [1, "sensor.camera.rgb", [["image_size_x", 2, "8192"], ["image_size_y", 2, "8192"]]], MOUNT),
    ("spawn_actor", [1, "sensor.camera.rgb", [["image_size_x", 2, "0"]]], MOUNT),
    ("spawn_actor", [1, "sensor.camera.rgb", [["fov", 3, "wide"]]], MOUNT),
    ("spawn_actor", [1, "sensor.camera.rgb", [["sensor_tick", 3, "nan"]]], MOUNT),
    ("spawn_actor", [1, "sensor.lidar.ray_cast", [["channels", 2, "0"]]], MOUNT),
    ("spawn_actor", [1, "sensor.lidar.ray_cast", [["points_per_second", 2, "1e99"]]], MOUNT),
    ("spawn_actor_with_parent", [1, "sensor.camera.rgb", []], MOUNT, [1], 0, ""),
    ("load_new_episode", 2**63, True),
    ("load_new_episode", ["train_0"], True),
    ("project_point", [0, 0, "x"], [0, 0, -1], 10.0),
    ("get_actors_by_id", [[1], {}]),
    ("apply_batch", [[[0, [[1, "vehicle.audi.tt", []]]]]], False),
    ("apply_batch", [[[[], []]]], False),
    ("apply_batch", [1], False),
    ("x" * 100_000,),
]


def is_closed(connection, wait_s=TIMEOUT_S):
    connection.settimeout(wait_s)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("data", NOT_REQUESTS.values(), ids=NOT_REQUESTS)
def test_message_that_is_not_a_request_closes_only_its_own_connection(client, emulator, data):
    with socket.create_connection(("127.0.0.1", emulator.port)) as other:
        other.sendall(data)
        assert is_closed(other)
    client.tick()


@pytest.mark.parametrize("call", OUT_OF_RANGE, ids=lambda call: f"{call[0][:30]}{str(call[1:])[:60]}")
def test_arguments_out_of_range_are_answered_with_an_error(client, call):
    name, *arguments = call
    status = client.raw(name, *arguments)[3][0][0]
    assert status in (0, True) or status[0] == 0
    frame = client.tick()
    assert client.tick() == frame + 1


def test_half_a_message_blocks_no_other_client_and_can_be_completed(client, emulator):
    request = msgpack.packb([0, 5, "version", [[False]]])
    with socket.create_connection(("127.0.0.1", emulator.port)) as other:
        for part in (request[:3], request[3:9]):
            other.sendall(part)
            client.tick()
        other.sendall(request[9:])
        assert msgpack.unpackb(other.recv(100)) == [1, 5, None, [[1, "0.9.16"]]]
    with socket.create_connection(("127.0.0.1", emulator.port)) as other:
        other.sendall(request[:-1])
    client.tick()


@pytest.mark.parametrize("head", [b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc6\x00\xf0\x00\x00"])
def test_endless_message_ends_its_connection(client, emulator, head):
    with socket.create_connection(("127.0.0.1", emulator.port)) as other, contextlib.suppress(ConnectionError):
        other.sendall(b"\x94\x00\x01" + head)
        client.tick()
        other.sendall(bytes(40_000_000))
    client.tick()
    assert emulator.control.status()["rss_mb"] < 600.0


def junk(rng, depth=0):
    """Return a random value that msgpack can encode."""
    kind = rng.randrange(14 if depth < 4 else 11)
    if kind >= 11:
        if kind == 13:
            return {rng.choice(["a", 1, 2.5, b"x"]): junk(rng, depth + 1) for _ in range(rng.randrange(4))}
        return [junk(rng, depth + 1) for _ in range(rng.randrange(9))]
    return (
        None,
        rng.random() < 0.5,
        rng.randrange(8),
        rng.choice([2**63, 2**64 - 1, -(2**63), 2**31, -1]),
        rng.uniform(-100.0, 100.0),
        rng.choice([NAN, INF, -INF, 1e308, 1e-308, 3.5e38]),
        rng.choice(["vehicle.audi.tt", "sensor.camera.rgb", "walker.pedestrian.0001", "train_0", "", "\udcff\x00"]),
        bytes(rng.randrange(30)),
        msgpack.ExtType(rng.randrange(128), b"xyz"),
        msgpack.Timestamp(rng.randrange(2**34), 5),
        rng.choice(["slow", "drop-frames", "truncate-images", "refuse-spawns"]),
    )[kind]


def test_thousands_of_random_calls_are_answered_and_the_clock_runs(emulator, map_name):
    rng = random.Random(0)
    names = [*Calls(Simulation("train_0", _NoStreams(), 1), _NoStreams(), 1)._handlers, "apply_batch", "coffee"]
    places = [MOUNT, [[0.0, 0.0, 30.0], [0.0, 0.0, 0.0]]]
    with WireClient(emulator.port) as client:
        client._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, unicode_errors="surrogateescape")
        car, _ = client.spawn("vehicle.audi.tt", client.spawn_points()[0])
        for _ in range(4_000):
            arguments = [junk(rng) for _ in range(rng.randrange(6))]
            if arguments and rng.random() < 0.5:
                arguments[0] = rng.choice([1, car, [1, "vehicle.audi.tt", []], [[[6, [car, junk(rng)]]]]])
            if len(arguments) > 1 and rng.random() < 0.3:
                arguments[1] = rng.choice(places)
            name = rng.choice(names)
            client._number += 1
            client._socket.sendall(packed([0, client._number, name, [[False], *arguments]]))
            response = next_response(client)
            assert response[:3] == [1, client._number, None], (name, arguments)
        client.call("load_new_episode", map_name, True, 65_535)
        client.call("emulator_fault", "slow", 0.0)
        client.call("emulator_fault", "refuse-spawns", 0)
        before = emulator.control.status()["frame"]
        deadline = time.monotonic() + TIMEOUT_S
        while emulator.control.status()["frame"] <= before + 2:  # asynchronous mode: it ticks by itself again
            assert time.monotonic() < deadline


class _NoStreams:
    def keep(self, *_):
        pass

    def end(self, *_):
        pass


def next_response(client):
    while True:
        for response in client._unpacker:
            return response
        received = client._socket.recv(65_536)
        assert received, "the connection was closed"
        client._unpacker.feed(received)


def test_random_bytes_do_not_affect_other_connections(client, emulator):
    rng = random.Random(1)
    request = msgpack.packb([0, 1, "spawn_actor", [[False], [1, "vehicle.audi.tt", [["color", 5, "1,2,3"]]], MOUNT]])
    for _ in range(300):
        data = bytearray(request)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        for port in (emulator.port, emulator.port + 1):
            with socket.create_connection(("127.0.0.1", port)) as other:
                other.sendall(data[: rng.randrange(1, len(data) + 1)])
    client.tick(2)


def test_text_that_is_not_utf_8_comes_back_unchanged(client):
    client._unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape")
    description = [1, "vehicle.audi.tt", [["role_name", 4, "\udcff"]]]
    place = [list(client.spawn_points()[3][:3]), [0.0, 0.0, 0.0]]
    client._number += 1
    client._socket.sendall(packed([0, client._number, "spawn_actor", [[False], description, place]]))
    assert next_response(client)[3][0][1][2] == description
    client.tick()


def test_depth_of_attachment_is_limited(client):
    carrier, _ = client.spawn("vehicle.audi.tt", client.spawn_points()[1])
    for _ in range(15):
        carrier, _ = client.spawn("sensor.other.imu", (0.0,) * 6, carrier)
    with pytest.raises(RuntimeError, match="attached in a chain"):
        client.spawn("sensor.other.imu", (0.0,) * 6, carrier)
    client.tick()


class TestConnections:
    @pytest.mark.slow
    def test_more_than_a_thousand_connections_are_served(self, client, emulator):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 3_000:
            pytest.skip("the system allows fewer descriptors than this test opens")
        resource.setrlimit(resource.RLIMIT_NOFILE, (3_000, hard))
        try:
            with contextlib.ExitStack() as stack:
                for _ in range(1_200):
                    last = socket.create_connection(("127.0.0.1", emulator.port), timeout=TIMEOUT_S)
                    stack.enter_context(last)
                last.sendall(msgpack.packb([0, 5, "version", [[False]]]))
                assert msgpack.unpackb(last.recv(100)) == [1, 5, None, [[1, "0.9.16"]]]
                client.tick()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert client.call("version") == "0.9.16"

    def test_surplus_connection_is_refused_and_the_others_continue(self, tmp_path):
        command = ["sh", "-c", f"ulimit -n 40; exec {' '.join(COMMAND)}"]
        log = tmp_path / "stderr"
        with (
            log.open("w") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
        ):
            try:
                port = int(server.stdout.readline().split("127.0.0.1:")[1].split()[0])
                with WireClient(port) as client, contextlib.ExitStack() as stack:
                    client.synchronous()
                    others = [
                        stack.enter_context(socket.create_connection(("127.0.0.1", port + n % 2))) for n in range(80)
                    ]
                    client.tick(3)
                    assert is_closed(others[-1])
                    assert is_closed(others[-2])
                    others[0].sendall(msgpack.packb([0, 5, "version", [[False]]]))
                    assert msgpack.unpackb(others[0].recv(100)) == [1, 5, None, [[1, "0.9.16"]]]
                    before = cpu_s(server.pid)
                    time.sleep(0.5)
                    assert cpu_s(server.pid) - before < 0.2, "the server does not spin"
                deadline = time.monotonic() + TIMEOUT_S
                while EmulatorControl(port).status()["n_clients"] > 1:
                    assert time.monotonic() < deadline
                assert server.poll() is None
                assert "refused a connection: [Errno 24] Too many open files" in log.read_text()
            finally:
                server.kill()

    def test_connection_reset_before_accept_is_harmless(self, client, emulator):
        for port in (emulator.port, emulator.port + 1):
            for _ in range(50):
                with socket.create_connection(("127.0.0.1", port)) as other:
                    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.tick()


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100.0


def test_console_reports_errors_at_a_limited_rate(tmp_path):
    log = tmp_path / "stderr"
    with (
        log.open("w") as errors,
        subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            port = int(server.stdout.readline().split("127.0.0.1:")[1].split()[0])
            with socket.create_connection(("127.0.0.1", port)) as other:
                other.sendall(b"\x81\x90\x00")
                assert is_closed(other)
            with WireClient(port) as client:
                for _ in range(500):
                    client.raw("get_actors_by_id", 3)
        finally:
            server.kill()
    lines = log.read_text().splitlines()
    assert lines[0].startswith("carla-emulator: closed a connection: ValueError: not a request")
    assert lines[1].startswith("carla-emulator: get_actors_by_id[3]: TypeError")
    assert 90 < len(lines) < 400


def test_debug_prints_the_traceback_of_a_failed_call(tmp_path):
    log = tmp_path / "stderr"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            COMMAND, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "VISUAL_TD3_DEBUG": "1"}
        ) as server,
    ):
        try:
            port = int(server.stdout.readline().split("127.0.0.1:")[1].split()[0])
            with WireClient(port) as client:
                client.raw("get_actors_by_id", 3)
        finally:
            server.kill()
    lines = log.read_text().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any("calls.py" in line for line in lines)
    assert lines[-1].startswith("carla-emulator: get_actors_by_id[3]: TypeError")


def test_closed_console_does_not_stop_the_server():
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline().split("127.0.0.1:")[1].split()[0])
            server.stderr.close()
            with WireClient(port) as client:
                client.raw("make_coffee")
                assert client.call("version") == "0.9.16"
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("kind", "amount"),
    [
        ("hang", "x"),
        ("hang", NAN),
        ("hang", -0.1),
        ("hang", 10**400),
        ("slow", True),
        ("drop-frames", 0.5),
        ("die", 1),
        ("wrong-version", 2),
        (["hang"], None),
        (None, None),
    ],
)
def test_fault_with_invalid_arguments_is_refused_where_it_is_set(kind, amount):
    with pytest.raises(ValueError, match="fault"):
        EmulatorControl(1).fault(kind, amount)
    with pytest.raises(ValueError, match="fault"):
        Simulation("train_0", _NoStreams(), 1, [Fault(kind, 5, False, amount)])


@pytest.mark.parametrize("text", ["die=3@5", "wrong-version=1", "drop-frames=1.5", f"hang={'9' * 400}@3", "slow=1e9"])
def test_fault_with_invalid_amount_is_refused_on_the_command_line(text):
    with pytest.raises(ValueError, match=r"expected|takes no amount; leave it out"):
        parse_fault(text)


def test_shortened_describes_any_object_in_one_short_ascii_line():
    deep = []
    for _ in range(5_000):
        deep = [deep]
    things = [deep, "x" * 10**6, list(range(10**5)), "\udcff\u2028\n", np.zeros((3, 3))]
    things += [ValueError(text) for text in ("y" * 10**6, "\U0001f600" * 99, "a\nb", "a\r\u2028\x85b\n")]
    for thing in things:
        text = shortened(thing)
        assert 0 < len(text) <= 160
        assert text.isascii()
        assert text.splitlines() == [text]
    assert shortened(ValueError("a\nb")) == "ValueError: a b"
    assert shortened("a\nb") == r"'a\nb'"


def test_reading_no_bytes_yields_no_call():
    assert list(CallReader().read(b"")) == []
