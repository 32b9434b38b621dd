"""The classes that a run's description may name, and nothing else that Python could look up under a name.

A run that is resumed is described by a file, and the file may come from a stranger. Whatever a name in it stands for
must therefore be a class, of the kind that its place asks for, out of a module in the lists below or of a package that
the user has allowed. A function would be called with arguments of the file's choice, and a module runs when it is
imported.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnvWrapper
from torch import nn, optim

from sb3_visual_td3.common.input_files import MAX_CHARACTERS

ALLOWED_PACKAGES = ("sb3_visual_td3", "stable_baselines3", "sb3_contrib", "rl_zoo3", "gymnasium", "torch")
"""Packages whose classes may be named. Those of other packages have to be allowed by the user."""

CLASS_MARK = "$class"
"""Key of the mapping ``{"$class": "package.module.Class"}``, which stands for a class in plain data."""


class Kind(NamedTuple):
    """What a place of a description may name.

    :ivar noun: for messages
    :ivar bases: the class is a subclass of one of these
    :ivar modules: regular expression of the modules that it may be looked up in, of packages that need no permission
    """

    noun: str
    bases: tuple[type, ...]
    modules: str


_GYM_WRAPPERS = r"gymnasium\.wrappers(\.(atari_preprocessing|common|rendering|stateful_\w+|transform_\w+))?"
_SB3_VEC_ENV = r"stable_baselines3\.common\.vec_env(\.vec_\w+)?"

CALLBACK = Kind(
    "callback class",
    (BaseCallback,),
    r"stable_baselines3\.common\.callbacks|rl_zoo3\.callbacks|sb3_visual_td3(\.callbacks(\.[a-z_]+)?)?",
)
WRAPPER = Kind(
    "gymnasium.Wrapper class",
    (gym.Wrapper,),
    rf"{_GYM_WRAPPERS}|stable_baselines3\.common\.(atari_wrappers|monitor)|sb3_contrib\.common\.wrappers(\.\w+)?"
    r"|rl_zoo3\.wrappers",
)
VEC_WRAPPER = Kind("VecEnvWrapper class", (VecEnvWrapper,), _SB3_VEC_ENV)
POLICY = Kind(
    "policy class",
    (BasePolicy,),
    r"(stable_baselines3|sb3_contrib)\.[a-z0-9_]+\.policies|sb3_visual_td3\.visual_td3\.[a-z_]+",
)
PART = Kind(
    "class of a policy's or a replay buffer's part",
    (nn.Module, optim.Optimizer, BaseFeaturesExtractor, BaseBuffer, ActionNoise),
    r"torch\.nn\.modules\.(activation|linear)|torch\.optim(\.[a-z_0-9]+)?|stable_baselines3\.her\.her_replay_buffer"
    r"|stable_baselines3\.common\.(torch_layers|buffers|noise|sb2_compat\.rmsprop_tf_like)|sb3_visual_td3"
    r"|sb3_visual_td3\.(buffers|visual_td3)\.[a-z_]+",
)
"""Activation functions, optimizers, features extractors, replay buffers and noise."""

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def find_class(name: Any, kind: Kind, allowed: Collection[str], where: str) -> type:
    """Look a class up, and import its module only if that is known or allowed.

    :param name: ``package.module.Class``
    :param kind: what it has to be
    :param allowed: packages that the user has allowed beside :data:`ALLOWED_PACKAGES`
    :param where: which setting names it, for the message
    :return: the class
    :raises ValueError: if the name is not one, its package is not allowed, or it stands for something else than a class
        of this kind
    """
    if not isinstance(name, str) or not _DOTTED.fullmatch(name):
        raise ValueError(f"{where} is {shown(name)}: expected the name of a {kind.noun}, package.module.Class")
    module_name, _, class_name = name.rpartition(".")
    package = name.partition(".")[0]
    if package in allowed or any(f"{name}.".startswith(f"{each}.") for each in allowed):
        found = _look_up(module_name, class_name, where)
    elif package not in ALLOWED_PACKAGES:
        raise ValueError(
            f"{where} names {name}: the package {package} is imported only if you allow it. If it is yours: "
            f"--allow {package}"
        )
    elif re.fullmatch(kind.modules, module_name):
        found = _look_up(module_name, class_name, where)
    else:
        found = None
    if not (isinstance(found, type) and issubclass(found, kind.bases) and found not in kind.bases):
        raise ValueError(f"{where} names {name}, which is not a {kind.noun} that a resumed run may use")
    return found


def _look_up(module_name: str, class_name: str, where: str) -> Any:
    try:
        return getattr(importlib.import_module(module_name), class_name, None)
    except ImportError as error:
        raise ValueError(f"{where} names {module_name}.{class_name}, which cannot be imported: {error}") from error


def check_package(name: Any, allowed: Collection[str]) -> None:
    """Refuse a package of ``gym_packages`` unless it is here already or the user has allowed it.

    :param name: of the package or module
    :param allowed: by the user
    :raises ValueError: if it may not be imported
    """
    if not isinstance(name, str) or not _PACKAGE.fullmatch(name):
        raise ValueError(f"gym_packages names {shown(name)}: expected the name of a package")
    if name not in ALLOWED_PACKAGES and not any(f"{name}.".startswith(f"{each}.") for each in allowed):
        package = name.partition(".")[0]
        raise ValueError(
            f"the run imports {name}, which is done only if you allow it. If it is yours: --allow {package}"
        )


def class_as_data(cls: type) -> dict[str, str] | None:
    """:return: a class of the kind :data:`PART` as plain data; None for any other"""
    name = f"{cls.__module__}.{cls.__qualname__}"
    is_part = issubclass(cls, PART.bases) and "<locals>" not in name
    return {CLASS_MARK: name} if is_part else None


def class_name_in(value: Any) -> Any:
    """:return: the name that stands in a mark; None where the value is no mark"""
    return value[CLASS_MARK] if isinstance(value, Mapping) and set(value) == {CLASS_MARK} else None


def with_classes(value: Any, allowed: Collection[str], where: str) -> Any:
    """Put classes where their marks stand.

    :param value: plain data
    :param allowed: packages that the user has allowed
    :param where: which setting it is, for messages
    :return: a copy with the classes in it
    :raises ValueError: if a mark names something else
    """
    name = class_name_in(value)
    if name is not None:
        return find_class(name, PART, allowed, where)
    if isinstance(value, Mapping):
        return {key: with_classes(item, allowed, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_classes(item, allowed, where) for item in value]
    return value


def read_code(code: str) -> Any:
    """Say as plain data what a setting means that rl-zoo would run as Python code; nothing is run.

    :param code: a literal, ``dict(a=1)``, or one of the names that rl-zoo's files use for classes, such as
        ``dict(activation_fn=nn.ReLU, net_arch=[64])`` or ``HerReplayBuffer``
    :return: numbers, strings, lists and mappings of these, and marks for classes
    :raises ValueError: if it is any other code
    """
    if len(code) > MAX_CHARACTERS:
        raise ValueError(f"{len(code):,} characters are too many for a setting ({MAX_CHARACTERS:,})")
    try:
        return _data(ast.parse(code.strip(), mode="eval").body)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"it cannot be read: {error}") from error


def _data(node: ast.expr) -> Any:
    if isinstance(node, ast.Name | ast.Attribute):
        name = ast.unparse(node)
        if name not in _spellings():
            raise ValueError(f"{name} is no class that a snapshot can name")
        return {CLASS_MARK: _spellings()[name]}
    if isinstance(node, ast.List | ast.Tuple):
        return [_data(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        if any(key is None for key in node.keys):
            raise ValueError("** stands in it")
        return {ast.literal_eval(key): _data(each) for key, each in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        if not all(keyword.arg for keyword in node.keywords):
            raise ValueError("** stands in it")
        return {str(keyword.arg): _data(keyword.value) for keyword in node.keywords}
    return ast.literal_eval(node)


@functools.cache
def _spellings() -> dict[str, str]:
    """:return: how classes are spelled in rl-zoo's hyperparameter files, and where they are found"""
    from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

    found: dict[str, type] = {cls.__name__: cls for cls in (HerReplayBuffer, RMSpropTFLike)}
    for spelling in ("nn", "th.nn", "torch.nn"):
        parts = {**vars(nn.modules.activation), "Identity": nn.Identity}
        found |= {f"{spelling}.{name}": cls for name, cls in parts.items() if _is(cls, nn.Module)}
    for spelling in ("th.optim", "torch.optim"):
        found |= {f"{spelling}.{name}": cls for name, cls in vars(optim).items() if _is(cls, optim.Optimizer)}
    return {spelling: f"{cls.__module__}.{cls.__qualname__}" for spelling, cls in found.items()}


def _is(cls: Any, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base) and cls is not base


def check_env_id(env_id: Any, where: str) -> None:
    """Make sure that an environment is registered, so that making it imports no module of the id's choice.

    :param env_id: as gymnasium's ``make`` takes it; "module:Env-v0" would import the module
    :param where: which setting names it, for the message
    :raises ValueError: if it is not registered
    """
    if not isinstance(env_id, str) or env_id not in gym.registry:
        raise ValueError(
            f"{where} is {shown(env_id)}, which is not an environment that is registered here: if a package of yours "
            "registers it, name the package by --gym-packages when you train, and by --allow when you resume"
        )


def check_algorithm(algo: Any) -> None:
    """:raises ValueError: if rl-zoo, with our plug-in, has no such algorithm"""
    if not isinstance(algo, str) or algo not in ALGOS:
        raise ValueError(f"the algorithm is {shown(algo)}: expected one of {', '.join(ALGOS)}")


def shown(value: Any, n_characters: int = 80) -> str:
    """:return: a value on one line, cut where it is long"""
    text = repr(value)
    return text if len(text) <= n_characters else f"{text[:n_characters]}..."
