"""Define the presets, which give values to arguments that are None.

``"td3"`` turns everything off that VisualTD3 adds to TD3; ``"visual"`` is the recommended set for pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from gymnasium import spaces

from sb3_visual_td3.common.numbers import is_truth_value, to_float, to_integer
from sb3_visual_td3.common.pictures import pictures_in
from sb3_visual_td3.common.schedules import ScheduleLike
from sb3_visual_td3.visual_td3.losses import ActorObjective, CriticLoss
from sb3_visual_td3.visual_td3.param_groups import GradClip, MaxGradNorm, parsed_norms
from sb3_visual_td3.visual_td3.precision import Precision

PresetName = Literal["visual", "td3"]


@dataclass(frozen=True)
class Settings:
    """Hold the settings that VisualTD3 adds to TD3. The defaults are stock TD3: everything off.

    The fields are arguments of :class:`~sb3_visual_td3.VisualTD3`, which documents them.
    """

    max_grad_norm: MaxGradNorm = None
    grad_clip: GradClip = "norm"
    random_shift: int = 0
    actor_objective: ActorObjective = "q1"
    pre_tanh_penalty: float = 0.0
    target_q_clamp: float | bool = False
    critic_loss: CriticLoss = "mse"
    noise_schedule: ScheduleLike | None = None
    noise_correlation: float = 0.0
    precision: Precision = "fp32"
    policy_average: float = 0.0
    scale_rewards: bool = False
    policy_kwargs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


_CHOICES: Mapping[str, Any] = MappingProxyType(
    {"actor_objective": ActorObjective, "critic_loss": CriticLoss, "grad_clip": GradClip, "precision": Precision}
)
"""Settings that are one of several words, and the type that lists these words."""


def _parse(name: str, value: Any) -> Any:
    """Convert a numeric setting to a Python number, and return other settings unchanged.

    :raises ValueError: if the value is of the wrong kind or out of range
    """
    parsed = value
    if name in _CHOICES and value not in get_args(_CHOICES[name]):
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, get_args(_CHOICES[name])))}")
    if name == "random_shift":
        parsed = to_integer(name, value, 0, "an integer >= 0 (pixels)")
    elif name == "pre_tanh_penalty":
        parsed = to_float(name, value, 0.0)
    elif name == "noise_correlation":
        # With a correlation of 1 the noise would never change.
        parsed = to_float(name, value, 0.0, below=1.0, expected="a correlation >= 0 (0 is off) and < 1")
    elif name == "policy_average":
        # With a decay of 1 the average would stay at the initial weights.
        parsed = to_float(name, value, 0.0, below=1.0, expected="a decay >= 0 (0 is off) and < 1")
    elif name == "scale_rewards":
        if not is_truth_value(value):
            raise ValueError(f"scale_rewards={value!r}: expected True or False")
        parsed = bool(value)
    elif name == "target_q_clamp" and is_truth_value(value):
        parsed = bool(value)
    elif name == "target_q_clamp":
        parsed = to_float(name, value, above=0.0, expected="True, False or a finite number above 0")
    elif name == "max_grad_norm":
        parsed = parsed_norms(value)
    return parsed


ADAPTIVE_FACTOR = 0.3
"""Default of ``max_grad_norm`` with ``grad_clip="adaptive"``, a ratio of norms, from DreamerV3 (Hafner et al. 2023)."""

PRESETS: Mapping[PresetName, Settings] = MappingProxyType(
    {
        "td3": Settings(),
        "visual": Settings(
            max_grad_norm=10.0,  # a guess above the norms of healthy runs, so that it hardly ever clips
            random_shift=4,  # DrQ-v2
            actor_objective="min",  # DrQ-v2
            # Measured (benchmarks/visual_preset.py, 5,000 steps): the policies of five seeds drove 185-400 m with 2e-2,
            # and each drove farther with 5e-3. Without a penalty, one policy drove 500 m with 79 % of its actions
            # saturated. MR.Q uses 1e-5.
            pre_tanh_penalty=5e-3,
            target_q_clamp=True,  # limits from the rewards (TargetRange); TD7 clamps to the targets seen so far
            noise_schedule="lin_0.5_0.1",  # a guess: strong noise at first, weak noise once the policy is good
            precision="auto",  # measured: benchmarks/update_speed.py
            # Measured (benchmarks/stability.py, gamma 0.95, 21 seeds): after training, the averaged actor completes 98
            # to 100 of 100 held-out episodes, and the actor itself completes 86 to 100.
            policy_average=0.999,
            # The source is MR.Q. Measured without scale_rewards (benchmarks/class_swap.py): rewards x 100 saturate half
            # of the actions, and with rewards x 0.01 the policy does not learn.
            scale_rewards=True,
            policy_kwargs=MappingProxyType({"encoder": "shared", "trunk_dim": 50}),  # DrQ-v2
        ),
    }
)


def default_preset(observation_space: spaces.Space[Any]) -> PresetName:
    """Return ``"visual"`` if the observations contain images, and ``"td3"`` otherwise."""
    return "visual" if pictures_in(observation_space) else "td3"


class Resolved(NamedTuple):
    """Hold the value of a setting and the origin of this value, such as ``"argument"`` or the name of a preset."""

    value: Any
    origin: str


class Description(dict[str, Resolved]):
    """Map each setting's name to its value and origin; this dict prints as a table."""

    def __str__(self) -> str:
        rows = [("setting", "value", "from")]
        rows += [(name, repr(resolved.value), resolved.origin) for name, resolved in self.items()]
        name_width = max(len(name) for name, _, _ in rows)
        value_width = max(len(value) for _, value, _ in rows)
        return "\n".join(f"{name:<{name_width}}  {value:<{value_width}}  {origin}" for name, value, origin in rows)

    # An interactive session and a notebook show the repr of the last expression.
    __repr__ = __str__


