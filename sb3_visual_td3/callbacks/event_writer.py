"""Writing scalars to the run's event file, and the layout of TensorBoard's "Custom Scalars" page.

Stable-Baselines3's logger writes all values together, every few episodes. Our callbacks write at their own steps, and
some of them against episodes, so they use the event file directly.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat

from sb3_visual_td3.callbacks.saving import make_event_files_retry
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import GROUP_NAMES
from sb3_visual_td3.common.tags import is_known
from sb3_visual_td3.diagnosis.rules import LIVE_RULES

Charts = Mapping[str, Sequence[str]]
"""Titles of charts, and the logged names that each of them shows."""

_CLIPPING: Charts = {
    f"{group}: norm before and after clipping": (tags.GRADIENT_NORM[group], tags.GRADIENT_NORM_CLIPPED[group])
    for group in GROUP_NAMES
}

DASHBOARD: Mapping[str, Charts] = {
    "Actor and critic": {
        "loss of the actor": (tags.ACTOR_LOSS,),
        "losses of the critics": (tags.CRITIC_LOSS, tags.CRITIC_1_LOSS, tags.CRITIC_2_LOSS),
        "Q: replayed pairs, target, policy": (tags.Q1_VALUE, tags.Q2_VALUE, tags.TARGET_Q_MEAN, tags.POLICY_Q_VALUE),
        "what the actor believes it gains": (tags.Q_GAP,),
        "largest |Q| that the rewards allow": (tags.Q_BOUND,),
        "rewards as the critic sees them": (tags.REWARD_MIN, tags.REWARD_MAX),
    },
    "Gradients": {
        "norms before clipping": tuple(tags.GRADIENT_NORM.values()),
        **_CLIPPING,
        "fraction of updates clipped": tuple(tags.CLIP_FRACTION.values()),
        "step over weights": tuple(tags.UPDATE_RATIO.values()),
        "1: norms as seen by the optimizer": (tags.SEEN_BY_OPTIMIZER,),
    },
    "Alerts": {
        "norms above a threshold": (tags.ALERT_WARNING, tags.ALERT_CRITICAL),
        "rules": tuple(map(tags.alert_of_rule, LIVE_RULES)),
    },
    "Health of the agent": {
        "actions at the end of their range": (tags.ACTION_SATURATION,),
        "before the tanh": (tags.PRE_TANH_ABS_MEAN,),
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
        "reward: policy, random, best": (tags.EVAL_REWARD, tags.EVAL_RANDOM_REWARD, tags.EVAL_BEST_REWARD),
        "step of the best evaluation": (tags.EVAL_BEST_STEP,),
        "success": (tags.EVAL_SUCCESS_RATE,),
        "speed": (tags.EVAL_SPEED,),
        "length": (tags.EVAL_LENGTH,),
        "accidents": (tags.EVAL_COLLISIONS, tags.EVAL_LANE_INVASIONS),
    },
    "Settings in force": {
        "learning rates": tuple(tags.GROUP_LR.values()),
        "exploration noise": (tags.EXPLORATION_NOISE,),
        "weights, mean": tuple(tags.PARAM_MEAN.values()),
        "weights, standard deviation": tuple(tags.PARAM_STD.values()),
        "updates": (tags.TOTAL_ITERATIONS,),
        "replay buffer, part filled": (tags.BUFFER_UTILIZATION,),
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
"""Titles of groups, and the charts of each. Every name of the table is in at least one chart."""


def custom_scalars() -> dict[str, dict[str, list[str | list[str]]]]:
    """Return the dashboard in TensorBoard's format, with a regular expression for each line of a chart.

    TensorBoard matches at the start of a name, so each expression ends with ``$``: otherwise ``critic_cnn_norm`` would
    also match ``critic_cnn_norm_clipped``. Reward terms of a user's environment appear in the chart of ours.

    :return: the argument of ``SummaryWriter.add_custom_scalars``
    """
    return {
        group: {title: ["Multiline", _patterns(names)] for title, names in charts.items()}
        for group, charts in DASHBOARD.items()
    }


def _patterns(names: Sequence[str]) -> list[str]:
    if set(names) & set(tags.REWARD_TERM.values()):
        return [f"{re.escape(tags.REWARD)}.+$"]
    return [f"{re.escape(name)}$" for name in names]


_have_the_dashboard: weakref.WeakSet[Any] = weakref.WeakSet()


class EventWriter:
    """Writes scalars into the event files of a logger, at steps of the caller's choice.

    The first writer of an event file also writes the dashboard into it.

    :param logger: logger of the model; without a TensorBoard output, nothing is written
    """

    def __init__(self, logger: Logger) -> None:
        make_event_files_retry(logger)
        self._writers = [out.writer for out in logger.output_formats if isinstance(out, TensorBoardOutputFormat)]
        for writer in self._writers:
            if writer not in _have_the_dashboard:
                _have_the_dashboard.add(writer)
                writer.add_custom_scalars(custom_scalars())

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Write one point of each scalar.

        :param scalars: value by logged name; every name must be in ``common/tags.py``
        :param step: environment steps so far, or the number of the episode if the table says so
        """
        unknown = sorted(name for name in scalars if not is_known(name))
        assert not unknown, f"not in common/tags.py: {unknown}"
        for writer in self._writers:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
            writer.flush()


def run_directory(logger: Logger) -> Path | None:
    """Return the folder of the run that a logger belongs to.

    :param logger: logger of the model
    :return: the folder that holds ``tb/``, otherwise the folder of the event files; None without event files
    """
    # Without tensorboard_log, Stable-Baselines3 creates a temporary folder, where files of the run would be lost.
    if logger.dir is None or not any(isinstance(out, TensorBoardOutputFormat) for out in logger.output_formats):
        return None
    folder = Path(logger.dir)
    holders = [parent.parent for parent in (folder, *folder.parents) if parent.name == "tb"]
    return holders[0] if holders else folder
