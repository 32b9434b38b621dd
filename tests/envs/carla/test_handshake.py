"""What is found on a port before CARLA's client may go there: no client is needed for this."""

import socket
import threading
import time

import msgpack
import pytest

from sb3_visual_td3.envs.carla.failures import SimulatorLostError, SimulatorUnusableError
from sb3_visual_td3.envs.carla.handshake import check_version, server_version, wait_for_server


@pytest.fixture
def listener():
    """Make a server that answers whatever is asked with these bytes; None: never."""
    sockets = []

    def listen(answer):
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                sockets.append(connection)
                connection.recv(1000)
                if answer is not None:
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    yield listen
    for each in sockets:
        each.close()


def says(version):
    return msgpack.packb([1, 1, None, [[1, version]]])


def test_a_carla_server_says_its_version(listener):
    assert server_version("127.0.0.1", listener(says("0.9.16")), 2.0) == "0.9.16"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
        b"\xc1\xff\xfe\x00" * 20,
        b"\xd9\x05\xff\xff\xff\xff\xff",
        msgpack.packb([1, 1, "error", None]),
        msgpack.packb([1, 2, None, [[1, "0.9.16"]]]),
        msgpack.packb({"jsonrpc": "2.0"}),
    ],
)
def test_what_speaks_something_else_is_refused_at_once(listener, answer):
    begin = time.monotonic()
    with pytest.raises(SimulatorUnusableError, match="does not speak CARLA's protocol"):
        server_version("127.0.0.1", listener(answer), 5.0)
    assert time.monotonic() - begin < 2.0


def test_a_server_that_never_answers_is_given_up_in_time(listener):
    begin = time.monotonic()
    with pytest.raises(SimulatorLostError, match=r"does not answer within 0.3 s.*timeout_s"):
        server_version("127.0.0.1", listener(None), 0.3)
    assert time.monotonic() - begin < 1.5


def test_nothing_there_names_both_ways_to_start_something():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SimulatorLostError, match=f"nothing listens on 127.0.0.1:{port}.*carla-emulator --port {port}"):
        server_version("127.0.0.1", port, 1.0)


def test_an_unknown_host_is_named():
    with pytest.raises(SimulatorUnusableError, match="there is no such host"):
        server_version("no.such.host.invalid", 2000, 1.0)


@pytest.mark.parametrize("version", ["0.9.16", "0.9.16-dirty", "0.9.16-12-gabcdef"])
def test_the_same_version_fits(version):
    check_version(version, "127.0.0.1", 2000)


@pytest.mark.parametrize("version", ["0.9.15", "0.9.1", "0.10.0", "", "1.9.16"])
def test_another_version_is_refused_with_the_one_that_is_needed(version):
    with pytest.raises(SimulatorUnusableError, match=r"start CARLA 0\.9\.16"):
        check_version(version, "127.0.0.1", 2000)


def test_a_server_that_starts_is_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]

    def serve_later():
        time.sleep(0.4)
        with socket.create_server(("127.0.0.1", port)) as server:
            connection, _ = server.accept()
            connection.recv(100)
            connection.sendall(says("0.9.16"))

    threading.Thread(target=serve_later, daemon=True).start()
    with pytest.raises(SimulatorLostError):
        wait_for_server("127.0.0.1", port, 5.0, is_starting=False)
    assert wait_for_server("127.0.0.1", port, 5.0, is_starting=True) == "0.9.16"


def test_waiting_ends_when_the_simulator_has_ended():
    def has_ended():
        raise SimulatorLostError("it ended with exit code 3")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(SimulatorLostError, match="exit code 3"):
        wait_for_server("127.0.0.1", port, 30.0, is_starting=True, check=has_ended)
    assert time.monotonic() - begin < 2.0
