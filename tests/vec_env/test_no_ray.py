"""Without Ray the package is whole, and what needs Ray says what to install."""

import subprocess
import sys

NO_RAY = "import sys; sys.modules['ray'] = None\n"


def run_python(code):
    return subprocess.run([sys.executable, "-c", NO_RAY + code], capture_output=True, text=True, check=False)


def test_importing_needs_no_ray_and_using_names_the_extra():
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
    assert "pip install 'sb3-visual-td3[ray]'" in result.stdout


def test_the_process_of_an_environment_imports_no_torch():
    code = "import sys\nimport sb3_visual_td3.vec_env.env_actor\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_importing_ours_does_not_import_ray():
    code = "import sys\nimport sb3_visual_td3.vec_env, sb3_visual_td3.cli\nprint('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
