"""A connection carries what was sent; a client without the key is refused; a lost peer is noticed."""

import pickle
import socket
import threading
import time
from contextlib import ExitStack, suppress

import numpy as np
import pytest

from sb3_visual_td3.vec_env import connection
from sb3_visual_td3.vec_env.connection import (
    Address,
    Connection,
    ConnectionLostError,
    Listener,
    connect,
    wait_for_messages,
)

LOOPBACK = "127.0.0.1"


@pytest.fixture
def cleanup():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def ends(cleanup):
    """Both ends of a connection."""
    listener = Listener(LOOPBACK)
    ours = Connection(connect(listener.address))
    theirs = listener.accept()
    cleanup.callback(ours.close)
    cleanup.callback(theirs.close)
    return ours, theirs


def accepted_later(listener, cleanup):
    """Accept in a thread; the function that is returned waits for the connection."""
    found = []
    thread = threading.Thread(target=lambda: found.append(listener.accept()))
    thread.start()

    def accepted():
        thread.join(20.0)
        cleanup.callback(found[0].close)
        return found[0]

    return accepted


def wait_until_closed(port):
    """Wait until no process listens at a port."""
    for _ in range(3_000):
        try:
            socket.create_connection((LOOPBACK, port), 60.0).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.02)
    raise AssertionError(f"a process still listens at {port}")


@pytest.mark.parametrize("shape", [(), (3,), (4, 84, 84), (3, 320, 240), (12, 640, 480)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_arrays_arrive_as_they_were_and_can_be_written_to(shape, dtype, ends):
    ours, theirs = ends
    sent = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    thread = threading.Thread(target=theirs.send, args=({"a": sent, "b": (sent, 1.5)},))
    thread.start()
    received = ours.receive()
    thread.join()
    for array in (received["a"], received["b"][0]):
        assert array.dtype == sent.dtype
        assert array.shape == sent.shape
        assert np.array_equal(array, sent)
        assert array.flags.writeable
    assert received["b"][1] == 1.5


def test_arrays_that_are_not_contiguous_arrive(ends):
    ours, theirs = ends
    sent = np.arange(400_000).reshape(2, 1_000, 200)[:, ::2, ::-1]
    thread = threading.Thread(target=theirs.send, args=([sent, np.asfortranarray(sent[0])],))
    thread.start()
    received = ours.receive()
    thread.join()
    assert np.array_equal(received[0], sent)
    assert np.array_equal(received[1], sent[0])


def test_local_classes_and_functions_arrive(ends):
    class Local:
        def __init__(self):
            self.array = np.ones(100_000)

    ours, theirs = ends
    thread = threading.Thread(target=ours.send, args=([np.zeros(100_000), Local(), lambda x: x + 1],))
    thread.start()
    before, thing, function = theirs.receive()
    thread.join()
    assert before.sum() == 0
    assert thing.array.sum() == 100_000
    assert function(1) == 2


def test_many_messages_keep_their_order(ends):
    ours, theirs = ends
    for number in range(200):
        ours.send((number, b"x" * number))
    assert [theirs.receive()[0] for _ in range(200)] == list(range(200))


def send_forever(end):
    while True:
        end.send(None)


def test_a_connection_closed_by_the_other_side_is_lost(ends):
    ours, theirs = ends
    assert not ours.poll()
    theirs.close()
    theirs.close()
    assert ours.poll()
    with pytest.raises(ConnectionLostError, match="the other side has closed the connection"):
        ours.receive()
    with pytest.raises(ConnectionLostError):
        send_forever(ours)  # the first message goes into a buffer, and comes back as a refusal


def test_a_message_that_is_cut_off_is_a_lost_connection(ends):
    ours, theirs = ends
    theirs._connection.send_bytes(pickle.dumps(([100_000], b"")))
    theirs.close()
    with pytest.raises(ConnectionLostError):
        ours.receive()


def test_waiting_returns_the_connections_with_messages(cleanup):
    pairs = []
    for _ in range(3):
        listener = Listener(LOOPBACK)
        pairs.append((Connection(connect(listener.address)), listener.accept()))
    for pair in pairs:
        for end in pair:
            cleanup.callback(end.close)
    ours = [pair[0] for pair in pairs]
    begin = time.monotonic()
    assert wait_for_messages(ours, 0.1) == []
    assert time.monotonic() - begin >= 0.09
    pairs[1][1].send("hello")
    assert wait_for_messages(ours, 60.0) == [ours[1]]
    assert ours[1].receive() == "hello"
    pairs[2][1].close()
    assert wait_for_messages(ours, 60.0) == [ours[2]]


def test_a_listener_binds_the_given_address_and_closes_after_one_client(cleanup):
    listener = Listener(LOOPBACK)
    assert listener.address.host == LOOPBACK
    cleanup.callback(Connection(connect(listener.address)).close)
    cleanup.callback(listener.accept().close)
    wait_until_closed(listener.address.port)


@pytest.mark.parametrize("said", [b"", b"x", b"k" * 32, b"k" * 64, None])
def test_a_client_without_the_key_is_refused_and_the_learner_accepted(said, cleanup, monkeypatch):
    monkeypatch.setattr(connection, "_KEY_TIMEOUT_S", 1.0)
    listener = Listener(LOOPBACK)
    accepted = accepted_later(listener, cleanup)
    with socket.create_connection(listener.address[:2], 60.0) as stranger:
        if said is not None:
            stranger.sendall(said)
        if said == b"":
            stranger.shutdown(socket.SHUT_WR)
        ours = Connection(connect(listener.address))
        cleanup.callback(ours.close)
        theirs = accepted()
        with suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    theirs.send("welcome")
    assert ours.receive() == "welcome"


def test_each_listener_has_its_own_key(cleanup):
    listeners = [Listener(LOOPBACK) for _ in range(2)]
    assert len({listener.address.key for listener in listeners}) == 2
    assert {len(listener.address.key) for listener in listeners} == {32}
    for listener in listeners:
        listener.close()
        listener.close()


def test_a_listener_without_a_client_closes_after_its_timeout(monkeypatch):
    monkeypatch.setattr(connection, "_ACCEPT_TIMEOUT_S", 0.1)
    listener = Listener(LOOPBACK)
    with pytest.raises(ConnectionLostError, match=rf"no client connected to {LOOPBACK}:{listener.address.port}"):
        listener.accept()
    wait_until_closed(listener.address.port)


def test_a_listener_refuses_the_address_of_another_machine():
    with pytest.raises(OSError, match=r"192\.0\.2\.1|assign"):
        Listener("192.0.2.1")


def test_a_machine_that_does_not_exist_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(connection, "_CONNECT_TIMEOUT_S", 0.2)
    with pytest.raises(OSError, match=r"."):
        connect(Address("192.0.2.1", 9, b"k" * 32))  # an address reserved for documentation: no machine has it
    listener = Listener(LOOPBACK)
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        connect(listener.address)
