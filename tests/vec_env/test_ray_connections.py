"""Test the direct connections for steps, Ray's calls as the fallback, and connections that break."""

import logging
import os
import signal
import socket
import time
from functools import partial

import numpy as np
import psutil
import pytest
from gymnasium import spaces

from sb3_visual_td3.vec_env import connection
from tests.vec_env.envs import CountEnv, SpaceEnv

pytestmark = pytest.mark.ray
ZERO = np.zeros((2, 1), np.float32)


def connections(env):
    return [slot.connection for slot in env._slots]


def cut(broken):
    """Break a connection, as a network failure does."""
    with socket.socket(fileno=os.dup(broken.fileno())) as sock:
        sock.shutdown(socket.SHUT_RDWR)


def assert_restarted(answer, reason):
    observations, rewards, dones, infos = answer
    assert dones.tolist() == [True, False]
    assert observations[0][0] == rewards[0] == 0
    assert infos[0]["invalid_transition"]
    assert infos[0]["simulator_failure"].startswith(reason)
    assert "invalid_transition" not in infos[1]


class SilentConnection:
    """Imitates a connection to a machine that was switched off: no data passes in either direction."""

    is_left = False

    def __init__(self, replaced):
        self.service = replaced.service
        # This connection stays open: if it were closed, the actor would stop serving before the test kills the actor.
        self._replaced = replaced
        self._ends = socket.socketpair()

    def fileno(self):
        return self._ends[0].fileno()

    def send(self, value):
        pass

    def poll(self, timeout_s=0.0):
        time.sleep(timeout_s)
        return False

    leave = close = lambda self: None


class NotANumber:
    """Raises ValueError when it is unpickled."""

    def __reduce__(self):
        return int, ("not a number",)


class StrangeInfoEnv(CountEnv):
    """Returns an info that cannot be unpickled if ``mood`` is "strange"."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.mood == "strange":
            info["said"] = NotANumber()
        return observation, reward, terminated, truncated, info


class LargeEnv(CountEnv):
    """Observations are larger than any socket buffer."""

    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (8_000, 4_000), np.uint8)

    def _observation(self):
        return np.full((8_000, 4_000), self.n, np.uint8)


class CloseFileEnv(CountEnv):
    """Writes the number of steps to the file ``path`` when the environment is closed."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def close(self):
        self.path.write_text(f"{self.n} step")


def make_deaf():
    """Create an environment, and let Ray report a wrong IP address for this machine."""
    import ray

    ray.util.get_node_ip_address = lambda: "192.0.2.1"
    return CountEnv()


def test_a_connection_is_used_for_steps_only(make_vec):
    env = make_vec([CountEnv, CountEnv])
    env.reset()
    assert connections(env) == [None, None]
    env.step(ZERO)
    before = connections(env)
    assert None not in before
    env.step(ZERO)
    assert connections(env) == before
    assert env.get_attr("n", indices=0) == [2]
    assert connections(env) == [None, before[1]]
    env.step(ZERO)
    assert None not in connections(env)
    assert env.reset()[:, 0].tolist() == [0, 0]
    assert connections(env) == [None, None]
    assert env.n_rebuilds == 0


def test_large_observations_arrive_complete_and_writeable(make_vec):
    space = spaces.Box(0, 255, (12, 320, 240), np.uint8)
    env = make_vec([partial(SpaceEnv, space)] * 2)
    env.seed(3)
    env.reset()
    twin = SpaceEnv(space)
    twin.reset(seed=3)
    observations, _, _, _ = env.step(np.zeros((2, 12, 320, 240), np.uint8))
    assert np.array_equal(observations[0], twin.step(None)[0])
    assert observations.flags.writeable


@pytest.mark.parametrize("moment", ["between steps", "within a step"])
def test_an_environment_whose_connection_breaks_is_restarted(moment, make_vec):
    env = make_vec([CountEnv, CountEnv])
    env.reset()
    env.step(ZERO)
    if moment == "within a step":
        env.env_method("__setattr__", "slow_s", 0.5, indices=0)
        env.step_async(ZERO)
        cut(connections(env)[0])
        answer = env.step_wait()
    else:
        cut(connections(env)[0])
        answer = env.step(ZERO)
    assert_restarted(answer, "the connection to it broke")
    assert env.n_rebuilds == 1
    assert env.step(ZERO)[0][:, 0].tolist() == [1, 3]