def resolve(
    preset: PresetName | None,
    default: PresetName,
    arguments: Mapping[str, Any],
    given: Mapping[str, Any] | None = None,
) -> dict[str, Resolved]:
    """Decide which values a model uses: an explicit argument wins, and None means the preset's value.

    Each value is returned with its origin, such as ``"argument"`` or the name of a preset. The keys of
    ``policy_kwargs`` are resolved one by one and listed as ``policy_kwargs.<key>``.

    :param preset: ``"visual"``, ``"td3"`` or None for the default
    :param default: the preset that None stands for
    :param arguments: arguments by the names of :class:`Settings`; other names are ignored. The ``policy_kwargs`` of a
        loaded model already contain the values of its preset
    :param given: for a loaded model, the ``policy_kwargs`` that the user passed when the model was created. Only their
        keys get the origin ``"argument"``. None for a new model
    :return: entries by name, with the preset itself under ``preset``
    :raises ValueError: if the preset is unknown, or a value is of the wrong kind or out of range
    """
    if preset is not None and preset not in tuple(PRESETS):
        raise ValueError(f"preset={preset!r}: expected one of {', '.join(map(repr, PRESETS))}")
    if preset is None:
        resolved = {"preset": Resolved(default, "observation space")}
        preset = default
    else:
        resolved = {"preset": Resolved(preset, "argument")}
    for name in (f.name for f in fields(Settings) if f.name != "policy_kwargs"):
        value = arguments.get(name)
        if value is not None:
            resolved[name] = Resolved(_parse(name, value), "argument")
            continue
        preset_value = getattr(PRESETS[preset], name)
        # If a preset's value equals stock TD3's, the origin shown is TD3.
        origin = "td3" if preset_value == getattr(PRESETS["td3"], name) else preset
        resolved[name] = Resolved(preset_value, origin)
    if resolved["grad_clip"].value == "adaptive" and arguments.get("max_grad_norm") is None:
        # Adaptive clipping takes a ratio, and the preset's value is a norm.
        resolved["max_grad_norm"] = Resolved(ADAPTIVE_FACTOR, "grad_clip")
    resolved.update(_resolved_policy_kwargs(preset, arguments.get("policy_kwargs") or {}, given))
    return resolved


def _resolved_policy_kwargs(
    preset: PresetName, in_force: Mapping[str, Any], given: Mapping[str, Any] | None
) -> dict[str, Resolved]:
    """Return one entry for each keyword of the policy.

    :param preset: the preset that the model uses
    :param in_force: the model's ``policy_kwargs``. Those of a loaded model already contain the values of its preset
    :param given: for a loaded model, the ``policy_kwargs`` that the user passed when the model was created; None for a
        new model
    """
    chosen = PRESETS[preset].policy_kwargs
    if given is None:
        given = dict(in_force)
        if "trunk_dim" in chosen and "features_dim" in (given.get("features_extractor_kwargs") or {}):
            # In Stable-Baselines3, features_dim is the width of NatureCNN's dense layer. This layer replaces the trunk.
            given.setdefault("trunk_dim", None)
        in_force = {**chosen, **given}
    resolved = {}
    for key, value in in_force.items():
        source = "argument" if key in given else "saved model"
        if key not in given and key in chosen and chosen[key] == value:
            source = preset
        resolved[f"policy_kwargs.{key}"] = Resolved(value, source)
    return resolved


def settings_of(resolved: Mapping[str, Resolved]) -> Settings:
    """Return a :class:`Settings` object with the settings that the model uses.

    :param resolved: the result of :func:`resolve`
    """
    prefix = "policy_kwargs."
    policy_kwargs = {k.removeprefix(prefix): r.value for k, r in resolved.items() if k.startswith(prefix)}
    plain = {k: r.value for k, r in resolved.items() if not k.startswith(prefix) and k != "preset"}
    return Settings(**plain, policy_kwargs=policy_kwargs)
