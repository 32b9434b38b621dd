"""Tests that simulators step at the same time."""

from functools import partial

import numpy as np
import pytest

from tests.vec_env.envs import MeetingEnv

pytestmark = pytest.mark.ray
N_ENVS = 8


@pytest.mark.parametrize("direct", [True, False])
def test_eight_simulators_step_at_the_same_time(direct, make_vec, tmp_path):
    """If the simulators stepped one after another, MeetingEnv would wait forever."""
    env = make_vec([partial(MeetingEnv, tmp_path, index, N_ENVS) for index in range(N_ENVS)], direct=direct)
    env.reset()
    for n_steps in range(1, 4):
        observations, _, _, infos = env.step(np.zeros((N_ENVS, 1), np.float32))
        assert observations[:, 0].tolist() == [n_steps] * N_ENVS
        assert not any("invalid_transition" in info for info in infos)
