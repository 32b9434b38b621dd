"""Define the plots of one run as data: their tags, colours and thresholds."""

from __future__ import annotations

from dataclasses import dataclass

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_CNN, ACTOR_MLP, CRITIC_CNN, CRITIC_MLP, GROUP_NAMES

# The palette of Okabe and Ito, whose colours are distinct for all common kinds of colour vision. The light colours are
# darkened until their contrast with white is 3 : 1, which WCAG 2 requires of graphics.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED, BLACK = (
    "#0072B2",
    "#D55E00",
    "#00875F",
    "#B0568F",
    "#2F8FCB",
    "#B3261E",
    "#333333",
)
LINE_COLOURS = (ORANGE, BLUE, GREEN, PURPLE, SKY, BLACK)
STEP_AXIS, EPISODE_AXIS = "environment step", "episode"
FRACTION = (-0.03, 1.05)
"""The y-axis of quantities between 0 and 1."""

DASHES = ("solid", "dot", "dash", "dashdot")


@dataclass(frozen=True)
class Line:
    """Describe one curve of a plot.

    :param magnitude: whether to draw |x|; the hover label shows the logged value
    :param dash: dash pattern, to tell curves apart without colour
    """

    tag: str
    label: str
    colour: str
    magnitude: bool = False
    dash: str = "solid"


@dataclass(frozen=True)
class Mark:
    """Describe a horizontal line at the threshold of a criterion."""

    criterion: str
    label: str


@dataclass(frozen=True)
class Panel:
    """Describe one plot, which appears if the run logged at least one of its lines.

    :param id: anchor of the plot in report.html
    :param marks: thresholds to draw as lines
    :param y_range: limits of the y-axis; None for automatic limits
    :param requires: tag without which the plot is left out; None if no tag is required
    """

    id: str
    title: str
    caption: str
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...] = ()
    log: bool = False
    unit: str = ""
    x_title: str = STEP_AXIS
    y_range: tuple[float, float] | None = None
    requires: str | None = None

    @property
    def has_alerts(self) -> bool:
        """Return whether alerts, which are logged at environment steps, can be drawn in this plot."""
        return self.x_title != EPISODE_AXIS


_GROUP_COLOURS = {ACTOR_CNN.name: ORANGE, ACTOR_MLP.name: PURPLE, CRITIC_CNN.name: BLUE, CRITIC_MLP.name: SKY}


def _groups(names: dict[str, str], *, magnitude: bool = False) -> tuple[Line, ...]:
    return tuple(
        Line(names[group], group, _GROUP_COLOURS[group], magnitude=magnitude, dash=DASHES[i])
        for i, group in enumerate(GROUP_NAMES)
    )


