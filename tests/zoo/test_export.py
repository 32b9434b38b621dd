"""Test that the file of ``visual-td3 export`` computes the actions of the deployed policy."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch as th

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.cli import main
from sb3_visual_td3.zoo.train import train

CONF = """
LiteDriving-v0:
  policy: {policy}
  n_timesteps: 60
  env_kwargs: {{max_episode_steps: 20, image_size: 64, observation: {observation}}}
  normalize: {normalize}
  buffer_size: 1000
  learning_starts: 20
  batch_size: 4
"""
OBSERVATIONS = np.random.default_rng(0).integers(0, 256, (3, 4, 64, 64), dtype=np.uint8)


def trained(folder, **settings):
    (folder / "short.yml").write_text(CONF.format(**settings))
    flags = ["-conf", folder / "short.yml", "-f", folder / "logs", "--verbose", 0, "--eval-freq", -1, "--no-doctor"]
    train([str(flag) for flag in flags])
    return folder / "logs" / "visual_td3" / "LiteDriving-v0_1"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    return trained(folder, policy="CnnPolicy", observation="camera", normalize="{norm_obs: false, norm_reward: true}")


def predicted(run_dir):
    """Return the actions of the averaged actor, and check that the actor without averaging acts differently."""
    model = VisualTD3.load(run_dir / "LiteDriving-v0.zip", device="cpu", buffer_size=1)
    averaged = model.predict(OBSERVATIONS)[0]
    model.policy.averaged_actor = None
    assert not np.allclose(averaged, model.predict(OBSERVATIONS)[0], atol=1e-6)
    return averaged


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_is_the_average_policy_and_runs_without_torch(run_dir, tmp_path, capsys):
    pytest.importorskip("onnx", reason="the extra export has it")
    pytest.importorskip("onnxruntime", reason="the extra dev has it")
    path = tmp_path / "policy.onnx"
    assert main(["export", str(run_dir), "-o", str(path)]) == 0
    out = capsys.readouterr().out
    assert "input  observation: (batch, 4, 64, 64) uint8" in out
    assert "output action: (batch, 2) float32" in out
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, onnxruntime\n"
        "session = onnxruntime.InferenceSession('policy.onnx')\n"
        "print(session.get_modelmeta().custom_metadata_map['env'])\n"
        "np.save('actions.npy', session.run(None, {'observation': np.load('observations.npy')})[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["LiteDriving-v0"]
    np.testing.assert_allclose(np.load(tmp_path / "actions.npy"), predicted(run_dir), atol=1e-5)


def test_opencv_computes_the_same_actions(run_dir, tmp_path):
    pytest.importorskip("onnx", reason="the extra export has it")
    from sb3_visual_td3.demo.drive import ExportedPolicy

    path = tmp_path / "policy.onnx"
    assert main(["export", str(run_dir), "-o", str(path)]) == 0
    policy = ExportedPolicy(path)
    actions = [policy.predict(observation) for observation in OBSERVATIONS]
    np.testing.assert_allclose(actions, predicted(run_dir), atol=1e-5)


def test_export_to_torchscript_finds_the_latest_run_and_keeps_its_actions(run_dir, tmp_path):
    runs = tmp_path / "logs" / "visual_td3"
    earlier, latest = (shutil.copytree(run_dir, runs / f"LiteDriving-v0_{number}") for number in (9, 10))
    (earlier / "LiteDriving-v0.zip").unlink()
    path = tmp_path / "policy.pt"
    assert main(["export", "-f", str(runs.parent), "-o", str(path)]) == 0
    details = {"details.json": ""}
    actions = th.jit.load(path, _extra_files=details)(th.from_numpy(OBSERVATIONS))
    np.testing.assert_allclose(actions.numpy(), predicted(latest), atol=1e-5)
    assert b'"steps": "60"' in details["details.json"]


def test_scales_of_vecnormalize_are_in_the_file(tmp_path):
    normalize = "{norm_obs: true, norm_obs_keys: [state], norm_reward: true}"
    run_dir = trained(tmp_path, policy="MultiInputPolicy", observation="camera+state", normalize=normalize)
    path = tmp_path / "policy.pt"
    assert main(["export", str(run_dir), "-o", str(path)]) == 0
    states = np.linspace(-1, 1, 33, dtype=np.float32).reshape(3, 11)
    actions = th.jit.load(path)(th.from_numpy(OBSERVATIONS), th.from_numpy(states)).numpy()

    from sb3_visual_td3.zoo.saved_run import read_run

    saved = read_run(run_dir)
    env = saved.make_envs(1, 0, saved.env_kwargs())
    seen = env.normalize_obs({"camera": OBSERVATIONS, "state": states})
    assert not np.allclose(seen["state"], states)
    np.testing.assert_allclose(actions, saved.load("cpu").predict(seen)[0], atol=1e-5)
    env.close()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-o", "policy.zip"], "expected a name that ends in .onnx or .pt"),
        (["-o", "nowhere/policy.pt"], "there is no folder"),
        (["-f", "nowhere"], "there is no run of LiteDriving-v0 below nowhere/visual_td3"),
    ],
)
def test_a_usage_error_gives_exit_code_2_and_one_line_of_explanation(flags, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("visual-td3 export: ")
    assert words in line


def test_a_missing_onnx_is_named(run_dir, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", str(run_dir), "-o", str(tmp_path / "policy.onnx")]) == 2
    assert "needs the library onnx: pip install" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
