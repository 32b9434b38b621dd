"""Keep old import paths working, so that files of earlier versions still load.

Saved models and other files name a class by its module. When a module moves, add a line to :data:`MOVED_MODULES`. An
import of the old name then returns the new module with a FutureWarning.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_PACKAGE = "sb3_visual_td3"

MOVED_MODULES = {
    "buffers.frame_index": "buffers.frame_store",
    "buffers.frame_spaces": "buffers.frame_replay_buffer",
    "buffers.memory": "buffers.frame_store",
    "buffers.pair_store": "buffers.observation_store",
    "buffers.stack_store": "buffers.observation_store",
    "envs.carla.convert": "envs.road.carla_coordinates",
    "envs.carla.opendrive_map": "envs.road.opendrive_reading",
    "envs.carla.surveyed_route": "envs.road.opendrive_reading",
    "envs.hud": "envs.human_view",
    "envs.lite.collision": "envs.road.collision",
    "envs.lite.ground": "envs.road.ground",
    "envs.lite.idm": "envs.road.traffic",
    "envs.lite.maps": "envs.road.maps",
    "envs.lite.opendrive_export": "envs.road.opendrive_writing",
    "envs.lite.panorama": "envs.road.ground",
    "envs.lite.road_network": "envs.road.network",
    "envs.lite.tint": "envs.lite.camera",
    "envs.lite.track": "envs.road.track",
    "envs.lite.traffic": "envs.road.traffic",
    "envs.registration": "envs",
    "envs.restorable_env": "envs.lite.lite_env",
    "envs.window": "envs.human_view",
    "envs.carla_emulator.control": "envs.carla_emulator.process",
    "vec_env.ray_tasks": "vec_env.ray_session",
    "zoo.beginning": "zoo.wrappers",
    "zoo.continuation": "zoo.wrappers",
    "zoo.block_keys": "zoo.hyperparameters",
    "zoo.environments": "zoo.flags",
    "zoo.known_classes": "zoo.experiment",
    "zoo.flag_values": "zoo.flags",
    "zoo.optimization": "zoo.search",
    "zoo.sampling": "zoo.trials",
    "zoo.search_report": "zoo.search",
    "zoo.sweep_results": "zoo.sweep",
    "zoo.trial_health": "zoo.trials",
    "zoo.trip_table": "zoo.evaluate",
    "zoo.vec_envs": "zoo.hyperparameters",
    "zoo.workers": "zoo.studies",
    "visual_td3.asked_for": "visual_td3.requested",
    "visual_td3.camera_space": "visual_td3.checks",
    "visual_td3.own_policies": "visual_td3.checks",
    "visual_td3.pixels": "visual_td3.precision",
    "visual_td3.target_range": "visual_td3.losses",
}
"""The new module for each old one, both without the package's name."""
_MOVED_CLASSES = {"zoo.plugin.BeginningCallback": "zoo.wrappers.BeginningCallback"}
"""Maps the former path of a moved class to its new path, both without the package's name. This dict is only for classes
whose former module still exists."""


def present_class_path(path: str) -> str:
    """Return the present dotted path of a class, given the path that an earlier version wrote into a snapshot.

    :param path: a dotted path, such as ``"sb3_visual_td3.zoo.continuation.BeginningCallback"``
    :return: the present path, such as ``"sb3_visual_td3.zoo.wrappers.BeginningCallback"``; ``path`` if it has not moved
    """
    package, _, class_path = path.partition(".")
    module, _, class_name = class_path.rpartition(".")
    if package != _PACKAGE:
        return path
    if class_path in _MOVED_CLASSES:
        return f"{_PACKAGE}.{_MOVED_CLASSES[class_path]}"
    if module in MOVED_MODULES:
        return f"{_PACKAGE}.{MOVED_MODULES[module]}.{class_name}"
    return path


class _MovedModuleFinder(MetaPathFinder, Loader):
    """Import a moved module when code imports its old name, and warn that the name has changed."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the signature is that of the import system
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return the import spec for the old name of a moved module; None for every other name."""
        package, _, name = fullname.partition(".")
        if package != _PACKAGE or name not in MOVED_MODULES:
            return None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the new module itself, so that its classes are identical under the old and the new name."""
        new_name = f"{_PACKAGE}.{MOVED_MODULES[spec.name.partition('.')[2]]}"
        # This is not a DeprecationWarning, because by default Python shows those only for code in ``__main__``. Here,
        # rl-zoo or SB3 usually imports the old name.
        warnings.warn(f"{spec.name} has moved to {new_name}: use the new name", FutureWarning, stacklevel=2)
        module = importlib.import_module(new_name)
        # The import system overwrites __spec__ with that of the old name after this call; see exec_module().
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the new module's ``__spec__``, which the import system has overwritten with that of the old name."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def find_moved_modules() -> None:
    """Make Python find moved modules under their old names; calling it again changes nothing."""
    if not any(isinstance(finder, _MovedModuleFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModuleFinder())
