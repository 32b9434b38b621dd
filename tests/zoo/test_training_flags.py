"""Test that a wrong flag of ``visual-td3 train`` gives one line that names the flag, before training."""

import pytest

from sb3_visual_td3.cli import main
from sb3_visual_td3.common.errors import UsageError
from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3
from sb3_visual_td3.zoo.experiment import arguments_of
from sb3_visual_td3.zoo.hyperparameters import CONFIGS, check_keys, find_config
from tests.zoo.test_resume import experiment


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-n", "0"], "--n-timesteps 0: expected an integer >= 1"),
        (["-n", "-5"], "--n-timesteps -5: expected an integer >= 1"),
        (["--conf-file", "raech.yml"], "--conf-file raech.yml: there is no such file"),
        (["--conf-file", "raech"], "--conf-file raech: there is no such module"),
        (["--device", "gpu"], "--device gpu: expected auto, cpu, cuda"),
        (["-i", "nope.zip"], "--trained-agent nope.zip: there is no such file"),
        (["-i", "reach.yml"], "--trained-agent reach.yml: expected the .zip file"),
    ],
)
def test_a_wrong_flag_is_named_before_anything_is_printed(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reach.yml").touch()
    assert main(["train", *flags]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith(f"visual-td3 train: {words}")


def test_evaluate_names_a_wrong_device_too(tmp_path, capsys):
    assert main(["evaluate", "-f", str(tmp_path), "--device", "gpu"]) == 2
    assert "--device gpu: expected auto" in capsys.readouterr().err


def test_a_hyperparameter_file_is_a_path_a_name_in_the_package_or_a_module():
    assert find_config("seed_debug.yml") == str(CONFIGS / "seed_debug.yml")
    assert find_config("json.decoder") == "json.decoder"
    with pytest.raises(UsageError, match="there is no such module"):
        find_config("./json")


@pytest.mark.parametrize("key", ["policy", "n_timesteps"])
def test_a_block_without_a_required_key_is_refused(key):
    with pytest.raises(ValueError, match=f"^conf.yml, Env-v0: {key} is missing; add the n"):
        check_keys({"n_timesteps", "policy"} - {key}, VisualTD3, "conf.yml, Env-v0")


def test_a_block_needs_no_policy_if_the_model_exists():
    check_keys(["n_timesteps"], VisualTD3, "conf.yml, Env-v0", has_policy=True)


@pytest.mark.parametrize("saved", [-5, 0, -1])
def test_a_run_that_was_started_with_a_number_of_steps_that_is_now_refused_can_be_resumed(saved):
    described = {**experiment(), "n_timesteps": saved}
    assert "--n-timesteps=-1" in arguments_of(described, "run.yml")


def test_a_line_says_that_the_default_block_is_used(tmp_path, capsys):
    (tmp_path / "conf.yml").write_text("default: {policy: CnnPolicy, n_timesteps: 7000, buffer_size: 50}\n")
    arguments = ["train", "-conf", str(tmp_path / "conf.yml"), "-f", str(tmp_path), "--eval-freq", "-1"]
    assert main([*arguments, "-n", "20", "--hyperparams", "learning_starts:20"]) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'conf.yml'} has no block for LiteDriving-v0, so its block 'default' is used" in printed
    assert "and the run has 20 steps" in printed
    assert "of your own" not in printed


def test_resume_can_set_the_number_of_threads(tmp_path, monkeypatch):
    from sb3_visual_td3.zoo import resume
    from tests.zoo.test_ends import run_dir_in, train

    assert train(tmp_path) == 0
    (run_dir_in(tmp_path) / "LiteDriving-v0.zip").unlink()
    given = []
    monkeypatch.setattr(resume, "train_and_report_errors", lambda arguments, *_: given.extend(arguments) or (0, None))
    assert main(["resume", str(run_dir_in(tmp_path)), "--allow", "tests", "--num-threads", "3"]) == 0
    assert [each for each in given if each.startswith("--num-threads")] == ["--num-threads=1", "--num-threads=3"]
