"""Define the training run and the logged curves that show each diagnosis, for the pictures and the documentation."""

from __future__ import annotations

from dataclasses import dataclass

from sb3_visual_td3.common import tags

SCALED, RAW = "preset, separate encoders", "preset, rewards as they are"
"""Names of two healthy training runs of ``fault_bench.py``, for comparison. VecNormalize scales the rewards only in the
first one."""


@dataclass(frozen=True)
class Panel:
    """Describe a curve on which a diagnosis is based.

    :param tag: the curve's logged name
    :param is_log: True uses a logarithmic axis if the largest magnitude is at least 30 times the smallest one
    :param against: logged name of another curve of the same training run, drawn for comparison; empty for none
    """

    tag: str
    is_log: bool = False
    against: str = ""


@dataclass(frozen=True)
class Picture:
    """Describe the picture of one diagnosis.

    :param training: name of the training run with the fault, as in ``fault_bench.py``
    :param beside: name of a healthy training run, as in ``fault_bench.py``, whose curves are dashed
    :param panels: two or three curves
    :param look: what the reader should see in the picture
    """

    training: str
    beside: str
    panels: tuple[Panel, ...]
    look: str


_NORM, _RATIO = tags.GRADIENT_NORM, tags.UPDATE_RATIO

PICTURES: dict[str, Picture] = {
    "feature_leak": Picture(
        "leak",
        SCALED,
        (Panel(tags.ACTOR_LOSS, True), Panel(_NORM["actor_cnn"], True), Panel(_NORM["actor_mlp"], True)),
        "The actor's loss and the gradient of its encoder explode. The gradient of its head falls to almost nothing, "
        "although a correct loss reaches the encoder only through the head.",
    ),
    "clipping_masks_divergence": Picture(
        "leak, clipped",
        SCALED,
        (Panel(tags.ACTOR_LOSS, True), Panel(_NORM["actor_cnn"])),
        "The actor's loss explodes, as in `feature_leak`. The norm, which was logged after clipping, stays constant: "
        "it does not show the explosion.",
    ),
    "critic_overestimation": Picture(
        "inverse discount",
        SCALED,
        (Panel(tags.Q1_VALUE, True, against=tags.Q_BOUND), Panel(tags.CRITIC_LOSS, True)),
        "Q on replayed pairs grows past the bound that the sampled rewards allow (dash-dotted).",
    ),
    "policy_extrapolation": Picture(
        "policy is not heard",
        RAW,
        (Panel(tags.Q_GAP), Panel(tags.Q1_VALUE), Panel(tags.POLICY_Q_VALUE)),
        "The critic's Q of the policy's own actions grows far above its Q of the replayed actions.",
    ),
    "twin_critic_desync": Picture(
        "one critic",
        RAW,
        (Panel(tags.Q1_VALUE, against=tags.Q2_VALUE), Panel(tags.CRITIC_2_LOSS, True)),
        "One critic learns, and the Q values of the other critic (dash-dotted) hardly change. The two curves should "
        "almost coincide.",
    ),
    "actor_saturation": Picture(
        "stock, 1e-3",
        SCALED,
        (Panel(tags.ACTION_SATURATION), Panel(tags.PRE_TANH_ABS_MEAN), Panel(_NORM["actor_mlp"], True)),
        "All actions sit at the ends of their range, the activations before the tanh are large, and the head's "
        "gradient is gone. The critic's curves look normal meanwhile.",
    ),
    "vanishing_actor_gradient": Picture(
        "detached action",
        SCALED,
        (Panel(_NORM["actor_mlp"], True), Panel(_NORM["critic_mlp"], True), Panel(tags.ACTION_SATURATION)),
        "The actor's head gets no gradient while the critics get theirs; here no saturated tanh explains it.",
    ),
    "gradient_explosion": Picture(
        "gradients not unscaled",
        SCALED,
        (Panel(_NORM["critic_mlp"], True), Panel(_NORM["critic_cnn"], True)),
        "The norms are orders of magnitude above a healthy run's. These curves do not show the cause.",
    ),
    "constant_clipping": Picture(
        "clipped to nothing",
        SCALED,
        (Panel(tags.CLIP_FRACTION["actor_mlp"]), Panel(_NORM["actor_mlp"], True)),
        "Nearly every update is clipped, and the norms before clipping are no larger than a healthy run's: the limit "
        "is too low.",
    ),
    "reward_scale": Picture(
        "millimetres",
        RAW,
        (Panel(tags.REWARD_MAX, True), Panel(_NORM["critic_mlp"], True)),
        "The largest sampled reward is a thousand times a healthy run's, and the critics' gradients grow with it.",
    ),
    "reward_imbalance": Picture(
        "one term",
        RAW,
        (Panel(tags.REWARD_TERM["progress"], True), Panel(tags.REWARD_TERM["lane_centring"], True)),
        "One term is orders of magnitude above the others. The curves show weighted terms, averaged over steps.",
    ),
    "learning_rate_too_high": Picture(
        "learning rate 0.1",
        SCALED,
        (Panel(_RATIO["critic_mlp"], True), Panel(_RATIO["critic_cnn"], True)),
        "Each of the first steps changes the weights by a large part of their norm. Later steps look small because the "
        "weights have become large, or because the encoder no longer gets a gradient.",
    ),
    "stale_target_network": Picture(
        "no soft update",
        SCALED,
        (Panel(tags.TARGET_MOVED["critic"]), Panel(tags.TARGET_DISTANCE["critic"])),
        "The target network has never moved, and its distance to the critic grows.",
    ),
    "encoder_frozen": Picture(
        "detached encoder",
        SCALED,
        (Panel(_NORM["critic_cnn"], True), Panel(_NORM["critic_mlp"], True)),
        "The encoder's gradient is 0 (drawn at the foot of the log axis) while the head behind it learns.",
    ),
    "dead_camera": Picture(
        "dead camera",
        SCALED,
        (Panel(tags.FRAME_STD), Panel(tags.FRAME_CHANGE)),
        "Here the camera is covered: a frame has no contrast, and does not differ from the previous frame. The frames "
        "of a frozen camera have contrast, but do not change.",
    ),
    "short_warmup": Picture(
        "no warm-up",
        SCALED,
        (Panel(tags.TOTAL_ITERATIONS), Panel(tags.CRITIC_LOSS, True)),
        "The updates begin at the start of the run. In the healthy run, they begin when the replay buffer holds 500 "
        "transitions.",
    ),
    "episode_collapse": Picture(
        "falls through the road",
        SCALED,
        (Panel(tags.EPISODE_LENGTH), Panel(tags.EPISODE_REWARD)),
        "From a certain step on, the episodes end almost as soon as they begin.",
    ),
    "non_finite": Picture(
        "log of zero",
        SCALED,
        (Panel(tags.CRITIC_LOSS, True), Panel(tags.Q1_VALUE), Panel(tags.ACTOR_LOSS)),
        "The curves end where the values become NaN, because NaN cannot be drawn.",
    ),
}
"""The pictures by the id of the diagnosis."""
