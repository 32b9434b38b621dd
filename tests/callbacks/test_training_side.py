"""Test GradientNormCallback, ExplosionAlertCallback and RunRecorderCallback on small random images."""

import gc
import json
import math
import weakref

import pytest
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_visual_td3 import ExplosionAlertCallback, GradientNormCallback, RunRecorderCallback
from sb3_visual_td3.callbacks.alerts import gradient_alerts
from sb3_visual_td3.callbacks.event_writer import names_in_reach
from sb3_visual_td3.common import tags
from sb3_visual_td3.runs.manifest import RunManifest
from tests.callbacks.event_files import scalars_in
from tests.image_env import ImageEnv


def test_a_point_is_logged_every_log_freq_steps_and_at_the_end_of_training(make_model, tmp_path):
    model = make_model(tensorboard_log=str(tmp_path))
    model.learn(75, callback=GradientNormCallback(sample_freq=1, log_freq=20))
    scalars = scalars_in(tmp_path)
    assert [step for step, _ in scalars[tags.CRITIC_LOSS]] == [40, 60, 75]
    # The agent's state is logged before the first update as well.
    assert scalars[tags.TOTAL_ITERATIONS][0] == (20, 0.0)
    assert scalars[tags.IS_TRAINING] == [(20, 0.0), (40, 1.0), (60, 1.0), (75, 1.0)]


def test_each_name_has_one_writer(make_model, tmp_path):
    """Stable-Baselines3 does not write the tags of the callback when it dumps its log."""
    model = make_model(tensorboard_log=str(tmp_path))
    model.learn(120, callback=GradientNormCallback(sample_freq=1, log_freq=30))
    for tag, points in scalars_in(tmp_path).items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), tag
        if tag in (tags.ACTOR_LOSS, tags.CRITIC_LOSS):
            assert steps == [30, 60, 90, 120]


def test_without_callbacks_the_losses_are_logged_as_sb3_does(make_model, tmp_path):
    model = make_model(tensorboard_log=str(tmp_path))
    model.learn(120)
    assert {tags.ACTOR_LOSS, tags.CRITIC_LOSS} <= set(scalars_in(tmp_path))


@pytest.mark.parametrize("encoder", ["separate", "shared"])
def test_every_training_tag_is_logged_except_actor_cnn_tags_with_a_shared_encoder(make_model, tmp_path, encoder):
    model = make_model(tensorboard_log=str(tmp_path), policy_kwargs={"encoder": encoder})
    model.learn(60, callback=GradientNormCallback(sample_freq=1, log_freq=20))
    scalars = scalars_in(tmp_path)
    owned = {name for name, tag in tags.TAGS.items() if tag.owner == "GradientNormCallback"}
    of_actor_cnn = {name for name in owned if "actor_cnn" in name}
    assert set(scalars) & owned == (owned if encoder == "separate" else owned - of_actor_cnn)
    assert scalars[tags.ENCODER_IS_SHARED][-1][1] == float(encoder == "shared")
    assert scalars[tags.REWARD_IS_NORMALIZED][-1][1] == 1.0
    assert scalars[tags.BUFFER_UTILIZATION][-1] == (60, pytest.approx(60 / 300, abs=0.01))


def test_the_observer_is_detached_when_training_ends(make_model):
    model = make_model()
    model.learn(30, callback=[GradientNormCallback(), ExplosionAlertCallback()])
    assert model.observers == []


def test_the_error_for_an_unsupported_algorithm_names_the_algorithm():
    with pytest.raises(ValueError, match=r"PPO.*VisualTD3"):
        PPO("MlpPolicy", "Pendulum-v1", device="cpu").learn(10, callback=GradientNormCallback())
    with pytest.raises(ValueError, match="DQN has no actor"):
        DQN("MlpPolicy", "CartPole-v1", device="cpu").learn(10, callback=ExplosionAlertCallback())


BOUNDARIES = [
    ({"actor_cnn": 9_999.0}, []),
    ({"actor_cnn": 10_000.0}, []),
    ({"actor_cnn": 10_000.1}, ["warning"]),
    ({"actor_cnn": 100_000.0}, ["warning"]),
    ({"actor_cnn": 100_000.1}, ["critical"]),
    ({"actor_cnn": math.inf}, ["critical"]),
    ({"actor_cnn": math.nan}, ["critical"]),
    ({"actor_cnn": 20_000.0, "critic_cnn": 200_000.0, "critic_mlp": 1.0}, ["warning", "critical"]),
    ({}, []),
]


@pytest.mark.parametrize(("norms", "levels"), BOUNDARIES)
def test_gradient_alert_levels_change_just_above_their_thresholds(norms, levels):
    assert [alert.level for alert in gradient_alerts(norms, 7, 10_000, 100_000)] == levels


