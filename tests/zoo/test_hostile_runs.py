"""Test that resuming an untrusted run executes no code that its files contain or name."""

import shutil
import zipfile
from pathlib import Path

import pytest

from sb3_visual_td3.cli import main
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from tests.zoo.hostile_runs import contents, killed_run, rewritten, touching

SNAPSHOTS = {"sb3_visual_td3.callbacks.snapshot.SnapshotCallback": {"save_freq": 10}}
DRIVING_EVAL = "sb3_visual_td3.callbacks.driving_eval.DrivingEvalCallback"
CHECKPOINTS = "stable_baselines3.common.callbacks.CheckpointCallback"


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Return the RUN_DIR of a run that was killed before it saved its model."""
    return killed_run(tmp_path_factory.mktemp("killed"))


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """Return the path of a file that hostile code would create; importing ``evil_module`` creates it, too."""
    path = tmp_path / "canary"
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "evil_module.py").write_text(f"open({str(path)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(modules)
    return path


def code(canary, value):
    return f"[__import__('pathlib').Path({str(canary)!r}).touch(), {value}][1]"


def hyperparams(**changed):
    """Return a function that changes hyperparameters in the experiment that a snapshot stores."""
    return lambda experiment: experiment["hyperparams"].update(changed)


def flags(**changed):
    """Return a function that changes command-line flags in the experiment that a snapshot stores."""
    return lambda experiment: experiment.update(changed)


def callback(name, **kwargs):
    return hyperparams(callback=[{name: kwargs}, SNAPSHOTS])


def attacks(canary, evil):
    """Return a dict of attacks, each a function that changes the experiment of a snapshot."""
    touch = f"touch {canary}"
    mark = "$class"
    return {
        # These nine attacks worked in an earlier version.
        "policy_kwargs is code": hyperparams(policy_kwargs=code(canary, "{}")),
        "normalize is code": hyperparams(normalize=code(canary, "{}")),
        "monitor_kwargs is code": hyperparams(monitor_kwargs=code(canary, "{}")),
        "replay_buffer_class is code": hyperparams(replay_buffer_class=code(canary, None)),
        "a key of env_kwargs is code": flags(env_kwargs={f"n_cars:{code(canary, 1)} #": 1}),
        "a key of eval_env_kwargs is code": flags(eval_env_kwargs={f"n_cars:{code(canary, 1)} #": 1}),
        "a callback is a function": callback("stable_baselines3.common.save_util.load_from_pkl", path=str(evil)),
        "a saved model": flags(trained_agent=str(evil.with_suffix(".zip"))),
        "an evaluation environment in a module": callback(DRIVING_EVAL, eval_env="evil_module:Env-v0"),
        # These attacks are similar.
        "replay_buffer_kwargs is code": hyperparams(replay_buffer_kwargs=code(canary, "{}")),
        "a callback of a strange package": callback("evil_module.Callback"),
        "a wrapper is a function": hyperparams(env_wrapper=[{"gymnasium.make": {"id": "evil_module:Env-v0"}}]),
        "a wrapper is not a string": hyperparams(env_wrapper=[[["evil_module.Wrapper"]]]),
        "a VecEnv wrapper of a strange package": hyperparams(vec_env_wrapper="evil_module.Wrapper"),
        "a policy is a function": hyperparams(policy="stable_baselines3.common.save_util.load_from_pkl"),
        "a policy of a strange package": hyperparams(policy="evil_module.Policy"),
        "a module of an allowed package that runs": hyperparams(policy="sb3_visual_td3.__main__.Policy"),
        "a function in place of a class": hyperparams(policy_kwargs={"optimizer_class": {mark: "os.system"}}),
        "a class of a strange package": hyperparams(policy_kwargs={"activation_fn": {mark: "evil_module.A"}}),
        "a function of torch": hyperparams(policy_kwargs={"activation_fn": {mark: "torch.hub.load"}}),
        "a replay buffer's class is a function": hyperparams(replay_buffer_class={mark: "torch.serialization.load"}),
        "an environment in a module": flags(env="evil_module:Env-v0"),
        "a simulator's command": flags(env="CarlaDriving-v0", env_kwargs={"command": touch}),
        "a simulator's command in the file": hyperparams(env_kwargs={"command": touch}),
        "an evaluation's command": callback(
            DRIVING_EVAL, eval_env="CarlaDriving-v0", eval_env_kwargs={"command": touch, "port": 1}
        ),
        "Ray installs something": hyperparams(vec_env_kwargs={"runtime_env": {"pip": ["evil_module"]}}),
        "Ray installs something, in text": hyperparams(vec_env_kwargs="dict(runtime_env={'pip': ['evil_module']})"),
        "a package is a flag": flags(gym_packages=["evil_module"]),
        "a package is another flag": flags(gym_packages=[f"--conf-file={evil.with_suffix('.py')}"]),
        "a package is a module that runs": flags(gym_packages=["sb3_visual_td3.__main__"]),
        "the algorithm is another": flags(algo="evil_module.Algorithm"),
        "checkpoints go elsewhere": callback(CHECKPOINTS, save_freq=1, save_path=str(canary)),
        "checkpoints climb out": callback(CHECKPOINTS, save_freq=1, save_path=".", name_prefix="../canary"),
        "a log of episodes goes elsewhere": hyperparams(monitor_kwargs={"filename": str(canary)}),
        "a film goes elsewhere": hyperparams(
            env_wrapper={"gymnasium.wrappers.RecordVideo": {"video_folder": str(canary)}}
        ),
    }


@pytest.mark.parametrize("name", attacks(Path("canary"), Path("evil.pkl")))
def test_code_named_by_a_description_is_not_run(killed, canary, tmp_path, capsys, name):
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(touching(canary))
    evil.with_suffix(".py").write_text(f"hyperparams = {{}}\nopen({str(canary)!r}, 'w').close()\n")
    with zipfile.ZipFile(evil.with_suffix(".zip"), "w") as archive:
        archive.writestr("data", '{"x": {":type:": "x", ":serialized:": "x"}}')
    change = attacks(canary, evil)[name]
    run_dir = rewritten(killed, tmp_path, lambda state: change(state["experiment"]))
    before = contents(run_dir)
    assert main(["resume", str(run_dir)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("visual-td3 resume: ")
    assert error.count("\n") == 1, error
    assert not canary.exists()
    assert not list(tmp_path.glob("canary*"))
    changed = {each for each, content in contents(run_dir).items() if before.get(each) != content}
    assert changed <= {"snapshots/lock"}


def test_statistics_in_the_current_folder_are_not_loaded(killed, canary, tmp_path, monkeypatch, capsys):
    """rl-zoo looks for ENV/vecnormalize.pkl in the current folder, which is RUN_DIR for ``resume .``."""
    run_dir = rewritten(killed, tmp_path, lambda state: None)
    (run_dir / "LiteDriving-v0" / "vecnormalize.pkl").write_bytes(touching(canary))
    monkeypatch.chdir(run_dir)
    assert main(["resume", "."]) == 0
    assert not canary.exists()
    assert (run_dir / "LiteDriving-v0.zip").is_file()


def test_the_pickled_part_of_a_snapshots_model_is_not_opened(killed, canary, tmp_path):
    run_dir = shutil.copytree(killed, tmp_path / "run")
    store = SnapshotStore(run_dir / "snapshots")
    newest = store.newest()

    def write(path):
        with zipfile.ZipFile(newest.file("model.zip")) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                new.writestr(name, touching(canary) if name == "data" else old.read(name))

    store.save(newest.step, newest.state, {"model.zip": write}, keep=1)
    assert main(["resume", str(run_dir)]) == 0
    assert not canary.exists()


def test_an_honest_run_is_resumed_with_its_classes_and_arguments(killed, tmp_path, capsys):
    """The run uses ``--env-kwargs``, classes in ``policy_kwargs``, and callbacks that write inside RUN_DIR."""
    run_dir = rewritten(killed, tmp_path, lambda state: None)
    assert main(["resume", str(run_dir)]) == 0
    assert "resumed at step 20 of 30" in capsys.readouterr().out


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Create the user's own module, and return a path to which its callback can write."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "own_module.py").write_text(
        "from stable_baselines3.common.callbacks import BaseCallback\n"
        "class Own(BaseCallback):\n"
        "    def __init__(self, log_path):\n"
        "        super().__init__()\n"
        "        self.log_path = log_path\n"
        "    def _on_step(self):\n"
        "        open(self.log_path, 'a').write('step\\n')\n"
        "        return True\n"
        "def function():\n"
        "    raise AssertionError('called')\n"
    )
    monkeypatch.syspath_prepend(modules)
    return tmp_path / "own.log"


def test_the_users_own_callback_is_resumed_if_it_is_allowed(killed, own_module, tmp_path, capsys):
    change = callback("own_module.Own", log_path=str(own_module))
    run_dir = rewritten(killed, tmp_path, lambda state: change(state["experiment"]))
    assert main(["resume", str(run_dir)]) == 2
    assert "If this is your own package, add --allow own_module" in capsys.readouterr().err
    assert main(["resume", str(run_dir), "--allow", "own_module"]) == 0
    assert own_module.read_text().count("step") == 10


def test_an_allowed_package_provides_only_classes_of_the_right_kind(killed, own_module, tmp_path, capsys):
    change = callback("own_module.function")
    run_dir = rewritten(killed, tmp_path, lambda state: change(state["experiment"]))
    assert main(["resume", str(run_dir), "--allow", "own_module"]) == 2
    assert "callback names own_module.function: expected a callback class" in capsys.readouterr().err


def test_a_trusted_run_writes_outside_its_folder(killed, tmp_path, capsys):
    change = callback(CHECKPOINTS, save_freq=5, save_path=str(tmp_path / "checkpoints"))
    run_dir = rewritten(killed, tmp_path, lambda state: change(state["experiment"]))
    assert main(["resume", str(run_dir)]) == 2
    assert "If this is your own run, add --trust" in capsys.readouterr().err
    assert main(["resume", str(run_dir), "--trust"]) == 0
    assert list((tmp_path / "checkpoints").glob("rl_model_*_steps.zip"))