PANELS = (
    Panel(
        "actor_loss",
        "Actor loss compared with the Q values",
        "Magnitudes on a log axis. A healthy loss has the order of magnitude of Q. If the lines diverge, the loss is "
        "based on Q values that are much larger than the Q values of replayed pairs.",
        (
            Line(tags.ACTOR_LOSS, "|actor loss|", ORANGE, magnitude=True),
            Line(tags.Q1_VALUE, "|Q1| on replayed pairs", BLUE, magnitude=True, dash="dash"),
            Line(tags.POLICY_Q_VALUE, "|Q1| of the policy's actions", GREEN, magnitude=True, dash="dashdot"),
            Line(tags.Q_BOUND, "largest |Q| that rewards allow", BLACK, magnitude=True, dash="dot"),
        ),
        log=True,
        unit="return",
        requires=tags.ACTOR_LOSS,
    ),
    Panel(
        "gradients",
        "Gradient norms of the four groups",
        "Log axis.",
        _groups(tags.GRADIENT_NORM, magnitude=True),
        (Mark("actor_cnn_norm_mean", "GO: actor_cnn mean below"), Mark("actor_cnn_norm_no_go", "NO-GO: mean above")),
        log=True,
    ),
    Panel(
        "q_values",
        "Q values",
        "Both critics on replayed pairs, the first critic on the policy's own actions, and the target.",
        (
            Line(tags.Q1_VALUE, "Q1", BLUE),
            Line(tags.Q2_VALUE, "Q2", SKY, dash="dot"),
            Line(tags.POLICY_Q_VALUE, "Q1 of the policy's actions", GREEN, dash="dash"),
            Line(tags.TARGET_Q_MEAN, "target", PURPLE, dash="dashdot"),
        ),
        unit="return",
    ),
    Panel(
        "q_bound",
        "|Q| compared with the largest value that the rewards allow",
        "Log axis. The dotted line is max|R| / (1 - discount). A Q value above it is wrong, whatever the policy does.",
        (
            Line(tags.Q_BOUND, "largest |Q| that rewards allow", BLACK, magnitude=True, dash="dot"),
            Line(tags.Q1_VALUE, "|Q1|", BLUE, magnitude=True),
            Line(tags.Q2_VALUE, "|Q2|", SKY, magnitude=True, dash="dash"),
            Line(tags.POLICY_Q_VALUE, "|Q1| of the policy's actions", GREEN, magnitude=True, dash="dashdot"),
        ),
        log=True,
        unit="return",
        requires=tags.Q_BOUND,
    ),
    Panel(
        "critic_loss",
        "Critic loss",
        "Mean squared temporal-difference error: the sum, and each critic's own.",
        (
            Line(tags.CRITIC_LOSS, "both critics", BLUE),
            Line(tags.CRITIC_1_LOSS, "first critic", GREEN, dash="dash"),
            Line(tags.CRITIC_2_LOSS, "second critic", ORANGE, dash="dot"),
        ),
        (Mark("critic_loss_mean", "GO: mean below"),),
        unit="return²",
    ),
    Panel(
        "policy",
        "Saturation and spread of the actions",
        "Fraction of actions at the ends of their range, and the smallest spread of an action over a batch.",
        (
            Line(tags.ACTION_SATURATION, "saturated actions", ORANGE),
            Line(tags.ACTION_STD_MIN, "smallest action std", BLUE, dash="dash"),
        ),
        (Mark("policy_is_alive", "dead from"),),
        y_range=FRACTION,
    ),
    Panel(
        "pre_tanh",
        "The policy before its tanh",
        "Mean |u|. Beyond about 3 the tanh is flat and passes almost no gradient.",
        (Line(tags.PRE_TANH_ABS_MEAN, "mean |u|", PURPLE),),
    ),
    Panel(
        "driving",
        "Metres driven, compared with random actions and full braking",
        "Per evaluation episode.",
        (
            Line(tags.EVAL_DISTANCE, "policy", GREEN),
            Line(tags.EVAL_RANDOM_DISTANCE, "random actions", ORANGE, dash="dash"),
            Line(tags.EVAL_BRAKE_DISTANCE, "full brake", BLACK, dash="dot"),
        ),
        unit="m",
    ),
    Panel(
        "clipping",
        "Clipped updates",
        "Fraction of updates in which the group's gradient was clipped. If almost every update is clipped, the norm "
        "after clipping only shows the limit.",
        _groups(tags.CLIP_FRACTION),
        y_range=FRACTION,
    ),
    Panel(
        "update_ratios",
        "Relative step sizes",
        "Norm of a step divided by the norm of the weights, on a log axis. About 0.001 is usual; a group at 0 does "
        "not change.",
        _groups(tags.UPDATE_RATIO, magnitude=True),
        log=True,
    ),
    Panel(
        "episode_length",
        "Episode length",
        "One point per episode; log axis.",
        (Line(tags.EPISODE_LENGTH, "steps", BLUE, magnitude=True),),
        log=True,
        unit="steps",
        x_title=EPISODE_AXIS,
    ),
    Panel(
        "episode_reward",
        "Episode reward",
        "One point per episode: the environment's own rewards, summed.",
        (Line(tags.EPISODE_REWARD, "reward", GREEN),),
        unit="reward",
        x_title=EPISODE_AXIS,
    ),
)
"""The plots of a run, except the plot of the reward terms, whose names depend on the environment."""


def reward_panel(terms: tuple[str, ...]) -> Panel:
    """Return the panel of the reward terms.

    :param terms: tags of the terms, the largest term first
    """
    lines = (
        Line(tag, tag.partition("/")[2], LINE_COLOURS[i % len(LINE_COLOURS)], dash=DASHES[i % len(DASHES)])
        for i, tag in enumerate(terms)
    )
    caption = "Mean per step of each term, multiplied by its weight in the reward."
    return Panel("reward_terms", "Reward terms", caption, tuple(lines), unit="reward")


RETURNS = "returns"


def returns_panel(names: tuple[str, ...], x_title: str) -> Panel:
    """Return the panel of the return curves on which the verdict is based.

    :param names: tags of the curves, the evaluation first
    :param x_title: what the x-axis counts
    """
    lines = (
        Line(name, name, LINE_COLOURS[i % len(LINE_COLOURS)], dash=DASHES[i % len(DASHES)])
        for i, name in enumerate(names)
    )
    caption = "The curves that show whether the policy learns."
    return Panel(RETURNS, "Returns", caption, tuple(lines), unit="return", x_title=x_title)