def test_an_explosion_reaches_console_event_file_and_alerts_once(make_model, tmp_path, capsys):
    model = make_model(env=ImageEnv(reward_scale=1e4), tensorboard_log=str(tmp_path / "tb"), preset="td3")
    model.learn(80, callback=ExplosionAlertCallback(check_freq=20, sample_freq=1))
    scalars = scalars_in(tmp_path)
    assert [step for step, _ in scalars[tags.ALERT_CRITICAL]] == [40, 60, 80]
    assert scalars[tags.ALERT_CRITICAL][-1][1] == 1.0
    alerts = [json.loads(line) for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    critic = [a for a in alerts if a["rule"] == "gradient_explosion:critic_cnn" and a["level"] == "critical"]
    assert len(critic) == 1, "one activation, however many checks it lasts"
    assert critic[0]["value"] > critic[0]["threshold"] == 100_000
    assert "CRITICAL at step 40" in capsys.readouterr().out


def test_small_norms_are_logged_as_zeros_without_an_alert(make_model, tmp_path):
    model = make_model(tensorboard_log=str(tmp_path / "tb"))
    model.learn(60, callback=ExplosionAlertCallback(check_freq=20, sample_freq=1))
    scalars = scalars_in(tmp_path)
    assert {value for _, value in scalars[tags.ALERT_CRITICAL] + scalars[tags.ALERT_WARNING]} == {0.0}
    alerts = tmp_path / "alerts.jsonl"
    assert "gradient_explosion" not in (alerts.read_text() if alerts.exists() else "")


def test_run_json_describes_the_run(make_model, tmp_path):
    model = make_model(tensorboard_log=str(tmp_path / "tb"), critic_cnn_lr="lin_1e-4")
    model.learn(30, callback=RunRecorderCallback())
    run = RunManifest.read(tmp_path / "run.json")
    assert run.algo == "VisualTD3"
    assert run.n_timesteps == 30
    assert run.seed == 0
    assert run.encoder == "shared"
    assert run.groups == ("actor_mlp", "critic_cnn", "critic_mlp")
    assert run.reward_is_normalized is True
    assert run.hyperparams["critic_cnn_lr"] == "lin_1e-4"
    assert run.hyperparams["batch_size"] == 8
    assert run.hyperparams["train_freq"] == {"frequency": 1, "unit": "step"}
    assert run.event_dir == "tb/VisualTD3_1"
    assert run.finished >= run.started


def test_run_json_has_no_finish_time_if_the_training_fails(make_model, tmp_path):
    def fail(locals_, globals_):
        raise ConnectionError("the simulator is gone")

    model = make_model()
    with pytest.raises(ConnectionError):
        model.learn(30, callback=[RunRecorderCallback(run_dir=tmp_path), ConvertCallback(fail)])
    assert RunManifest.read(tmp_path / "run.json").finished is None


def test_a_training_that_failed_leaves_no_model_in_memory(make_model, tmp_path):
    def fail(locals_, globals_):
        raise ConnectionError("the simulator is gone")

    def failed():
        model = make_model()
        with pytest.raises(ConnectionError):
            model.learn(30, callback=[RunRecorderCallback(run_dir=tmp_path), ConvertCallback(fail)])
        return weakref.ref(model)

    model = failed()
    gc.collect()
    assert model() is None


def test_a_vec_env_without_get_attr_has_an_unknown_id(make_model, tmp_path):
    class WithoutAttributes(DummyVecEnv):
        def get_attr(self, attr_name, indices=None):
            if attr_name == "spec":
                raise NotImplementedError
            return super().get_attr(attr_name, indices)

    make_model(env=WithoutAttributes([ImageEnv])).learn(20, callback=RunRecorderCallback(run_dir=tmp_path))
    assert RunManifest.read(tmp_path / "run.json").env_id == "unknown"


def test_a_users_callback_may_have_an_attribute_of_the_same_name_as_ours(make_model, tmp_path):
    class Mine(BaseCallback):
        guard = has_ended_training = "mine"

        def _on_step(self):
            return True

    callbacks = [Mine(), GradientNormCallback(), RunRecorderCallback(run_dir=tmp_path)]
    make_model(tensorboard_log=str(tmp_path / "tb")).learn(20, callback=callbacks)
    assert RunManifest.read(tmp_path / "run.json").end == "finished"


def test_a_users_callback_may_have_the_name_of_one_of_ours(make_model, tmp_path):
    class ExplosionAlertCallback(BaseCallback):
        def _on_step(self):
            return True

    model = make_model(tensorboard_log=str(tmp_path))
    mine = ExplosionAlertCallback()
    model.learn(20, callback=[mine, GradientNormCallback()])
    assert names_in_reach(model, [mine]) == names_in_reach(model, [])


def test_a_recorder_without_a_folder_says_so(make_model):
    with pytest.raises(ValueError, match="run_dir"):
        make_model().learn(30, callback=RunRecorderCallback())
