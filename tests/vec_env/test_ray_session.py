"""Test functions that run as Ray tasks, and that the package can be imported without Ray."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_visual_td3.vec_env.ray_session import run_tasks

NO_RAY = "import sys; sys.modules['ray'] = None\n"


def run_python(code):
    return subprocess.run([sys.executable, "-c", NO_RAY + code], capture_output=True, text=True, check=False)


def test_without_ray_imports_work_and_the_error_names_the_extra():
    result = run_python(
        "import sb3_visual_td3\n"
        "from sb3_visual_td3.vec_env import RayVecEnv\n"
        "try:\n"
        "    RayVecEnv([lambda: None])\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert "pip install 'ray>=2.40'" in result.stdout


def test_the_process_of_an_environment_imports_no_torch():
    code = "import sys\nimport sb3_visual_td3.vec_env.env_actor\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_importing_vec_env_and_cli_does_not_import_ray():
    code = "import sys\nimport sb3_visual_td3.vec_env, sb3_visual_td3.cli\nprint('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def work(name, sign):
    if name == "wrong":
        raise ValueError("no such town")
    path = Path(sign)
    if name == "dies once" and not path.exists():
        path.touch()
        os._exit(1)
    if name == "dies":
        os._exit(1)
    return name, os.getpid(), os.getcwd()


@pytest.mark.ray
def test_each_call_has_its_own_process_and_result(ray_runs, tmp_path):
    names = ["a", "wrong", "dies once", "dies", "b"]
    ended = dict(run_tasks(work, [(name, str(tmp_path / "sign")) for name in names], num_cpus=0.5))
    assert sorted(ended) == [0, 1, 2, 3, 4]
    assert [ended[index][0] for index in (0, 2, 4)] == ["a", "dies once", "b"]
    assert len({ended[index][1] for index in (0, 2, 4)} | {os.getpid()}) == 4
    assert ended[0][2] == os.getcwd()
    assert isinstance(ended[1], ValueError)
    assert str(ended[1]) == "no such town"
    assert type(ended[3]).__name__ == "WorkerCrashedError"


@pytest.mark.ray
def test_a_request_beyond_the_cluster_is_refused(ray_runs):
    with pytest.raises(ValueError, match="each run needs 64 GPU, but the whole cluster has 0"):
        list(run_tasks(work, [("a", "")], num_gpus=64))
