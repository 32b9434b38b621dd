"""Read the settings of a run: their values, the files that state them, and the defaults of all other settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from sb3_visual_td3.common.groups import GROUPS
from sb3_visual_td3.common.input_files import parse_mapping, plain_mapping, plain_value, python_literal, read_mapping
from sb3_visual_td3.report.console import one_line
from sb3_visual_td3.report.discovery import ZOO_ARGUMENTS, ZOO_CONFIG
from sb3_visual_td3.runs.manifest import FILE_NAME, RunManifest

HELP = (
    "JSON or YAML file with the hyperparameters of the runs, as flat names: 'tau: 0.005' or 'polyak: 0.995', "
    "'actor_lr: 1e-4', 'update_every: 50'. rl-zoo's config.yml is such a file. Without this flag, the hyperparameters "
    "are read from a run's run.json and from rl-zoo's own files"
)
_NESTED = ("policy_kwargs", "replay_buffer_kwargs", "normalize", "env_kwargs")
"""Settings that hold several settings of their own. rl-zoo's files may state them as Python code."""

KEY_VALUE_FLAGS = ("--env-kwargs", "--eval-env-kwargs", "--hyperparams")
"""Flags of rl-zoo's train that take ``key:value`` pairs and change the task or the algorithm of a run."""

_IDENTITY = ("algo", "env_id", "seed", "n_timesteps", "encoder", "reward_is_normalized")
_IMAGE_POLICIES = ("CnnPolicy", "MultiInputPolicy")


@dataclass(frozen=True)
class Setting:
    """Hold the value of one setting of a run, and the name of its source, such as ``run.json``."""

    value: Any
    source: str


@dataclass(frozen=True)
class Layer:
    """Hold the settings of one source.

    :param source: name of the source
    :param values: value by flat name, such as ``policy_kwargs.trunk_dim``
    :param code: settings that the source states as Python code, verbatim, by name
    :param key_values: ``key:value`` pairs of the command line, by flag
    """

    source: str
    values: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    key_values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, source: str, content: Mapping[str, Any]) -> Layer:
        """Flatten the content of a file, without callbacks, which are not settings of the algorithm.

        :param source: name of the file
        :param content: the mapping in the file
        """
        values: dict[str, Any] = {}
        code: dict[str, str] = {}
        for name, value in content.items():
            if name == "callback":
                continue
            read = value
            if name in _NESTED and isinstance(value, str):
                code[name] = value
                read = _literal_or_text(value)
            # run.json writes SB3's TrainFreq as a mapping; rl-zoo's files have a number or a list [frequency, unit].
            if name == "train_freq" and isinstance(value, Mapping):
                read = [value.get("frequency"), value.get("unit", "step")]
            values.update(flattened({name: read}))
        return cls(source, values, code)

    def value_or_group(self, name: str) -> Any:
        """Return the value of a setting, or a mapping of its parts.

        :param name: name of a setting or of a group, such as ``env_kwargs`` for the setting ``env_kwargs.n_cars``
        :return: the value or the mapping; None if there is neither
        """
        if name in self.values:
            return self.values[name]
        prefix = f"{name}."
        group = {key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)}
        return group or None


@dataclass(frozen=True)
class RunSettings:
    """Hold the known settings of a run.

    :param given: the settings of each source, in order of precedence
    :param defaults: the defaults, for settings that no source states; empty for an unknown algorithm
    """

    given: tuple[Layer, ...] = ()
    defaults: Layer = field(default_factory=lambda: Layer("default"))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return the settings of each source in order of precedence, and the defaults last."""
        return (*self.given, self.defaults)

    def get(self, name: str) -> Setting | None:
        """Return the value of a setting together with the first source that has it; None if no source has it."""
        return next((Setting(layer.values[name], layer.source) for layer in self.layers if name in layer.values), None)

    def value(self, name: str) -> Any:
        """Return the value of a setting; None if no source has it."""
        found = self.get(name)
        return None if found is None else found.value

    @property
    def file_layers(self) -> tuple[Layer, ...]:
        """Return the settings in rl-zoo's config.yml, which users edit; if it is missing, return :attr:`given`."""
        of_zoo = tuple(layer for layer in self.given if layer.source.endswith(ZOO_CONFIG))
        return of_zoo or self.given

    def given_settings(self) -> Iterator[tuple[str, Setting]]:
        """Yield each setting that a source states, without the defaults."""
        for name in dict.fromkeys(name for layer in self.given for name in layer.values):
            found = self.get(name)
            assert found is not None
            yield name, found

    @property
    def algo(self) -> str | None:
        """Return the algorithm, such as ``"td3"`` or ``"visual_td3"``, in lower case; None if it is not known."""
        name = self.value("algo")
        if not isinstance(name, str):
            return None
        return {"td3": "td3", "visualtd3": "visual_td3"}.get(name.lower().replace("_", ""), name.lower())

    @property
    def sees_images(self) -> bool:
        """Return whether the settings show that the policy has an encoder."""
        return self.value("policy") in _IMAGE_POLICIES or self.value("encoder") is not None

    @property
    def encoder_is_shared(self) -> Setting | None:
        """Return the setting that tells whether actor and critic share one encoder; None if no source states it."""
        for name, found in self._each("encoder", "policy_kwargs.encoder", "encoder_is_shared"):
            if found.value in ("shared", "separate") or (isinstance(found.value, bool) and name.endswith("shared")):
                return Setting(found.value in ("shared", True), found.source)
        return None

    @property
    def reward_is_normalized(self) -> Setting | None:
        """Return the setting that tells whether the critics see scaled rewards; None if no source states it.

        If a ``normalize`` mapping has no ``norm_reward``, rewards count as scaled, because VecNormalize scales them by
        default.
        """
        for layer in self.layers:
            group = {name for name in layer.values if name.startswith("normalize.")}
            for name in ("reward_is_normalized", "normalize.norm_reward", "normalize"):
                if isinstance(layer.values.get(name), bool):
                    return Setting(layer.values[name], layer.source)
            if group:
                return Setting(True, layer.source)
        return None

    def _each(self, *names: str) -> Iterator[tuple[str, Setting]]:
        for layer in self.layers:
            yield from ((name, Setting(layer.values[name], layer.source)) for name in names if name in layer.values)


