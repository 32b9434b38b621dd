"""Files that were saved before the modules were regrouped: a model, its replay buffer and the folder of a killed run.

``small_run.py`` wrote them with the package at commit ddba4bb. The expected weights and actions come from a run of the
same version that was not killed.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3 import SnapshotCallback, VisualTD3
from tests.earlier_version.small_run import StripesEnv, train

FILES = Path(__file__).parent / "files"

pytestmark = pytest.mark.filterwarnings("ignore:sb3_visual_td3.* has moved to:FutureWarning")


@pytest.fixture(scope="module")
def expected():
    with np.load(FILES / "expected.npz") as saved:
        return dict(saved)


def assert_same_weights(model, expected):
    state = model.policy.state_dict().items()
    # The earlier version had no average of the policy, which does not influence the training.
    weights = {f"weight/{name}": value.numpy() for name, value in state if not name.startswith("averaged_actor.")}
    assert weights.keys() == {name for name in expected if name.startswith("weight/")}
    for name, value in weights.items():
        # Another processor adds up in another order; ten updates of 1e-3 at most keep that small.
        np.testing.assert_allclose(value, expected[name], atol=1e-4, err_msg=name)


def test_an_earlier_model_acts_as_before_and_continues_to_learn(expected):
    model = VisualTD3.load(FILES / "model", env=StripesEnv(), device="cpu")
    assert_same_weights(model, expected)
    actions = model.predict(expected["observations"], deterministic=True)[0]
    np.testing.assert_allclose(actions, expected["actions"], atol=1e-5)
    assert model.n_steps == 3
    model.learn(20)
    assert model.num_timesteps == 20
    assert not model.reward_is_normalized, "its critics have learned the values of unscaled rewards"


def test_an_earlier_replay_buffer_is_replayed():
    model = VisualTD3.load(FILES / "model", env=StripesEnv(), device="cpu")
    model.load_replay_buffer(FILES / "replay_buffer")
    assert model.replay_buffer.size() == 40
    observations = model.replay_buffer.sample(32).observations
    assert observations.shape == (32, 1, 36, 36)
    assert set(np.unique(observations.numpy())) <= {0, 200}


def test_a_killed_earlier_run_resumes_to_the_weights_of_an_uninterrupted_run(tmp_path, expected):
    shutil.copytree(FILES / "run", tmp_path / "run")
    model = train(tmp_path / "run")
    assert model.num_timesteps == 40
    assert_same_weights(model, expected)
    # The earlier version did not scale rewards, and neither does the resumed run.
    assert model.reward_divisor == 1.0
    assert model.describe()["scale_rewards"] == (False, "argument")


class KilledError(Exception):
    """Ends a training as a kill does, without a final snapshot."""


def test_an_earlier_run_killed_twice_resumes_to_the_weights_of_an_uninterrupted_run(tmp_path, expected, monkeypatch):
    shutil.copytree(FILES / "run", tmp_path / "run")
    on_step = SnapshotCallback._on_step

    def killed_at_33(callback):
        if callback.num_timesteps == 33:
            raise KilledError
        return on_step(callback)

    with monkeypatch.context() as patched:
        patched.setattr(SnapshotCallback, "_on_step", killed_at_33)
        with pytest.raises(KilledError):
            train(tmp_path / "run", save_freq=5)
    model = train(tmp_path / "run", save_freq=5)
    assert model.reward_divisor == 1.0
    assert_same_weights(model, expected)


def test_a_new_run_without_reward_scaling_ends_with_the_weights_of_the_earlier_version(tmp_path, expected):
    assert_same_weights(train(tmp_path / "run", scale_rewards=False), expected)
