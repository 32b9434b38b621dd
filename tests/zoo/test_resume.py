"""visual-td3 resume: the checks before training. tests/test_resume.py tests that a killed run continues."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import yaml

from sb3_visual_td3.cli import main
from sb3_visual_td3.runs import snapshot_store
from sb3_visual_td3.runs.snapshot import Health, SnapshotError
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from sb3_visual_td3.zoo.experiment import (
    Permission,
    arguments_of,
    check_experiment,
    describe_experiment,
    hyperparameter_file,
    packages_to_allow,
)
from sb3_visual_td3.zoo.plugin import CONFIGS, register
from tests.killed_runs import weights_in

SHORT = {
    "LiteDriving-v0": {
        "policy": "CnnPolicy",
        "n_timesteps": 60,
        "buffer_size": 50,
        "learning_starts": 40,
        "batch_size": 4,
        "train_freq": [2, "step"],
        "env_kwargs": {"image_size": 48},
        "policy_kwargs": "dict(net_arch=[8], trunk_dim=4)",
        "callback": [
            "sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback",
            {"sb3_visual_td3.callbacks.snapshot.SnapshotCallback": {"save_freq": 20}},
        ],
    }
}


def train(folder, *extra, hyperparams=SHORT):
    (folder / "short.yml").write_text(yaml.safe_dump(hyperparams))
    arguments = ["train", "--env", "LiteDriving-v0", "-conf", str(folder / "short.yml"), "-f", str(folder / "logs")]
    return main([*arguments, "--seed", "1", "--verbose", "0", "--eval-freq", "-1", *extra])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    assert train(folder) == 0
    return folder / "logs" / "visual_td3" / "LiteDriving-v0_1"


def test_a_finished_run_is_left_alone(finished, capsys):
    before = (finished / "LiteDriving-v0.zip").stat().st_mtime_ns
    assert main(["resume", str(finished)]) == 0
    assert "there is nothing to resume" in capsys.readouterr().out
    assert (finished / "LiteDriving-v0.zip").stat().st_mtime_ns == before


def test_the_snapshots_are_listed(finished, capsys):
    assert main(["resume", str(finished), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["40", "60"]
    assert all("  not judged  " in line for line in lines)


def test_the_list_says_which_snapshots_are_healthy(tmp_path, capsys):
    store = SnapshotStore(tmp_path / "snapshots")
    for step, health in [(20, Health(True, 10, 5)), (40, Health(False, 30, 5)), (60, None)]:
        store.save(step, {}, {}, keep=3, health=health)
    assert main(["resume", str(tmp_path), "--list"]) == 0
    listed = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [[part.strip() for part in line if part][-2:] for line in listed] == [
        ["healthy", str(tmp_path / "snapshots" / "step_000000020")],
        ["unhealthy", str(tmp_path / "snapshots" / "step_000000040")],
        ["not judged", str(tmp_path / "snapshots" / "step_000000060")],
    ]


def test_a_run_resumed_from_an_earlier_snapshot_ends_with_the_same_weights(finished, capsys, monkeypatch):
    """The run looks as if it had been killed after the last snapshot, whose replay buffer is damaged."""
    model = finished / "LiteDriving-v0.zip"
    whole = weights_in(model)
    model.unlink()
    check, checked = snapshot_store._check_chunks, []

    def check_chunks(record, objects):
        checked.append(record.step)
        if record.step == 60:
            raise SnapshotError("the replay buffer is damaged")
        check(record, objects)

    monkeypatch.setattr(snapshot_store, "_check_chunks", check_chunks)
    assert main(["resume", str(finished)]) == 0
    said = capsys.readouterr().out
    assert "skipped step_000000060: the replay buffer is damaged" in said
    assert "resumed at step 40 of 60" in said
    assert checked == [60, 40], "each snapshot is checked once"
    assert all((tensor == whole[name]).all() for name, tensor in weights_in(model).items())
    assert len(list((finished.parent).iterdir())) == 1, "no other RUN_DIR"
    run = json.loads((finished / "run.json").read_text())
    assert run["started"] <= run["finished"]


@pytest.mark.parametrize(("folder", "words"), [("nowhere", "there is no folder "), (".", "holds no snapshots/")])
def test_a_folder_that_is_not_a_run_gives_a_one_line_error(tmp_path, capsys, folder, words):
    assert main(["resume", str(tmp_path / folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_run_without_a_snapshot_gives_a_one_line_error(tmp_path, capsys):
    (tmp_path / "snapshots").mkdir()
    assert main(["resume", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path} cannot be continued: it has no snapshot" in line


def with_params(**changed):
    return {"LiteDriving-v0": {**SHORT["LiteDriving-v0"], **changed}}


@pytest.mark.parametrize(
    ("hyperparams", "message"),
    [
        (with_params(policy_kwargs="dict(net_arch=[int('8')])"), "policy_kwargs is Python code"),
        (with_params(replay_buffer_class="type('A', (HerReplayBuffer,), {})"), "replay_buffer_class is Python code"),
    ],
)
def test_python_code_in_hyperparameters_is_an_error_before_training(tmp_path, capsys, hyperparams, message):
    assert train(tmp_path, hyperparams=hyperparams) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("step_*"))


def test_a_rollback_without_snapshots_is_an_error_before_training(tmp_path, capsys):
    alerts = {"sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback": {"on_critical": "rollback"}}
    assert train(tmp_path, hyperparams=with_params(callback=[alerts])) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("visual-td3 train: ")]
    assert "Add SnapshotCallback(run_dir=...) as the last" in line


def test_a_schedule_that_is_code_is_an_error_before_training(tmp_path, capsys):
    assert train(tmp_path, "-params", "learning_rate:lambda p: 1e-4") == 2
    assert "learning_rate is <function" in capsys.readouterr().err


ARGUMENTS = {
    "algo": "visual_td3",
    "env": "LiteDriving-v0",
    "seed": 5,
    "n_timesteps": -1,
    "tensorboard_log": "",
    "trained_agent": "",
    "num_threads": 1,
    "log_interval": -1,
    "eval_freq": -1,
    "eval_episodes": 5,
    "n_eval_envs": 1,
    "save_freq": -1,
    "save_replay_buffer": True,
    "log_folder": "logs",
    "vec_env": "subproc",
    "device": "auto",
    "verbose": 0,
    "progress": False,
    "gym_packages": [],
    "env_kwargs": {"maps": "train", "n_cars": 3},
    "eval_env_kwargs": None,
}


def experiment(**hyperparams):
    return describe_experiment(argparse.Namespace(**ARGUMENTS), hyperparams)


def test_the_command_line_is_restored_from_the_experiment_description():
    described = json.loads(json.dumps(experiment(train_freq=(4, "step"), policy_kwargs="dict(net_arch=[8])")))
    arguments = arguments_of(described, "run.yml")
    assert arguments[:2] == ["--conf-file", "run.yml"]
    assert {"--seed=5", "--vec-env=subproc", "--n-timesteps=-1", "--save-replay-buffer"} <= set(arguments)
    assert "--progress" not in arguments
    assert not any(argument.startswith(("--tensorboard-log", "--trained-agent")) for argument in arguments)
    assert "--env-kwargs" not in arguments, "rl-zoo would evaluate them"
    assert hyperparameter_file(described) == {
        "LiteDriving-v0": {"train_freq": [4, "step"], "policy_kwargs": {"net_arch": [8]}}
    }


def test_the_packages_that_a_resumed_run_needs_permission_for_are_found():
    described = experiment(
        policy="mine.Policy",
        callback=["tests.A", {"sb3_visual_td3.callbacks.snapshot.SnapshotCallback": {"save_freq": 2}}, {"b.C": {}}],
        env_wrapper="gymnasium.wrappers.ClipReward",
        policy_kwargs={"features_extractor_class": {"$class": "nets.cnn.Big"}, "activation_fn": {"$class": "torch.X"}},
    )
    assert packages_to_allow(described) == ["b", "mine", "nets", "tests"]
    assert packages_to_allow({**described, "hyperparams": {}, "gym_packages": ["envs.reach"]}) == ["envs"]


def check(experiment, *packages):
    register()
    check_experiment(experiment, Permission(Path("run"), packages))


@pytest.mark.parametrize(
    "named",
    [
        {"callback": "evil.Callback"},
        {"callback": [{"evil.Callback": {"a": 1}}]},
        {"env_wrapper": ["gymnasium.wrappers.ClipReward", {"evil.Wrapper": {}}]},
        {"vec_env_wrapper": "evil.Wrapper"},
        {"policy": "evil.Policy"},
        {"policy_kwargs": {"features_extractor_class": {"$class": "evil.Extractor"}}},
    ],
)
def test_a_class_that_a_snapshot_names_is_imported_only_if_known_or_allowed(named):
    described = experiment(**{"policy": "CnnPolicy", **named})
    with pytest.raises(ValueError, match=r"evil\..*--allow evil"):
        check(described)
    with pytest.raises(ValueError, match="cannot be imported"):
        check(described, "evil")


def test_gym_packages_have_to_be_allowed_too():
    described = {**experiment(policy="CnnPolicy"), "gym_packages": ["evil"]}
    with pytest.raises(ValueError, match="--allow evil"):
        check(described)
    with pytest.raises(ValueError, match="--gym-packages evil: there is no such module"):
        check(described, "evil")


def test_a_gym_package_of_the_current_folder_is_found_once_it_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "resumed_env_package.py").write_text("")
    register()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in {"", str(tmp_path)}])
    described = {**experiment(policy="CnnPolicy", n_timesteps=9), "gym_packages": ["resumed_env_package"]}
    check(described, "resumed_env_package")
    assert "resumed_env_package" in sys.modules


def test_our_own_hyperparameters_need_no_permission():
    check(experiment(**SHORT["LiteDriving-v0"]))


BLOCKS = [
    (path.stem if path.stem in {"sac", "td3", "tqc"} else "visual_td3", env_id, block)
    for path in sorted(Path(str(CONFIGS)).glob("*.yml"))
    for env_id, block in yaml.safe_load(path.read_text()).items()
    if "." not in env_id and env_id != "default"
]


@pytest.mark.parametrize(("algo", "env_id", "block"), BLOCKS, ids=lambda value: value if type(value) is str else "")
def test_every_block_of_our_files_can_be_resumed(algo, env_id, block):
    described = json.loads(json.dumps(describe_experiment(argparse.Namespace(**ARGUMENTS), block)))
    check({**described, "algo": algo, "env": env_id})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"seed": "1"}, "--seed is '1': expected int"),
        ({"seed": True}, "--seed is True: expected int"),
        ({"gym_packages": "a"}, "--gym-packages is 'a': expected list"),
        ({"env_kwargs": [1]}, r"--env-kwargs is \[1\]: expected a mapping"),
        ({"env_kwargs": {"a b": 1}}, "--env-kwargs has the key 'a b', which cannot be the name of a Python argument"),
        ({"hyperparams": None}, "hyperparameters are None: expected a mapping"),
        ({"vec_env": "other"}, "--vec-env is 'other': expected one of dummy, subproc, ray"),
        ({"algo": "other"}, "the algorithm is 'other'"),
        ({"env": "Other-v0"}, "'Other-v0': expected a registered environment"),
        ({"hyperparams": {"policy": None}}, "policy is None"),
        ({"hyperparams": {"policy": "CnnPolicy", "vec_env_kwargs": "{1: 2}"}}, "vec_env_kwargs has the key 1, which"),
        ({"hyperparams": {"policy": "CnnPolicy", "callback": {"a.B": {}, "a.C": {}}}}, "expected one class with its"),
        ({"hyperparams": {"policy": "CnnPolicy", "callback": [{"a.B": None}]}}, "has no arguments"),
        ({"hyperparams": {"policy": "CnnPolicy", "callback": [3]}}, "callback is 3: expected the name of a callback"),
        ({"hyperparams": {"policy": "CnnPolicy", "noise": "\ud800"}}, "expected printable text"),
        ({"hyperparams": {"policy": "CnnPolicy", "deep": json.loads("[" * 60 + "]" * 60)}}, "nested more than 50"),
    ],
)
def test_an_experiment_description_with_invalid_values_is_rejected(changed, reason):
    with pytest.raises(ValueError, match=reason):
        check({**experiment(policy="CnnPolicy"), **changed})


def test_a_command_in_a_tuple_of_a_setting_that_is_text_is_rejected():
    described = experiment(policy="CnnPolicy", vec_env_kwargs="dict(a=({'command': 'touch b'},))")
    with pytest.raises(ValueError, match="command is 'touch b', a command that starts a simulator"):
        check(described)


def test_an_experiment_description_without_a_flag_is_rejected():
    described = experiment(policy="CnnPolicy")
    del described["device"]
    with pytest.raises(ValueError, match="--device is None: expected str"):
        check(described)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"batch_size": [4]}, "batch_size is [4], expected a number"),
        ({"batch_size": 0}, "batch_size is 0, expected an integer >= 1"),
        ({"tau": float("inf")}, "tau is inf, expected a finite number"),
        ({"learning_starts": {"a": 1}}, "learning_starts is {'a': 1}, expected a number"),
        ({"noise_std": -0.1}, "noise_std is -0.1, expected a number >= 0"),
        ({"policy_kwargs": "1/0"}, "policy_kwargs cannot be evaluated: division by zero"),
    ],
)
def test_an_invalid_hyperparameter_gives_a_one_line_error_before_training(tmp_path, capsys, changed, reason):
    block = {name: value for name, value in SHORT["LiteDriving-v0"].items() if name != "callback"}
    assert train(tmp_path, hyperparams={"LiteDriving-v0": {**block, **changed}}) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("visual-td3 train: ")]
    assert reason in line
    assert not (tmp_path / "logs" / "visual_td3" / "LiteDriving-v0_1").exists()