def read_given_settings(path: Path) -> Layer:
    """Read the file of --hyperparams: names with values, as in rl-zoo's config.yml, or a run.json.

    :param path: path of the file
    :raises ValueError: if the file is of another kind
    :raises OSError: if the file cannot be read
    """
    # The flag of the same name of 'visual-td3 train' takes pairs.
    if ":" in path.name and not path.exists():
        raise ValueError(
            f"--hyperparams {path}: there is no such file. Here the flag takes a file of names and values, such as "
            "rl-zoo's config.yml"
        )
    content = read_mapping(path)
    # Only a run.json has both keys.
    if "format_version" in content and "algo" in content:
        return _of_manifest(RunManifest.of(content, str(path)), path.name)
    if not content or all(isinstance(value, Mapping) and name not in _NESTED for name, value in content.items()):
        raise ValueError(
            f"{path}: expected names and values, such as 'tau: 0.005'; if the file has one block for each environment, "
            "give a file with a single block"
        )
    return Layer.of(path.name, content)


def run_settings(
    given: Layer | None, manifest: RunManifest | None, zoo_folder: Path | None
) -> tuple[RunSettings, tuple[str, ...]]:
    """Combine all sources of a run's settings; the arguments are in order of precedence, highest first.

    :param given: content of the file of --hyperparams
    :param manifest: content of run.json
    :param zoo_folder: folder of rl-zoo's args.yml and config.yml
    :return: the settings, and notes on files that could not be used
    """
    layers = []
    if given is not None:
        layers.append(given)
    notes = []
    sources: dict[str, Callable[[], Layer]] = {}
    if manifest is not None:
        sources[FILE_NAME] = lambda: _of_manifest(manifest, FILE_NAME)
    if zoo_folder is not None:
        sources |= {f"rl-zoo's {name}": partial(_of_zoo, zoo_folder, name) for name in (ZOO_ARGUMENTS, ZOO_CONFIG)}
    for source, read in sources.items():
        try:
            layers.append(read())
        except (ValueError, OSError) as error:
            notes.append(f"the settings in {source} were ignored: {one_line(error)}")
    return RunSettings(tuple(layers), _defaults(RunSettings(tuple(layers)))), tuple(notes)


def _of_manifest(manifest: RunManifest, source: str) -> Layer:
    identity = {name: getattr(manifest, name) for name in _IDENTITY}
    known = {name: value for name, value in identity.items() if value is not None}
    return Layer.of(source, plain_mapping({**manifest.hyperparams, **known}, source))


def _of_zoo(folder: Path, name: str) -> Layer:
    content = read_mapping(folder / name)
    source = f"rl-zoo's {name}"
    if name != ZOO_ARGUMENTS:
        return Layer.of(source, content)
    pairs = {flag: content.get(flag.strip("-").replace("-", "_")) for flag in KEY_VALUE_FLAGS}
    given = {flag: values for flag, values in pairs.items() if isinstance(values, Mapping) and values}
    return replace(Layer.of(source, _zoo_arguments(content)), key_values=given)


def _zoo_arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {"algo": content.get("algo"), "env_id": content.get("env"), "seed": content.get("seed")}
    n_timesteps = content.get("n_timesteps")
    if isinstance(n_timesteps, int) and n_timesteps > 0:
        arguments["n_timesteps"] = n_timesteps
    for name in ("env_kwargs", "conf_file", "gym_packages"):
        arguments[name] = content.get(name) or None
    return {name: value for name, value in arguments.items() if value is not None}


def _defaults(given: RunSettings) -> Layer:
    """Return the defaults of SB3's TD3 or of VisualTD3, if the run used one of them; otherwise return no settings."""
    if given.algo not in ("td3", "visual_td3"):
        return Layer("default")
    known = _known_defaults()
    values = dict(known["td3"])
    if any(layer.source.endswith(ZOO_CONFIG) for layer in given.given):
        # rl-zoo passes only the settings in its file: without a noise_type in the file, TD3 has no action noise.
        values["action_noise"] = None
    if given.algo == "td3":
        return Layer("SB3's default", values)
    policy = given.value("policy")
    preset = str(given.value("preset") or ("td3" if policy == "MlpPolicy" else "visual"))
    return Layer("VisualTD3's default", {**values, **known["presets"].get(preset, {})})


def own_arguments() -> frozenset[str]:
    """Return the names of the settings that VisualTD3 has and SB3's TD3 does not."""
    rates = (group.rate_argument for group in GROUPS)
    return frozenset({*_known_defaults()["presets"]["td3"], *rates})


def known_names() -> frozenset[str]:
    """Return the names of all settings that the report knows."""
    return own_arguments() | {*_known_defaults()["td3"], *_NESTED, *_IDENTITY, "policy", "preset"}


@cache
def _known_defaults() -> dict[str, Any]:
    name = "hyperparam_defaults.yml"
    return parse_mapping(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"), name)


def _literal_or_text(code: str) -> Any:
    try:
        return plain_value(python_literal(code), "a literal")
    except ValueError:
        return code


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of every entry in nested mappings, with names joined by dots.

    :param values: a mapping
    :param prefix: text before each name
    """
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{name}.")
        else:
            yield name, value