def test_a_silent_machine_is_replaced_when_ray_reports_its_death(make_vec):
    env = make_vec([CountEnv, CountEnv])
    env.reset()
    env.step(ZERO)
    pid = env.places[0][1]
    env.step(ZERO)
    env._slots[0].connection = SilentConnection(env._slots[0].connection)
    os.kill(pid, signal.SIGKILL)
    begin = time.monotonic()
    assert_restarted(env.step(ZERO), "ActorDiedError")
    assert time.monotonic() - begin < 300.0


def test_without_a_death_notice_a_broken_connection_times_out_early(make_vec, monkeypatch, tmp_path):
    monkeypatch.setattr("sb3_visual_td3.vec_env.env_slot._DEATH_NOTICE_TIMEOUT_S", 0.5)
    env = make_vec([CountEnv, CountEnv])
    env.reset()
    env.set_attr("ends_with", str(tmp_path / "never"), indices=0)
    env.step_async(ZERO)
    cut(connections(env)[0])
    env._slots[0]._attributes.clear()  # the restarted environment must not wait for this file
    # The step of environment 0 never ends.
    assert_restarted(env.step_wait(), "the connection to it broke")


def test_steps_use_rays_calls_if_no_actor_can_be_reached(make_vec, monkeypatch, caplog):
    env = make_vec([CountEnv, CountEnv])
    env.reset()
    actors = [psutil.Process(pid) for _, pid in env.places]

    def n_ports():
        return sum(len([each for each in p.net_connections() if each.status == "LISTEN"]) for p in actors)

    def refuse(address):
        raise TimeoutError("timed out")

    before = n_ports()
    monkeypatch.setattr(connection, "connect", refuse)
    with caplog.at_level(logging.WARNING, "sb3_visual_td3"):
        for n in (1, 2, 3):
            assert env.step(ZERO)[0][:, 0].tolist() == [n, n]
    assert caplog.text.count("so their steps use Ray's slower calls: timed out") == 1
    assert connections(env) == [None, None]
    assert n_ports() == before


def test_steps_use_rays_calls_if_actors_cannot_listen(make_vec, caplog):
    env = make_vec([make_deaf, make_deaf])
    env.reset()
    with caplog.at_level(logging.WARNING, "sb3_visual_td3"):
        for n in (1, 2):
            assert env.step(ZERO)[0][:, 0].tolist() == [n, n]
    assert caplog.text.count("steps use Ray's slower calls") == 1
    assert env.n_rebuilds == 0


def test_one_unreachable_actor_does_not_affect_the_others(make_vec, caplog):
    env = make_vec([CountEnv, make_deaf])
    env.reset()
    for n in (1, 2):
        assert env.step(ZERO)[0][:, 0].tolist() == [n, n]
    assert connections(env)[0] is not None
    assert connections(env)[1] is None


def test_unreachable_actors_are_tried_once(make_vec, monkeypatch):
    env = make_vec([CountEnv, CountEnv])
    env.reset()
    attempts, connect = [], connection.connect

    def refuse_the_first(address):
        attempts.append(address.port)
        if len(attempts) == 1:
            raise TimeoutError("timed out")
        return connect(address)

    monkeypatch.setattr(connection, "connect", refuse_the_first)
    for n in (1, 2, 3):
        assert env.step(ZERO)[0][:, 0].tolist() == [n, n]
    assert len(attempts) == 2
    assert env.get_attr("n") == [3, 3]
    assert env.step(ZERO)[0][:, 0].tolist() == [4, 4]
    assert len(attempts) == 3  # get_attr() closed the other connection, so it is opened again
    assert connections(env)[0] is None
    assert connections(env)[1] is not None


