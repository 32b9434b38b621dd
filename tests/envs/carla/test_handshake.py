"""The probe of a port before CARLA's client connects: no client is needed here."""

import socket
import struct
import threading
import time

import msgpack
import pytest

from sb3_visual_td3.envs.carla import server
from sb3_visual_td3.envs.carla.failures import SimulatorAbsentError, SimulatorLostError, SimulatorUnusableError
from sb3_visual_td3.envs.carla.server import check_version, server_version, wait_for_server

RESET = "reset"


@pytest.fixture
def listener():
    """Return a function that starts a server with the given answers and returns its port.

    The server gives one answer to each connection, and repeats the last answer for all later connections. An answer is
    one of these:

    - bytes: the server sends the bytes and closes the connection.
    - a list with bytes: the server sends the bytes and keeps the connection open.
    - None: the server sends nothing and keeps the connection open.
    - ``RESET``: the server resets the connection.
    """
    sockets = []

    def listen(*answers):
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)
        left = list(answers)

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                sockets.append(connection)
                connection.recv(1000)
                answer = left.pop(0) if len(left) > 1 else left[0]
                if answer == RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()
                elif isinstance(answer, bytes):
                    connection.sendall(answer)
                    connection.close()
                elif answer is not None:
                    connection.sendall(answer[0])

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    yield listen
    for each in sockets:
        each.close()


def says(version):
    return msgpack.packb([1, 1, None, [[1, version]]])


def test_carla_server_returns_its_version(listener):
    assert server_version("127.0.0.1", listener(says("0.9.16")), 60.0) == "0.9.16"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\xc1\xff\xfe\x00" * 20,
        b"\xd9\x05\xff\xff\xff\xff\xff",
        msgpack.packb([1, 1, "error", None]),
        msgpack.packb([1, 2, None, [[1, "0.9.16"]]]),
        msgpack.packb({"jsonrpc": "2.0"}),
        b"\x81\x90\x00",  # a map with a list as its key
        b"\x94\x00\x01",  # half a request
        b"\x94\x01\x02",  # half a response to another call
        b"\x93\x01\x01\xc0",
        [b"\x94\x02"],  # a wrong start is refused without waiting for the rest
        [b"\xdb\xff\xff\xff\xff"],
        [b"\xdc\x00\x04\x01\x01\xc0" + b"\x91" * 20],
    ],
)
def test_other_protocol_is_refused_at_once(listener, answer):
    begin = time.monotonic()
    with pytest.raises(SimulatorUnusableError, match="does not speak CARLA's protocol"):
        server_version("127.0.0.1", listener(answer), 600.0)
    assert time.monotonic() - begin < 120.0


@pytest.mark.parametrize("answer", [RESET, *(says("0.9.16")[:n] for n in range(len(says("0.9.16"))))])
def test_server_that_dies_before_answering_raises_simulator_lost_error(listener, answer):
    with pytest.raises(SimulatorLostError, match="closed the connection before it answered") as caught:
        server_version("127.0.0.1", listener(answer), 60.0)
    assert not isinstance(caught.value, SimulatorAbsentError)


def test_incomplete_response_times_out(listener):
    with pytest.raises(SimulatorLostError, match=r"does not answer within 0.2 s"):
        server_version("127.0.0.1", listener([says("0.9.16")[:-1]]), 0.2)


def test_response_may_arrive_in_pieces(listener):
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in says("0.9.16"):
            connection.sendall(bytes([number]))

    threading.Thread(target=serve, daemon=True).start()
    with server:
        assert server_version("127.0.0.1", server.getsockname()[1], 60.0) == "0.9.16"


def test_connection_to_itself_counts_as_nothing_listening(monkeypatch):
    """TCP connects a port to itself if the client happens to get the port that it connects to."""

    def connect(_address, timeout):
        itself = socket.socket()
        itself.bind(("127.0.0.1", 0))
        itself.connect(itself.getsockname())
        return itself

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(SimulatorAbsentError, match="nothing listens"):
        server_version("127.0.0.1", 2000, 1.0)


def test_starting_server_is_probed_again(listener, monkeypatch):
    monkeypatch.setattr(server, "_MAX_PROBE_S", 1.0)
    port = listener(b"", RESET, b"\x94\x01", None, [b"\x94"], b"", says("0.9.16"))
    assert wait_for_server("127.0.0.1", port, 300.0, is_starting=True) == "0.9.16"


