"""Write scalars to the run's event file, and define the layout of TensorBoard's "Custom Scalars" page.

The callbacks write to the event file directly, because Stable-Baselines3's logger writes only every few episodes.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_visual_td3.callbacks.saving import make_event_files_retry
from sb3_visual_td3.callbacks.watching import pictures_seen_by
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_CNN, CRITIC_CNN, GROUP_NAMES
from sb3_visual_td3.common.tags import is_known
from sb3_visual_td3.common.types import WatchedModel
from sb3_visual_td3.diagnosis.rules import LIVE_RULES
from sb3_visual_td3.health.stock_watch import stepped_groups
from sb3_visual_td3.training_state.callback_state import callbacks_in

EVENT_FOLDER = "tb"
"""Name of the folder in RUN_DIR that holds the event files."""
Charts = Mapping[str, Sequence[str]]
"""Title of each chart, and the logged names that the chart shows."""

_CLIPPING: Charts = {
    f"{group}: norm before and after clipping": (tags.GRADIENT_NORM[group], tags.GRADIENT_NORM_CLIPPED[group])
    for group in GROUP_NAMES
}

DASHBOARD: Mapping[str, Charts] = {
    "Actor and critic": {
        "loss of the actor": (tags.ACTOR_LOSS,),
        "losses of the critics": (tags.CRITIC_LOSS, tags.CRITIC_1_LOSS, tags.CRITIC_2_LOSS),
        "Q: replayed pairs, target, policy": (tags.Q1_VALUE, tags.Q2_VALUE, tags.TARGET_Q_MEAN, tags.POLICY_Q_VALUE),
        "Q of the policy's actions minus Q of replayed actions": (tags.Q_GAP,),
        "largest |Q| that the rewards allow": (tags.Q_BOUND,),
        "smallest and largest reward in the critic's batches": (tags.REWARD_MIN, tags.REWARD_MAX),
    },
    "Gradients": {
        "norms before clipping": tuple(tags.GRADIENT_NORM.values()),
        **_CLIPPING,
        "fraction of updates clipped": tuple(tags.CLIP_FRACTION.values()),
        "norm of a step divided by norm of the weights": tuple(tags.UPDATE_RATIO.values()),
        "norms measured at the optimizer's step (1: yes)": (tags.SEEN_BY_OPTIMIZER,),
    },
    "Alerts": {
        "norms above a threshold": (tags.ALERT_WARNING, tags.ALERT_CRITICAL),
        "rules": tuple(map(tags.alert_of_rule, LIVE_RULES)),
    },
    "Health of the agent": {
        "actions at the end of their range": (tags.ACTION_SATURATION,),
        "mean activation before the tanh": (tags.PRE_TANH_ABS_MEAN,),
        "spread of the action that varies least": (tags.ACTION_STD_MIN,),
        "dormant units of the encoder": (tags.ENCODER_DORMANT_FRACTION,),
        "distance from the targets": tuple(tags.TARGET_DISTANCE.values()),
        "targets that moved": tuple(tags.TARGET_MOVED.values()),
        "contrast of the frames": (tags.FRAME_STD,),
        "change of the frames": (tags.FRAME_CHANGE,),
    },
    "Driving": {
        "terms of the reward, per step": tuple(tags.REWARD_TERM.values()),
        "reward of an episode": (tags.EPISODE_REWARD,),
        "length of an episode": (tags.EPISODE_LENGTH,),
        "route and success of an episode": (tags.EPISODE_ROUTE_COMPLETION, tags.EPISODE_SUCCESS),
        "accidents of an episode": (tags.EPISODE_COLLISIONS, tags.EPISODE_LANE_INVASIONS),
        "speed": (tags.PROGRESS_SPEED,),
        "reward of a step": (tags.PROGRESS_REWARD,),
        "steps in the episode": (tags.PROGRESS_EPISODE_STEPS,),
    },
    "Evaluation": {
        "metres: policy, random, full brake": (tags.EVAL_DISTANCE, tags.EVAL_RANDOM_DISTANCE, tags.EVAL_BRAKE_DISTANCE),
        "reward: policy, random, untrained, best": (
            tags.EVAL_REWARD,
            tags.EVAL_RANDOM_REWARD,
            tags.EVAL_UNTRAINED_REWARD,
            tags.EVAL_BEST_REWARD,
        ),
        "step of the best evaluation": (tags.EVAL_BEST_STEP,),
        "success": (tags.EVAL_SUCCESS_RATE,),
        "speed": (tags.EVAL_SPEED,),
        "length": (tags.EVAL_LENGTH,),
        "accidents": (tags.EVAL_COLLISIONS, tags.EVAL_LANE_INVASIONS),
    },
    "Settings in force": {
        "learning rates": tuple(tags.GROUP_LR.values()),
        "exploration noise": (tags.EXPLORATION_NOISE,),
        "divisor of the rewards": (tags.REWARD_DIVISOR,),
        "weights, mean": tuple(tags.PARAM_MEAN.values()),
        "weights, standard deviation": tuple(tags.PARAM_STD.values()),
        "updates": (tags.TOTAL_ITERATIONS,),
        "replay buffer, fraction filled": (tags.BUFFER_UTILIZATION,),
        "replay buffer, transitions": (tags.PROGRESS_BUFFER_SIZE,),
        "actions of the guard": (tags.GUARD_ACTIONS,),
        "yes or no": (
            tags.IS_TRAINING,
            tags.HAS_ENCODER,
            tags.ENCODER_IS_SHARED,
            tags.REWARD_IS_NORMALIZED,
            tags.RETURN_IS_UNDISCOUNTED,
        ),
        "frozen groups": tuple(tags.GROUP_FROZEN.values()),
    },
}
"""Title of each group of charts, and the charts in it. Every name in ``common/tags.py`` is in at least one chart."""


_BY_GROUP = (
    tags.GRADIENT_NORM,
    tags.GRADIENT_NORM_CLIPPED,
    tags.CLIP_FRACTION,
    tags.UPDATE_RATIO,
    tags.GROUP_LR,
    tags.PARAM_MEAN,
    tags.PARAM_STD,
    tags.GROUP_FROZEN,
)
"""Tags that are logged once for each group of weights that a model has."""


def names_in_reach(model: BaseAlgorithm, callbacks: Iterable[BaseCallback]) -> set[str]:
    """Return the logged names that a model and its callbacks can write.

    :param model: the model that is trained
    :param callbacks: all callbacks of the training
    :return: the names, including those that depend on the environment's ``info``
    """
    callbacks = list(callbacks)
    classes = {name for callback in callbacks for name in _our_classes(callback)}
    names = {name for name, tag in tags.TAGS.items() if tag.owner in classes}
    names |= {tags.ACTOR_LOSS, tags.CRITIC_LOSS}  # Without GradientNormCallback, the algorithm logs these names itself.
    if "ExplosionAlertCallback" in classes:
        names |= set(map(tags.alert_of_rule, LIVE_RULES))
    if any(isinstance(callback, EvalCallback) for callback in callbacks):
        names.add(tags.EVAL_REWARD)
    if "DrivingEvalCallback" in classes:
        names.add(tags.EVAL_RANDOM_REWARD)
    # The callback is found by its class, because a user's callback may also have an attribute named ``guard``.
    alerts = [callback for callback in callbacks if "ExplosionAlertCallback" in _our_classes(callback)]
    if all(vars(alert)["guard"].on_critical == "warn" for alert in alerts):
        names.discard(tags.GUARD_ACTIONS)

    groups = _groups_of(model)
    for by_group in _BY_GROUP:
        names -= {name for group, name in by_group.items() if group not in groups}
    if not groups & {ACTOR_CNN.name, CRITIC_CNN.name}:
        names.discard(tags.ENCODER_DORMANT_FRACTION)
    if not isinstance(model, OffPolicyAlgorithm) or not pictures_seen_by(model):
        names -= {tags.FRAME_STD, tags.FRAME_CHANGE}
    if not isinstance(model, WatchedModel):
        names -= {*tags.CLIP_FRACTION.values(), *tags.HIDDEN_IN_STOCK}
    return names


def _our_classes(callback: BaseCallback) -> set[str]:
    """Return the names of those classes in a callback's MRO that this package defines.

    The module of a class is checked, because a user's class may have the same name.
    """
    return {cls.__name__ for cls in type(callback).__mro__ if cls.__module__.startswith("sb3_visual_td3.")}


def _groups_of(model: Any) -> set[str]:
    if hasattr(model, "groups"):
        return set(model.groups)
    if hasattr(model, "actor") and hasattr(model, "critic"):
        return {group for by_name in stepped_groups(model.actor, model.critic).values() for group in by_name}
    return set()


def custom_scalars(names: Collection[str] | None = None) -> dict[str, dict[str, list[str | list[str]]]]:
    """Return the layout of the "Custom Scalars" page, with a regular expression for each line of a chart.

    The chart of the reward terms also shows the terms of your own environment.

    :param names: logged names to show; None shows every name in ``common/tags.py``
    :return: the argument of ``SummaryWriter.add_custom_scalars``
    """
    layout: dict[str, dict[str, list[str | list[str]]]] = {}
    for group, charts in DASHBOARD.items():
        for title, of_chart in charts.items():
            shown = [name for name in of_chart if names is None or name in names]
            if shown:
                layout.setdefault(group, {})[title] = ["Multiline", _patterns(shown)]
    return layout


def _patterns(names: Sequence[str]) -> list[str]:
    if set(names) & set(tags.REWARD_TERM.values()):
        return [f"{re.escape(tags.REWARD)}.+$"]
    return [f"{re.escape(name)}$" for name in names]


_have_the_dashboard: weakref.WeakSet[Any] = weakref.WeakSet()


class EventWriter:
    """Write scalars into the event files of a logger, at steps of the caller's choice.

    The first writer of an event file also writes the layout of the "Custom Scalars" page into it.

    :param logger: if it does not write to TensorBoard, nothing is written
    :param names: logged names that the page shows in its charts; None shows every name in ``common/tags.py``
    """

    def __init__(self, logger: Logger, names: Collection[str] | None = None) -> None:
        make_event_files_retry(logger)
        self._writers = [out.writer for out in logger.output_formats if isinstance(out, TensorBoardOutputFormat)]
        for writer in self._writers:
            if writer not in _have_the_dashboard:
                _have_the_dashboard.add(writer)
                writer.add_custom_scalars(custom_scalars(names))

    @classmethod
    def of(cls, callback: BaseCallback) -> EventWriter:
        """Return a writer for a callback; it writes into the event files of the callback's logger.

        :param callback: a callback whose training has started
        """
        root = callback.locals.get("callback", callback)
        return cls(callback.logger, names_in_reach(callback.model, callbacks_in(root)))

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Write one point of each scalar into the event files.

        :param scalars: value by logged name; every name must be in ``common/tags.py``
        :param step: environment steps so far, or the number of the episode for names with episodes as x-axis
        """
        unknown = sorted(name for name in scalars if not is_known(name))
        assert not unknown, f"these names are not in common/tags.py: {unknown}; add them to the table there"
        for writer in self._writers:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
            writer.flush()


def run_directory(logger: Logger) -> Path | None:
    """Return the folder of the run that a logger belongs to.

    :param logger: logger of the model
    :return: the folder that holds ``tb/`` if the event files are below ``tb/``, otherwise the folder of the event
        files; None if there are no event files
    """
    # Without tensorboard_log, Stable-Baselines3 creates a temporary folder, where files of the run would be lost.
    if logger.dir is None or not any(isinstance(out, TensorBoardOutputFormat) for out in logger.output_formats):
        return None
    folder = Path(logger.dir)
    holders = [parent.parent for parent in (folder, *folder.parents) if parent.name == EVENT_FOLDER]
    return holders[0] if holders else folder
