"""A factor on a model's learning rates that lasts, whatever its schedules say."""

from __future__ import annotations

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_visual_td3.common.schedules import Scaled
from sb3_visual_td3.common.types import GuardedModel


def lr_scale_of(model: BaseAlgorithm) -> float:
    """:return: the factor in force; 1 where nobody has set one"""
    if isinstance(model, GuardedModel):
        return model.lr_scale
    return model.lr_schedule.factor if isinstance(model.lr_schedule, Scaled) else 1.0


def set_lr_scale(model: BaseAlgorithm, factor: float) -> None:
    """Have every learning rate multiplied from the next training on.

    Of a stock algorithm ``lr_schedule`` is wrapped, and ``learning_rate`` too: ``load()`` makes the one of the other.

    :param model: any of Stable-Baselines3's kind
    :param factor: on the rates as they were given
    """
    if isinstance(model, GuardedModel):
        model.lr_scale = factor
    elif factor != lr_scale_of(model):
        given = model.lr_schedule.schedule if isinstance(model.lr_schedule, Scaled) else model.lr_schedule
        model.lr_schedule = model.learning_rate = Scaled(given, factor)
