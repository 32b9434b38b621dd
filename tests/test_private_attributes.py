"""Test that Stable-Baselines3, sb3-contrib and rl_zoo3 still have the private attributes that this package uses.

Private attributes may change in any release, so setup.cfg limits the versions of these libraries. After a limit is
raised, these tests show what changed.
"""

import ast
import configparser
import importlib
import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback, EventCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.vec_env import VecEnv

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sb3_visual_td3"
LIBRARIES = ("stable_baselines3", "sb3_contrib", "rl_zoo3")

USED = {
    BaseAlgorithm: {
        "_current_progress_remaining",
        "_custom_logger",
        "_excluded_save_params",
        "_get_policy_from_name",
        "_get_torch_save_params",
        "_init_callback",
        "_last_episode_starts",
        "_last_obs",
        "_last_original_obs",
        "_logger",
        "_n_updates",
        "_setup_learn",
        "_setup_model",
        "_stats_window_size",
        "_total_timesteps",
        "_update_current_progress_remaining",
        "_update_info_buffer",
        "_update_learning_rate",
        "_vec_normalize_env",
        "_wrap_env",
        "_episode_num",
    },
    OffPolicyAlgorithm: {"_sample_action", "_store_transition"},
    BasePolicy: {"_get_constructor_parameters", "_predict"},
    BaseModel: {"_update_features_extractor"},
    BaseBuffer: {"_normalize_obs", "_normalize_reward", "_get_samples"},
    ReplayBuffer: {"_maybe_cast_dtype"},
    HerReplayBuffer: {"_compute_episode_length", "_current_ep_start"},
    BaseCallback: {"_init_callback", "_on_step", "_on_training_end", "_on_training_start"},
    EventCallback: {"_on_event"},
    EvalCallback: {"_is_success_buffer"},
    CheckpointCallback: {"_checkpoint_path"},
    VecEnv: {"_get_indices", "_options", "_reset_options", "_reset_seeds", "_seeds"},
    ExperimentManager: {
        "_create_pruner",
        "_create_sampler",
        "_eval_env_kwargs_args",
        "_hyperparams",
        "_load_pretrained_agent",
        "_maybe_normalize",
        "_preprocess_action_noise",
        "_preprocess_hyperparams",
        "_preprocess_schedules",
        "_save_config",
    },
}
"""Private attributes and methods that this package uses, by the class that has them."""
OF_OURS = {
    "_build",
    "_dtype",
    "_is_closed",
    "_model",
    "_observation_space",
    "_worker",
}
"""Private attributes of this package's own classes whose names also occur in one of the libraries."""
OF_GYMNASIUM = {"_max_episode_steps"}
"""Private attributes of gymnasium's TimeLimit that this package and rl_zoo3 read."""


def names_in(tree):
    """Return the names of all private functions and attributes in a syntax tree."""
    nodes = list(ast.walk(tree))
    names = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return {name for name in names if re.match(r"_[a-z]", name)}


@pytest.mark.parametrize("owner", USED, ids=lambda owner: owner.__name__)
def test_private_attributes_that_we_use_are_still_there(owner):
    known = set()
    for each in owner.__mro__:
        if each.__module__.partition(".")[0] in LIBRARIES:
            known |= names_in(ast.parse(inspect.getsource(each)))
    assert USED[owner] - known == set(), f"{owner.__name__} of {owner.__module__} no longer has attributes that we use"


def test_every_private_attribute_that_we_use_is_in_the_table():
    of_libraries = set()
    for library in LIBRARIES:
        for file in Path(importlib.import_module(library).__file__).parent.rglob("*.py"):
            of_libraries |= names_in(ast.parse(file.read_text()))
    ours = set()
    for file in PACKAGE.rglob("*.py"):
        nodes = ast.walk(ast.parse(file.read_text()))
        ours |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr)}
    assert (ours & of_libraries) - set().union(*USED.values()) == OF_OURS | OF_GYMNASIUM


@pytest.mark.parametrize("name", ["stable-baselines3", "sb3-contrib", "rl_zoo3"])
def test_the_libraries_whose_private_attributes_we_use_have_an_upper_bound(name):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [line for line in setup["options"]["install_requires"].splitlines() if line and not line.startswith("#")]
    (found,) = [each for each in map(Requirement, lines) if each.name == name]
    assert {each.operator for each in found.specifier} == {">=", "<"}
    assert found.specifier.contains(version(name)), "the installed version is outside the limits of setup.cfg"