def test_other_protocol_ends_the_wait_for_a_starting_server(listener):
    port = listener(b"", RESET, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(SimulatorUnusableError, match="does not speak CARLA's protocol"):
        wait_for_server("127.0.0.1", port, 60.0, is_starting=True)


def test_silent_server_times_out(listener):
    begin = time.monotonic()
    with pytest.raises(SimulatorLostError, match=r"does not answer within 0.3 s.*timeout_s"):
        server_version("127.0.0.1", listener(None), 0.3)
    assert time.monotonic() - begin < 120.0


def test_error_without_a_server_names_both_ways_to_start_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SimulatorLostError, match=f"nothing listens on 127.0.0.1:{port}.*carla-emulator --port {port}"):
        server_version("127.0.0.1", port, 1.0)


def test_unknown_host_is_named():
    with pytest.raises(SimulatorUnusableError, match="there is no such host"):
        server_version("no.such.host.invalid", 2000, 1.0)


@pytest.mark.parametrize("version", ["0.9.16", "0.9.16-dirty", "0.9.16-12-gabcdef"])
def test_same_version_is_accepted(version):
    check_version(version, "127.0.0.1", 2000)


@pytest.mark.parametrize("version", ["0.9.15", "0.9.1", "0.10.0", "", "1.9.16"])
def test_other_version_is_refused_and_the_needed_one_named(version):
    with pytest.raises(SimulatorUnusableError, match=r"start CARLA 0\.9\.16"):
        check_version(version, "127.0.0.1", 2000)


@pytest.mark.parametrize("client", ["0.9.13", "0.9.14", "0.9.15"])
def test_the_client_that_is_installed_decides_which_server_fits(client, monkeypatch, caplog):
    monkeypatch.setattr(server, "_reported", set())
    monkeypatch.setattr(server.metadata, "version", lambda name: {"carla": client}[name])
    check_version(client, "127.0.0.1", 2000)
    check_version(f"{client}-dirty", "127.0.0.1", 2000)
    fits = f"CARLA's client {client} fits servers of version {client} only. This package was tested with 0.9.16"
    assert caplog.messages == [fits], "said once"
    with pytest.raises(SimulatorUnusableError, match=rf"start CARLA {client}, or install.*pip install carla==0\.9\.16"):
        check_version("0.9.16", "127.0.0.1", 2000)
    with pytest.raises(SimulatorUnusableError, match=rf"start CARLA {client}$"):
        check_version("0.10.0", "127.0.0.1", 2000)


@pytest.mark.parametrize("client", ["0.9.12", "0.9.5", "0.10.0", "1.0.0"])
def test_a_client_of_an_unsupported_version_is_refused(client, monkeypatch):
    monkeypatch.setattr(server.metadata, "version", lambda _: client)
    with pytest.raises(SimulatorUnusableError, match=f"client {client} is installed: expected 0.9.13 to 0.9.16"):
        check_version(client, "127.0.0.1", 2000)


def test_a_client_without_metadata_is_taken_for_the_tested_one(monkeypatch):
    def unknown(_):
        raise server.metadata.PackageNotFoundError

    monkeypatch.setattr(server.metadata, "version", unknown)
    check_version("0.9.16", "127.0.0.1", 2000)


def test_starting_server_is_awaited():
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]

    def serve_later():
        time.sleep(0.4)
        with socket.create_server(("127.0.0.1", port)) as server:
            connection, _ = server.accept()
            connection.recv(100)
            connection.sendall(says("0.9.16"))

    with pytest.raises(SimulatorLostError):
        wait_for_server("127.0.0.1", port, 60.0, is_starting=False)
    threading.Thread(target=serve_later, daemon=True).start()
    assert wait_for_server("127.0.0.1", port, 60.0, is_starting=True) == "0.9.16"


def test_waiting_for_the_server_stops_when_the_simulator_has_exited():
    def has_ended():
        raise SimulatorLostError("it ended with exit code 3")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(SimulatorLostError, match="exit code 3"):
        wait_for_server("127.0.0.1", port, 600.0, is_starting=True, check=has_ended)
    assert time.monotonic() - begin < 120.0
