"""Two Ray nodes on one machine, one of which is killed; and which process shuts Ray down."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial

import numpy as np
import pytest

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.vec_env import RayVecEnv
from sb3_visual_td3.vec_env.ray_session import bound_to_loopback
from tests.vec_env.envs import CountEnv, make_drive

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_ray")]
FAST_DEATH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
NODE = {"num_cpus": 4, "include_dashboard": False, "object_store_memory": 100 * 2**20}


@pytest.fixture
def cluster(no_ray):
    """Start a cluster whose learner node has no room for environments, while two others have."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with ExitStack() as stack:
        stack.enter_context(bound_to_loopback())
        found = Cluster(
            initialize_head=True,
            head_node_args={**NODE, "num_cpus": 0, "_system_config": FAST_DEATH},
        )
        stack.callback(found.shutdown)
        yield found


def test_a_node_that_dies_costs_its_open_episodes_and_nothing_else(cluster):
    nodes = [cluster.add_node(**NODE, resources={"carla": 4}) for _ in range(2)]
    cluster.wait_for_nodes()
    env = RayVecEnv(
        [make_drive] * 4, resources={"carla": 1}, placement="spread", address=cluster.address, patience_s=600.0
    )
    try:
        model = VisualTD3("CnnPolicy", env, buffer_size=2_000, learning_starts=20, batch_size=8, train_freq=4, seed=0)
        machines, pids = zip(*env.places, strict=True)
        assert len(set(machines)) == 2
        doomed = [index for index, node in enumerate(machines) if node == nodes[1].node_id]
        assert len(doomed) == 2
        invalid, told, died_at = [], [], []

        def watch(local_variables, _):
            if not died_at and model.num_timesteps >= 80:
                died_at.append(model.num_timesteps)
                cluster.remove_node(nodes[1], allow_graceful=False)
                for index in doomed:  # would outlive their node by a second; nothing outlives a machine
                    os.kill(pids[index], signal.SIGKILL)
            for index, info in enumerate(local_variables["infos"]):
                if info.get("invalid_transition"):
                    invalid.append(index)
                    told.append(info["simulator_failure"])
                    assert local_variables["dones"][index]
                    assert info["TimeLimit.truncated"]
            return True

        model.learn(320, callback=watch)
        assert model.num_timesteps == 320
        assert sorted(invalid) == doomed
        assert env.n_rebuilds >= 2
        assert {node for node, _ in env.places} == {nodes[0].node_id}
        assert model.replay_buffer.pos == 80
        assert (model.replay_buffer.rewards[:80] != 0.0).all()
    finally:
        env.close()


def test_with_a_deadline_environments_continue_while_no_node_has_room_for_a_lost_one(cluster):
    nodes = [cluster.add_node(**NODE, resources={"carla": 1}) for _ in range(2)]
    cluster.wait_for_nodes()
    env = RayVecEnv(
        [partial(CountEnv, 10**9)] * 2,
        resources={"carla": 1},
        address=cluster.address,
        deadline_s=300.0,  # no healthy environment misses it, however busy the machine is
        patience_s=600.0,
    )
    try:
        env.reset()
        for _ in range(3):
            env.step(np.zeros((2, 1), np.float32))
        lost = [node for node, _ in env.places].index(nodes[1].node_id)
        lost_pid = env.places[lost][1]
        cluster.remove_node(nodes[1], allow_graceful=False)
        os.kill(lost_pid, signal.SIGKILL)  # it would outlive its node by a second; nothing outlives a machine
        env._deadline_s = 0.2
        for n_steps in range(1, 21):
            observations, _, dones, infos = env.step(np.zeros((2, 1), np.float32))
            assert observations[1 - lost][0] == 3 + n_steps
            assert observations[lost][0] == 3
            assert not dones.any()
            assert infos[lost]["invalid_transition"]
        cluster.add_node(**NODE, resources={"carla": 1})  # help arrives
        begin = time.monotonic()
        while not dones.any():
            observations, _, dones, infos = env.step(np.zeros((2, 1), np.float32))
            assert time.monotonic() - begin < 600.0
        assert dones[lost]
        assert infos[lost]["terminal_observation"][0] == 3
        assert observations[lost][0] == 0
    finally:
        env.close()


def test_an_unreachable_cluster_is_named():
    with pytest.raises(ValueError, match=r"address='127.0.0.1:1': no running Ray found there"):
        RayVecEnv([CountEnv], address="127.0.0.1:1")
    assert not pytest.importorskip("ray").is_initialized()


def test_our_ray_ends_with_the_last_session_and_the_users_ray_stays():
    ray = pytest.importorskip("ray")
    first, second = RayVecEnv([CountEnv]), RayVecEnv([CountEnv])
    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
    first.close()
    assert ray.is_initialized()
    second.close()
    assert not ray.is_initialized()
    with bound_to_loopback():
        ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20)
    try:
        env = RayVecEnv([CountEnv])
        env.reset()
        env.close()
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_all_ports_are_bound_to_the_loopback_address():
    code = (
        "import os, numpy as np\n"
        "from sb3_visual_td3.vec_env import RayVecEnv\n"
        "from tests.vec_env.envs import CountEnv\n"
        "from pathlib import Path\n"
        "import psutil\n"
        "env = RayVecEnv([CountEnv])\n"
        "env.reset()\n"
        "print(env._session.ray.get(env._slots[0].begin_connection()).host)\n"
        "ours = [psutil.Process(), *psutil.Process().children(recursive=True)]\n"
        "found = {c.laddr.ip for p in ours for c in p.net_connections('inet') if c.status == 'LISTEN'}\n"
        "print(sorted(found))\n"
        "env.close()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert set(eval(result.stdout.splitlines()[-1])) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert result.stderr == ""
    assert result.stdout.splitlines()[:-1] == ["127.0.0.1"]  # where the environment awaits the learner
