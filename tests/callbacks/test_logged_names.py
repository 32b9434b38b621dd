"""Test that a run with all callbacks logs every tag of the original CARLA run.

Each tag has one writer and at most one point per step.
"""

import inspect
from collections import defaultdict

import pytest
from stable_baselines3.common.logger import TensorBoardOutputFormat

import sb3_visual_td3 as sv
from sb3_visual_td3.callbacks.event_writer import EventWriter
from sb3_visual_td3.common import tags
from tests.callbacks.event_files import scalars_in
from tests.common.test_tags import FIRST_RUN

N_STEPS = 330


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the scalars of a run with separate encoders and all callbacks, and the writers of each name."""
    folder = tmp_path_factory.mktemp("run")
    writers = defaultdict(set)
    write, dump = EventWriter.write, TensorBoardOutputFormat.write

    def watched_write(self, scalars, step):
        caller = type(inspect.currentframe().f_back.f_locals["self"]).__name__
        for name in scalars:
            writers[name].add(caller)
        write(self, scalars, step)

    def watched_dump(self, key_values, key_excluded, step=0):
        for name in key_values:
            if "tensorboard" not in (key_excluded.get(name) or ()):
                writers[name].add("SB3's logger")
        dump(self, key_values, key_excluded, step)

    model = sv.VisualTD3(
        "CnnPolicy",
        "LiteDriving-v0",
        buffer_size=1_000,
        learning_starts=90,
        batch_size=4,
        noise_schedule="lin_0.5_0.1",
        policy_kwargs={"encoder": "separate"},
        tensorboard_log=str(folder / "tb"),
        seed=0,
        device="cpu",
    )
    callbacks = [
        sv.RunRecorderCallback(),
        sv.GradientNormCallback(),
        sv.ExplosionAlertCallback(verbose=0),
        sv.DrivingMetricsCallback(),
        sv.DrivingEvalCallback(eval_freq=150, n_eval_episodes=1, verbose=0),
        sv.SnapshotCallback(save_freq=100),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EventWriter, "write", watched_write)
        patch.setattr(TensorBoardOutputFormat, "write", watched_dump)
        model.learn(N_STEPS, callback=callbacks, log_interval=1)
    return scalars_in(folder), dict(writers)


@pytest.mark.parametrize("name", FIRST_RUN)
def test_each_tag_of_the_original_run_has_one_writer_and_unique_steps(run, name):
    scalars, writers = run
    assert writers[name] == {tags.TAGS[name].owner}
    steps = [step for step, _ in scalars[name]]
    assert len(steps) >= 2
    assert steps == sorted(set(steps))
    if name in FIRST_RUN[:4]:
        assert steps == list(range(len(steps))), "episodes"
    else:
        assert 50 <= steps[0] < steps[-1] <= N_STEPS


def test_no_tag_has_two_writers_or_two_points_at_one_step(run):
    scalars, writers = run
    assert scalars.keys() == writers.keys()
    for name, points in scalars.items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), name
        assert len(writers[name]) == 1, name


def test_every_tag_of_the_callbacks_in_use_is_logged_by_its_owner(run):
    scalars, writers = run
    # The run uses neither a guard that acts nor PolicyEvalCallback.
    always = {name: tag for name, tag in tags.TAGS.items() if name != tags.GUARD_ACTIONS}
    always = {name: tag for name, tag in always.items() if tag.owner != "PolicyEvalCallback"}
    assert set(always) <= set(scalars)
    for name, tag in always.items():
        assert writers[name] == {tag.owner}, name
    assert {name.partition("/")[0] for name in set(scalars) - set(tags.TAGS)} == {"alerts", "rollout", "time", "train"}
