"""What crosses a line is what was sent; who has no key is not let in; who is gone is missed."""

import socket
import threading
import time
from contextlib import ExitStack, suppress

import numpy as np
import pytest

from sb3_visual_td3.vec_env import step_line
from sb3_visual_td3.vec_env.step_line import Address, Door, Line, LineBrokenError, dial, wait_for_news

LOOPBACK = "127.0.0.1"


@pytest.fixture
def cleanup():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def ends(cleanup):
    """Both ends of a line."""
    door = Door(LOOPBACK)
    ours = Line(dial(door.address))
    theirs = door.open()
    cleanup.callback(ours.close)
    cleanup.callback(theirs.close)
    return ours, theirs


def opened_later(door, cleanup):
    """:return: whom a door has let in, as soon as it has"""
    found = []
    thread = threading.Thread(target=lambda: found.append(door.open()))
    thread.start()

    def line():
        thread.join(20.0)
        cleanup.callback(found[0].close)
        return found[0]

    return line


def wait_until_alone(port):
    """Until nobody listens at a port."""
    for _ in range(100):
        try:
            socket.create_connection((LOOPBACK, port), 1.0).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.02)
    raise AssertionError(f"somebody still listens at {port}")


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


def test_arrays_that_do_not_lie_in_one_piece_arrive(ends):
    ours, theirs = ends
    sent = np.arange(400_000).reshape(2, 1_000, 200)[:, ::2, ::-1]
    thread = threading.Thread(target=theirs.send, args=([sent, np.asfortranarray(sent[0])],))
    thread.start()
    received = ours.receive()
    thread.join()
    assert np.array_equal(received[0], sent)
    assert np.array_equal(received[1], sent[0])


def test_what_this_process_alone_knows_arrives(ends):
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


def test_a_line_whose_other_end_is_gone_is_broken(ends):
    ours, theirs = ends
    assert not ours.has_news()
    theirs.close()
    theirs.close()
    assert ours.has_news()
    with pytest.raises(LineBrokenError, match="closed by the other side"):
        ours.receive()
    with suppress(LineBrokenError):
        ours.send(None)  # it goes into a buffer, and comes back as a refusal
    time.sleep(0.1)
    with pytest.raises(LineBrokenError):
        ours.send(None)


def test_a_message_that_breaks_off_is_a_broken_line(ends):
    ours, theirs = ends
    theirs._connection.send_bytes(step_line.pickle.dumps(([100_000], b"")))
    theirs.close()
    with pytest.raises(LineBrokenError):
        ours.receive()


def test_news_are_of_those_who_have_some(cleanup):
    pairs = []
    for _ in range(3):
        door = Door(LOOPBACK)
        pairs.append((Line(dial(door.address)), door.open()))
    for pair in pairs:
        for end in pair:
            cleanup.callback(end.close)
    ours = [pair[0] for pair in pairs]
    begin = time.monotonic()
    assert wait_for_news(ours, 0.1) == []
    assert time.monotonic() - begin >= 0.09
    pairs[1][1].send("hello")
    assert wait_for_news(ours, 10.0) == [ours[1]]
    assert ours[1].receive() == "hello"
    pairs[2][1].close()
    assert wait_for_news(ours, 10.0) == [ours[2]]


def test_a_door_listens_where_it_is_told_and_no_longer_than_it_must(cleanup):
    door = Door(LOOPBACK)
    assert door.address.host == LOOPBACK
    cleanup.callback(Line(dial(door.address)).close)
    cleanup.callback(door.open().close)
    wait_until_alone(door.address.port)


@pytest.mark.parametrize("said", [b"", b"x", b"k" * 32, b"k" * 64, None])
def test_a_stranger_is_sent_away_and_the_learner_let_in(said, cleanup, monkeypatch):
    monkeypatch.setattr(step_line, "_KEY_S", 0.2)
    door = Door(LOOPBACK)
    line = opened_later(door, cleanup)
    with socket.create_connection(door.address[:2], 5.0) as stranger:
        if said is not None:
            stranger.sendall(said)
        if said == b"":
            stranger.shutdown(socket.SHUT_WR)
        ours = Line(dial(door.address))
        cleanup.callback(ours.close)
        theirs = line()
        with suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    theirs.send("welcome")
    assert ours.receive() == "welcome"


def test_no_two_doors_have_the_same_key(cleanup):
    doors = [Door(LOOPBACK) for _ in range(2)]
    assert len({door.address.key for door in doors}) == 2
    assert {len(door.address.key) for door in doors} == {32}
    for door in doors:
        door.shut()
        door.shut()


def test_a_door_to_which_nobody_comes_is_shut(monkeypatch):
    monkeypatch.setattr(step_line, "_ANSWER_S", 0.1)
    door = Door(LOOPBACK)
    with pytest.raises(LineBrokenError, match=rf"nobody came to {LOOPBACK}:{door.address.port}"):
        door.open()
    wait_until_alone(door.address.port)


def test_an_address_of_another_machine_cannot_be_listened_at():
    with pytest.raises(OSError, match=r"192\.0\.2\.1|assign"):
        Door("192.0.2.1")


def test_a_machine_that_is_not_there_is_out_of_reach(monkeypatch):
    monkeypatch.setattr(step_line, "_DIAL_S", 0.2)
    with pytest.raises(OSError, match=r"."):
        dial(Address("192.0.2.1", 9, b"k" * 32))  # an address for documentation: nobody has it
    door = Door(LOOPBACK)
    door.shut()
    with pytest.raises(ConnectionRefusedError):
        dial(door.address)
