import importlib
import subprocess
import sys

import pytest

from sb3_visual_td3.common.moved_modules import MOVED_MODULES, find_moved_modules, present_class_path


@pytest.mark.parametrize("former", MOVED_MODULES)
def test_an_old_module_name_imports_the_new_module(former):
    present = importlib.import_module(f"sb3_visual_td3.{MOVED_MODULES[former]}")
    spec = present.__spec__
    sys.modules.pop(f"sb3_visual_td3.{former}", None)
    with pytest.warns(FutureWarning, match=f"{former} has moved to {present.__name__}: use the new name"):
        found = importlib.import_module(f"sb3_visual_td3.{former}")
    assert found is present
    assert present.__spec__ is spec
    assert present.__name__ == f"sb3_visual_td3.{MOVED_MODULES[former]}"


def test_a_module_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        importlib.import_module("sb3_visual_td3.envs.lite.no_such")


def test_importing_a_moved_module_twice_prints_one_warning():
    code = (
        "from sb3_visual_td3.envs.lite.maps import MAP_GROUPS\n"
        "from sb3_visual_td3.envs.lite import maps\n"
        "print(MAP_GROUPS is maps.MAP_GROUPS)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "True\n"
    assert result.stderr.count("has moved to sb3_visual_td3.envs.road.maps") == 1


def test_finding_moved_modules_twice_changes_nothing():
    before = list(sys.meta_path)
    find_moved_modules()
    assert sys.meta_path == before


@pytest.mark.parametrize(
    ("path", "present"),
    [
        ("sb3_visual_td3.zoo.continuation.BeginningCallback", "sb3_visual_td3.zoo.wrappers.BeginningCallback"),
        ("sb3_visual_td3.zoo.plugin.BeginningCallback", "sb3_visual_td3.zoo.wrappers.BeginningCallback"),
        ("sb3_visual_td3.zoo.plugin.RunOptions", "sb3_visual_td3.zoo.plugin.RunOptions"),
        ("mine.zoo.continuation.Callback", "mine.zoo.continuation.Callback"),
        ("CnnPolicy", "CnnPolicy"),
        ("", ""),
    ],
)
def test_class_paths_in_moved_modules_are_mapped_to_the_new_modules(path, present):
    assert present_class_path(path) == present