@pytest.mark.parametrize("goes_on_with", ["reset", "step"])
def test_a_learner_interrupted_in_the_middle_of_an_answer_can_continue(goes_on_with, make_vec):
    env = make_vec([CountEnv, CountEnv])
    env.reset()
    env.step(ZERO)

    def interrupt():
        raise KeyboardInterrupt

    connections(env)[0].receive = interrupt
    with pytest.raises(KeyboardInterrupt):
        env.step(ZERO)
    if goes_on_with == "reset":
        assert env.reset()[:, 0].tolist() == [0, 0]
        assert env.step(ZERO)[0][:, 0].tolist() == [1, 1]
        assert env.n_rebuilds == 0
    else:
        assert_restarted(env.step(ZERO), "the connection to it broke")


def test_a_call_during_a_large_answer_reads_that_answer_first(make_vec):
    env = make_vec([LargeEnv], patience_s=600.0)
    env.reset()
    env.step_async(ZERO[:1] + 0.5)
    begin = time.monotonic()
    assert env.get_attr("n") == [1]
    assert len(env.places) == 1
    assert time.monotonic() - begin < 300.0
    observations, rewards, _, infos = env.step_wait()
    assert (observations[0] == 1).all()
    assert rewards.tolist() == [0.5]
    assert "invalid_transition" not in infos[0]
    assert (env.step(ZERO[:1])[0] == 2).all()


def test_a_large_late_answer_that_set_attr_reads_is_still_an_invalid_transition(make_vec):
    env = make_vec([LargeEnv, LargeEnv], deadline_s=1.0, patience_s=600.0)
    env.reset()
    env.set_attr("slow_s", 3.0, indices=1)
    assert env.step(ZERO)[3][1]["is_late"]
    env._deadline_s = 300.0  # from here on no answer is late, however busy the machine is
    env.set_attr("slow_s", 0.0, indices=1)
    observations, rewards, _, infos = env.step(ZERO + 0.5)
    assert rewards.tolist() == [0.5, 0.0]
    assert infos[1]["invalid_transition"]
    assert (observations[1] == 1).all()
    observations, rewards, _, infos = env.step(ZERO + 0.5)
    assert rewards.tolist() == [0.5, 0.5]
    assert not any("invalid_transition" in info for info in infos)
    assert (observations[1] == 2).all()
    assert env.n_late_steps == 1
    assert env.n_rebuilds == 0


def test_a_call_to_a_silent_machine_ends_when_ray_reports_its_death(make_vec):
    env = make_vec([CountEnv, CountEnv], patience_s=600.0)
    env.reset()
    pid = env.places[0][1]
    env.set_attr("slow_s", 1_000.0, indices=0)
    env.step_async(ZERO)
    env._slots[0].connection = SilentConnection(env._slots[0].connection)
    env._slots[0].connection.is_left = True
    os.kill(pid, signal.SIGKILL)
    env._slots[0]._attributes.clear()
    begin = time.monotonic()
    assert env.get_attr("n", indices=0) == [0]
    assert time.monotonic() - begin < 300.0
    assert_restarted(env.step_wait(), "ActorDiedError")


def test_an_answer_that_cannot_be_unpickled_raises_and_the_next_step_works(make_vec):
    env = make_vec([StrangeInfoEnv])
    env.reset()
    env.set_attr("mood", "strange")
    with pytest.raises(ValueError, match="not a number"):
        env.step(ZERO[:1])
    env.set_attr("mood", "good")
    assert env.step(ZERO[:1])[0][0][0] == 2
    assert env.n_rebuilds == 0


def test_closing_during_a_step_closes_the_environment(make_vec, tmp_path):
    env = make_vec([partial(CloseFileEnv, tmp_path / "closed")])
    env.reset()
    env.set_attr("slow_s", 1.0)
    env.step_async(ZERO[:1])
    env.close()
    assert (tmp_path / "closed").read_text() == "1 step", "the environment must be closed after its step"


def test_no_connections_are_opened_where_ray_encrypts(make_vec, monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    env = make_vec([CountEnv, CountEnv])
    monkeypatch.delenv("RAY_USE_TLS")  # Ray itself must not read it: this cluster does not encrypt
    env.reset()
    assert env.step(ZERO)[0][:, 0].tolist() == [1, 1]
    assert connections(env) == [None, None]


def test_direct_false_opens_no_connections(make_vec):
    env = make_vec([CountEnv, CountEnv], direct=False)
    env.reset()
    assert env.step(ZERO)[0][:, 0].tolist() == [1, 1]
    assert connections(env) == [None, None]
