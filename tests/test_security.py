"""Tests for the numbered statements of docs/security.md."""

import ast
import pickle
import re
import zipfile
from pathlib import Path

import gymnasium as gym
import pytest
import yaml
from rl_zoo3 import import_envs
from rl_zoo3.utils import get_saved_hyperparams
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.cli import main
from tests.zoo.hostile_runs import Touch, touching

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "tests/zoo/test_hostile_runs.py::"
FILES = "tests/zoo/test_resumed_files.py::"
HELD_BY = {
    "X1": "test_loading_a_model_unpickles",
    "X2": "test_loading_statistics_unpickles",
    "X3": "test_loading_a_replay_buffer_unpickles",
    "X4": "test_rl_zoo_reads_config_yml_with_the_unsafe_loader",
    "X5": "test_rl_zoo_reads_args_yml_with_the_unsafe_loader",
    "X6": "test_train_runs_what_a_hyperparameter_file_holds",
    "X7": "test_train_runs_what_a_hyperparameter_file_holds",
    "X8": f"{HOSTILE}test_the_users_own_callback_is_resumed_if_it_is_allowed",
    "X9": "test_rl_zoo_imports_custom_envs",
    "N1": "test_report_executes_nothing",
    "N2": f"{HOSTILE}test_code_named_by_a_description_is_not_run",
    "N3": f"{HOSTILE}test_code_named_by_a_description_is_not_run",
    "N4": f"{HOSTILE}test_an_allowed_package_provides_only_classes_of_the_right_kind",
    "N5": f"{HOSTILE}test_code_named_by_a_description_is_not_run",
    "N6": f"{HOSTILE}test_code_named_by_a_description_is_not_run",
    "N7": f"{HOSTILE}test_code_named_by_a_description_is_not_run",
    "N8": f"{HOSTILE}test_the_pickled_part_of_a_snapshots_model_is_not_opened",
    "N9": f"{HOSTILE}test_statistics_in_the_current_folder_are_not_loaded",
    "N10": f"{HOSTILE}test_a_trusted_run_writes_outside_its_folder",
    "N11": f"{FILES}test_a_link_is_not_followed",
    "N12": f"{FILES}test_a_run_and_its_copy_are_both_resumed_and_keep_their_events",
    "N13": f"{FILES}test_resuming_a_hard_linked_copy_does_not_change_the_run",
    "N14": "tests/zoo/test_saved_run.py::test_a_python_object_in_args_yml_is_rejected_and_not_created",
    "L1": f"{HOSTILE}test_code_named_by_a_description_is_not_run",
    "L2": f"{HOSTILE}test_a_trusted_run_writes_outside_its_folder",
}


def test_every_statement_of_the_security_page_has_an_existing_test():
    page = (ROOT / "docs" / "security.md").read_text()
    assert re.findall(r"^- \*\*([XNL]\d+)\.\*\*", page, re.MULTILINE) == list(HELD_BY)
    for statement, test in HELD_BY.items():
        file, _, name = test.rpartition("::")
        tree = ast.parse((ROOT / (file or "tests/test_security.py")).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, statement


@pytest.fixture
def canary(tmp_path):
    """Return the path that hostile content creates if it is executed."""
    return tmp_path / "canary"


def tagged(canary):
    """Return YAML that creates the folder ``canary`` if a loader executes its tags."""
    return f"!!python/object/apply:os.mkdir [{canary}]"


def pendulum():
    return DummyVecEnv([lambda: gym.make("Pendulum-v1")])


def test_loading_a_model_unpickles(tmp_path, canary):
    model = VisualTD3("MlpPolicy", pendulum(), buffer_size=10, policy_kwargs={"net_arch": [4]})
    model.hostile = Touch(canary)
    model.save(tmp_path / "model.zip")
    VisualTD3.load(tmp_path / "model.zip", buffer_size=10)
    assert canary.exists()


def test_loading_statistics_unpickles(tmp_path, canary):
    (tmp_path / "vecnormalize.pkl").write_bytes(touching(canary))
    with pytest.raises(AttributeError):
        VecNormalize.load(str(tmp_path / "vecnormalize.pkl"), pendulum())
    assert canary.exists()


def test_loading_a_replay_buffer_unpickles(tmp_path, canary):
    (tmp_path / "replay_buffer.pkl").write_bytes(touching(canary))
    model = VisualTD3("MlpPolicy", pendulum(), buffer_size=10, policy_kwargs={"net_arch": [4]})
    with pytest.raises((AssertionError, ValueError, AttributeError)):
        model.load_replay_buffer(tmp_path / "replay_buffer.pkl")
    assert canary.exists()


def test_rl_zoo_reads_config_yml_with_the_unsafe_loader(tmp_path, canary):
    (tmp_path / "config.yml").write_text(f"normalize: false\nx: {tagged(canary)}\n")
    get_saved_hyperparams(str(tmp_path))
    assert canary.exists()


def test_rl_zoo_reads_args_yml_with_the_unsafe_loader():
    package = Path(import_envs.__file__).parent
    for name in ("enjoy", "record_video", "push_to_hub"):
        assert "yaml.load(f, Loader=yaml.UnsafeLoader)" in (package / f"{name}.py").read_text()


@pytest.mark.parametrize("suffix", ["yml", "py"])
def test_train_runs_what_a_hyperparameter_file_holds(tmp_path, canary, capsys, suffix):
    code = f"[__import__('pathlib').Path({str(canary)!r}).touch(), 1 / 0]"
    path = tmp_path / f"file.{suffix}"
    block = {"Pendulum-v1": {"policy": "MlpPolicy", "n_timesteps": 10, "policy_kwargs": code}}
    path.write_text(yaml.safe_dump(block) if suffix == "yml" else f"hyperparams = {{}}\n{code[:-7]}]\n")
    assert main(["train", "--env", "Pendulum-v1", "-conf", str(path), "-f", str(tmp_path / "logs")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("visual-td3 train: ")]
    assert suffix == "py" or "policy_kwargs cannot be evaluated: division by zero" in line
    assert canary.exists()


def test_rl_zoo_imports_custom_envs():
    assert "import custom_envs" in Path(import_envs.__file__).read_text()


def test_report_executes_nothing(tmp_path, canary, capsys):
    run_dir = tmp_path / "visual_td3" / "LiteDriving-v0_1"
    settings = run_dir / "LiteDriving-v0"
    settings.mkdir(parents=True)
    for name in ("config.yml", "args.yml"):
        (settings / name).write_text(f"env: LiteDriving-v0\nalgo: visual_td3\nx: {tagged(canary)}\n")
    for path in (settings / "vecnormalize.pkl", run_dir / "replay_buffer.pkl", run_dir / "run.json"):
        path.write_bytes(touching(canary))
    with zipfile.ZipFile(run_dir / "LiteDriving-v0.zip", "w") as archive:
        archive.writestr("data", pickle.dumps(Touch(canary)))
    (run_dir / "events.out.tfevents.1.host").write_bytes(b"")
    for extra in ([], ["--hyperparams", str(settings / "config.yml")]):
        assert main(["report", str(run_dir), "--output", str(tmp_path / "report"), *extra]) in {0, 1, 2, 3}
    assert not canary.exists()
