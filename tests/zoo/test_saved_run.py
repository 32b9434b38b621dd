"""Test that ``args.yml``, which rl-zoo writes for each run, is read without executing code in it."""

from collections import OrderedDict

import pytest
import yaml
from torch import nn

from sb3_visual_td3.cli import main
from sb3_visual_td3.zoo.saved_run import find_run, read_args, read_run

ARGS = {"algo": "visual_td3", "env": "LiteDriving-v0", "env_kwargs": None, "hyperparams": None, "gym_packages": []}


def run_with(folder, text):
    path = folder / "visual_td3" / "LiteDriving-v0_1" / "LiteDriving-v0" / "args.yml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_args_yml_is_read_as_rl_zoo_writes_it(tmp_path):
    args = {**ARGS, "env_kwargs": {"n_cars": 2, "maps": ("a", "b")}, "hyperparams": {"policy_kwargs": {"f": nn.ReLU}}}
    path = run_with(tmp_path, yaml.dump(OrderedDict(sorted(args.items()))))
    assert "python/object/apply:collections.OrderedDict" in path.read_text()
    assert read_args(path) == {**args, "hyperparams": {"policy_kwargs": {"f": "torch.nn.modules.activation.ReLU"}}}


@pytest.mark.parametrize(
    "tagged",
    [
        "env: !!python/object/apply:os.mkdir [{canary}]",
        "extra: !!python/object/apply:os.system ['touch {canary}']",
        "env_kwargs: {{a: [!!python/object/apply:subprocess.call [[touch, {canary}]]]}}",
        "extra: !!python/object/new:type {{args: [x, !!python/tuple [], {{}}], state: {{}}}}",
        "extra: !!python/module:antigravity",
        "? !!python/object/apply:os.system ['touch {canary}']\n: 1",
    ],
)
def test_a_python_object_in_args_yml_is_rejected_and_not_created(tmp_path, capsys, tagged):
    canary = tmp_path / "canary"
    text = "algo: visual_td3\nenv_kwargs: null\nenv: LiteDriving-v0\n"
    path = run_with(tmp_path, text + tagged.format(canary=canary) + "\n")
    for arguments in ([str(path.parents[1])], ["-f", str(tmp_path), "--env", "LiteDriving-v0"]):
        (path.parents[1] / "LiteDriving-v0.zip").touch()
        assert main(["evaluate", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "Expected plain values, as rl-zoo writes them" in line
    assert not canary.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1, 2]", "holds a value of type list: expected a mapping of training flags"),
        ("algo: [a]\nenv: LiteDriving-v0", "algo is ['a']: expected text"),
        ("algo: visual_td3", "env is None: expected text"),
        ("algo: a\nenv: b\nenv_kwargs: 3", "env_kwargs is 3: expected a mapping"),
        ("algo: a\nenv: b\nenv_kwargs: {1: 2}", "env_kwargs is {1: 2}: expected a mapping"),
        ("algo: {a: 1", "is refused: while parsing"),
        ("a: " + "[" * 5_000, "is refused: "),
        ("\x00", "is refused: "),
    ],
)
def test_an_invalid_args_yml_gives_a_one_line_error(tmp_path, capsys, text, reason):
    path = run_with(tmp_path, text)
    assert main(["evaluate", str(path.parents[1])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line


def test_a_missing_checkpoint_is_named_with_those_that_exist(tmp_path):
    run_dir = tmp_path / "visual_td3" / "Env-v0_1"
    run_dir.mkdir(parents=True)
    which = {"algo": "visual_td3", "env_id": "Env-v0", "exp_id": 1}
    with pytest.raises(ValueError, match=r"has no checkpoints\. 'visual-td3 train --save-freq N'"):
        find_run(str(tmp_path), **which, load_last_checkpoint=True)
    with pytest.raises(ValueError, match=r"has no checkpoint rl_model_50_steps\.zip\. 'visual-td3 train"):
        find_run(str(tmp_path), **which, load_checkpoint=50)
    for step in (100, 20):
        (run_dir / f"rl_model_{step}_steps.zip").touch()
    with pytest.raises(ValueError, match="has those of the steps 20, 100") as refused:
        find_run(str(tmp_path), **which, load_checkpoint=50)
    assert "resume" not in str(refused.value)


@pytest.mark.parametrize("which", [{}, {"load_best": True}, {"load_last_checkpoint": True}, {"load_checkpoint": 5}])
def test_runs_with_a_uuid_are_named_if_no_run_has_just_a_number(tmp_path, which):
    run_dir = tmp_path / "td3" / "Env-v0_1_3f2a77c0-9d0b-4a63-8e4f-0b6a5c1d2e3f"
    run_dir.mkdir(parents=True)
    with pytest.raises(ValueError, match="has no numbered run of Env-v0, only runs with a UUID: give RUN_DIR") as error:
        find_run(str(tmp_path), "td3", "Env-v0", **which)
    assert str(error.value).endswith(str(run_dir))


def test_runs_of_another_environment_are_not_named_as_runs_with_a_uuid(tmp_path):
    (tmp_path / "td3" / "Env_Other-v0_1").mkdir(parents=True)
    with pytest.raises(ValueError, match="there is no run of Env below") as error:
        find_run(str(tmp_path), "td3", "Env")
    assert "UUID" not in str(error.value)


@pytest.mark.parametrize("command", [["enjoy", "--no-render"], ["record-video"]])
@pytest.mark.parametrize("flags", [[], ["--load-best"], ["--load-last-checkpoint"]])
def test_the_commands_of_rl_zoo_also_name_runs_with_a_uuid(tmp_path, capsys, command, flags):
    run_dir = tmp_path / "td3" / "Pendulum-v1_1_3f2a77c0-9d0b-4a63-8e4f-0b6a5c1d2e3f"
    run_dir.mkdir(parents=True)
    assert main([*command, "--algo", "td3", "--env", "Pendulum-v1", "-f", str(tmp_path), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "only runs with a UUID: rename one of these folders to Pendulum-v1_1: " in line
    assert line.endswith(str(run_dir))


@pytest.mark.parametrize("folder", ["visual_td3/LiteDriving-v0_1", "my_run"])
def test_the_folder_of_a_run_gives_the_requested_model_even_after_it_was_renamed(tmp_path, folder):
    run_dir = run_with(tmp_path, yaml.safe_dump(ARGS)).parents[1]
    for name in ("LiteDriving-v0.zip", "best_model.zip", "rl_model_900_steps.zip", "rl_model_1000_steps.zip"):
        (run_dir / name).touch()
    run_dir = run_dir.rename(tmp_path / folder)

    def model_of(**which):
        flags = {"load_best": False, "load_checkpoint": None, "load_last_checkpoint": False, **which}
        return read_run(run_dir, **flags).model_path.name

    assert model_of() == "LiteDriving-v0.zip"
    assert model_of(load_best=True) == "best_model.zip"
    assert model_of(load_checkpoint=900) == "rl_model_900_steps.zip"
    assert model_of(load_last_checkpoint=True) == "rl_model_1000_steps.zip"
    with pytest.raises(ValueError, match=r"no checkpoint rl_model_7_steps\.zip; it has those of the steps 900, 1000"):
        model_of(load_checkpoint=7)
    for step in (900, 1000):
        (run_dir / f"rl_model_{step}_steps.zip").unlink()
    with pytest.raises(ValueError, match=r"has no checkpoints\. 'visual-td3 train --save-freq N'"):
        model_of(load_last_checkpoint=True)
