"""Define what the doctor can find, and the examination that collects the findings.

The doctor examines a model and its environment before a training run. :data:`CATALOGUE` holds the title, the remedy and
the source of each finding. In the catalogue, causes come before their effects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

FORMAT_VERSION = 1
"""Version of the JSON that :meth:`Examination.as_json` returns."""

Severity = Literal["problem", "warning"]
Status = Literal["pass", "fail", "skipped"]
STATUSES: tuple[Status, ...] = ("fail", "skipped", "pass")
SEVERITIES: tuple[Severity, ...] = ("problem", "warning")


class Entry(NamedTuple):
    """Hold the part of a finding that is the same in every examination.

    :ivar title: one line that names the finding
    :ivar severity: ``"problem"`` if the run is likely to fail; ``"warning"`` if what was found may be intended
    :ivar remedy: what the user should do
    :ivar source: where the criterion comes from
    :ivar example: a mistake that causes the finding, in Markdown
    """

    title: str
    severity: Severity
    remedy: str
    source: str
    example: str


_GYMNASIUM = "Gymnasium, documentation of Env.step and Env.reset"
_SB3_TIPS = "Stable-Baselines3, Reinforcement Learning Tips and Tricks"
_SB3_NOISE = "Fujimoto et al. 2018 (TD3): a deterministic policy explores only by the noise on its actions"
_MARGIN = "a margin around the values in rl-zoo's tuned hyperparameters for off-policy algorithms"
_COUNT = "arithmetic"

CATALOGUE: Mapping[str, Entry] = {
    "environment_error": Entry(
        "The environment raises an exception",
        "problem",
        "Correct reset() or step() where the exception is raised, or restart the simulator, and examine the run again. "
        "The remaining checks of the environment and the learner were not made.",
        _GYMNASIUM,
        "the connection to the simulator breaks after some steps",
    ),
    "non_finite_observation": Entry(
        "An observation is not finite",
        "problem",
        "Find the sensor that returns NaN or infinity. One such value makes every weight NaN.",
        "Stable-Baselines3, Dealing with NaNs and infs",
        "the distance to an obstacle that is not there is NaN",
    ),
    "space_mismatch": Entry(
        "Observations do not fit the observation space",
        "problem",
        "Return observations with the dtype, shape and bounds of observation_space. Vectorized environments cast "
        "silently, so the policy would get other numbers than the environment returned.",
        "Gymnasium, Space.contains; Stable-Baselines3, check_env",
        "observation_space is uint8 from 0 to 255, but the camera returns float32 from 0 to 1",
    ),
    "non_finite_reward": Entry(
        "A reward is not finite",
        "problem",
        "Find the division or logarithm in the reward that gives NaN or infinity, and bound its result.",
        "Stable-Baselines3, Dealing with NaNs and infs",
        "the reward is the logarithm of a distance that becomes 0",
    ),
    "dead_camera": Entry(
        "The camera shows nothing",
        "problem",
        "Look at a frame: plt.imshow(env.reset()[0]). Check the camera's position, its exposure and the conversion to "
        "uint8 (values of 0 to 1 become 0).",
        "a picture of a single brightness holds no information",
        "`astype(np.uint8)` on pixels of 0 to 1 makes every picture black",
    ),
    "frozen_camera": Entry(
        "The camera's picture never changes",
        "problem",
        "Render a new frame at every step, and return a copy of it. A simulator that is not ticked between two reads "
        "returns the old frame.",
        "a picture that never changes shows no effect of an action",
        "the camera is read before the simulator's tick, or the first frame is cached",
    ),
    "scaled_pixels": Entry(
        "Pixels are scaled, and will be scaled again",
        "problem",
        "Return uint8 values of 0 to 255, which the policy divides by 255; or float32 values of 0 to 1 with bounds 0 "
        "and 1, and policy_kwargs=dict(normalize_images=False). Do not scale twice.",
        "Stable-Baselines3, preprocess_obs divides uint8 images by 255",
        "`image / 255` in a wrapper, and the policy divides by 255 again",
    ),
    "stack_order": Entry(
        "Stacked frames are in the wrong order",
        "problem",
        "Stack along the channels, oldest frame first, and shift by one frame at each step, as VecFrameStack does.",
        "Stable-Baselines3, VecFrameStack",
        "`np.concatenate([new, *old])` puts the newest frame first",
    ),
    "seed_ignored": Entry(
        "The seed is ignored",
        "problem",
        "Draw all random numbers from self.np_random, after super().reset(seed=seed). Otherwise a run cannot be "
        "repeated, and two policies cannot be compared on the same episodes.",
        _GYMNASIUM,
        "`np.random.uniform()` in `reset()` instead of `self.np_random`",
    ),
    "identical_resets": Entry(
        "Every episode begins in the same way",
        "warning",
        "Draw the start from self.np_random in reset(). A policy that always starts in the same place learns only "
        "that place. Ignore this if the task has a single start.",
        "a guess that a random start is wanted",
        "`reset()` calls `super().reset(seed=0)`",
    ),
    "action_without_effect": Entry(
        "An action changes nothing",
        "problem",
        "Follow the action through step(). Is its index right? Is it clipped or rescaled to a constant? Does the "
        "simulator read it before the next tick?",
        "paired rollouts from the same seed that differ only in this action",
        "`action[0]` steers and brakes, and `action[1]` is never read",
    ),
    "time_limit_terminates": Entry(
        "A time limit is reported as terminated",
        "problem",
        "Return truncated=True and terminated=False at the time limit, as gymnasium's TimeLimit does. With "
        "terminated=True the critic learns that no reward follows the last step, although the task continues.",
        "Pardo et al. 2018, Time Limits in Reinforcement Learning; " + _GYMNASIUM,
        "`terminated = self.n_steps >= 500`",
    ),
    "endless_episodes": Entry(
        "Episodes do not end",
        "warning",
        "Register the environment with max_episode_steps=..., or wrap it in TimeLimit. Without ends there are no "
        "returns to log, and a stuck agent stays stuck.",
        _SB3_TIPS,
        "`step()` returns False for both flags, and there is no TimeLimit",
    ),
    "short_episodes": Entry(
        "Episodes end after a few steps",
        "problem",
        "Look at the first steps of an episode. Is the start inside an obstacle? Is an ending condition inverted?",
        "a guess: within so few steps an action has no consequence that the policy could learn",
        "the start pose is inside the collision box",
    ),
    "constant_reward": Entry(
        "The reward is constant",
        "problem",
        "Print the reward's terms over an episode. If only a trained policy reaches another reward, "
        "add a term that guides the policy there.",
        "a policy cannot learn from a reward that does not vary",
        "the reward is 1 for every step",
    ),
    "sparse_reward": Entry(
        "A random policy hardly ever gets a reward",
        "warning",
        "Add a reward term for progress, start some episodes near the goal, or make more random steps first "
        "(learning_starts).",
        "a guess: fewer than one step in a hundred differs from the usual reward",
        "the reward is 1 at the goal and 0 elsewhere",
    ),
    "reward_scale": Entry(
        "Returns are far from the scale at which networks learn well",
        "problem",
        'Scale the rewards: VecNormalize(env, norm_obs=False), or normalize: "{norm_obs: false, norm_reward: true}" in '
        "a hyperparameter file, or a constant factor.",
        "Henderson et al. 2018, Deep RL that Matters (reward scaling); the limits are a guess",
        "rewards in metres times 1,000, without VecNormalize",
    ),
    "invalid_steps": Entry(
        "The simulator fails to make steps",
        "problem",
        "Read the reason in the evidence. An overloaded server needs a longer timeout_s. If the server process ends, "
        "look at its log.",
        "the info keys invalid_transition and simulator_failure of CarlaDriving-v0",
        "another client ticks the same CARLA server",
    ),
    "slow_environment": Entry(
        "The environment alone takes longer than a day",
        "warning",
        "Profile step(). Run several environments (n_envs with SubprocVecEnv), or let the camera render smaller "
        "pictures.",
        _COUNT,
        "5 steps/s, and a run of 1,000,000 steps",
    ),
    "buffer_memory": Entry(
        "The replay buffer does not fit into memory",
        "problem",
        "Reduce buffer_size, or use VisualTD3's FrameReplayBuffer, which stores each camera frame once.",
        _COUNT,
        "buffer_size 1,000,000 with stacks of 4 x 84 x 84 in SB3's buffer: 56 GB",
    ),
    "normalized_pictures": Entry(
        "VecNormalize normalizes pictures",
        "problem",
        "Set norm_obs=False, or norm_obs_keys to the parts that are not pictures: the policy scales pictures itself.",
        "Stable-Baselines3, preprocess_obs divides uint8 images by 255",
        "`VecNormalize(env)` around a camera, with norm_obs at its default",
    ),
    "picture_as_vector": Entry(
        "An observation looks like a picture, but the networks get it as a vector",
        "warning",
        "Return pictures as uint8 from 0 to 255. If the environment has scaled them already, pass "
        "policy_kwargs=dict(normalize_images=False). If the observation is not a picture, nothing has to change.",
        "Stable-Baselines3, is_image_space: only uint8 from 0 to 255 is an image",
        "a Dict with a camera as float32 from 0 to 1: the policy has no CNN",
    ),
    "target_clamp": Entry(
        "The limit of the critic's targets is smaller than the returns",
        "problem",
        "Use target_q_clamp=True, which derives the limit from the rewards, or give a larger number.",
        "arithmetic",
        "`target_q_clamp=1.0` with rewards of 1 a step",
    ),
    "warmup_beyond_run": Entry(
        "The run ends before, or soon after, learning starts",
        "problem",
        "Reduce learning_starts, or make more steps: only steps after learning_starts make updates.",
        _COUNT,
        "learning_starts 10,000 and `-n 5000`",
    ),
    "batch_beyond_buffer": Entry(
        "A batch is larger than the replay buffer",
        "problem",
        "Increase buffer_size or reduce batch_size. Otherwise every batch holds some transitions more than once.",
        _COUNT,
        "buffer_size 200 and batch_size 256",
    ),
    "n_steps_beyond_episode": Entry(
        "n-step returns are longer than half an episode",
        "problem",
        "Reduce n_steps. Otherwise most n-step returns end with their episode, and the critic's target network is "
        "seldom used.",
        _COUNT,
        "n_steps 10, and episodes of 12 steps",
    ),
    "learning_rate": Entry(
        "The learning rate is out of the usual range",
        "problem",
        "Use 1e-4 to 1e-3.",
        _MARGIN,
        "1e-1 instead of 1e-4, or a schedule that begins at 0",
    ),
    "gamma": Entry(
        "The discount does not fit the length of episodes",
        "problem",
        "Choose gamma such that 1 / (1 - gamma) is the number of steps over which an action has consequences: 0.98 to "
        "0.99 for most control tasks.",
        _MARGIN,
        "gamma 0.1, or gamma 1 in a task whose episodes end at a time limit",
    ),
    "tau": Entry(
        "Target networks follow too fast or not at all",
        "problem",
        "Use 0.005 (TD3) or 0.01 (DrQ-v2).",
        _MARGIN,
        "tau 0.995, from another convention in which tau is the weight of the old network",
    ),
    "exploration_noise": Entry(
        "The policy does not explore",
        "problem",
        "Give action_noise=NormalActionNoise(...) with a standard deviation of 0.1 to 0.5, in units of the action "
        "scaled to [-1, 1]; VisualTD3 takes noise_schedule='lin_0.5_0.1'.",
        _SB3_NOISE,
        "TD3 without `action_noise`",
    ),
    "saturated_at_start": Entry(
        "The untrained policy's actions are at their limits",
        "problem",
        "Check the scale of the observations: large inputs drive the tanh to the ends of its range, where its "
        "gradient is about 0.",
        "the derivative of tanh is below 0.1 where its value is above 0.95",
        "positions in millimetres as observations of a MlpPolicy",
    ),
    "leaking_features": Entry(
        "The actor's loss has a gradient path to the actor that bypasses the action",
        "problem",
        "In the actor's loss, let the critic use its own encoder, without gradient. Otherwise the actor's "
        "encoder learns to raise Q without better actions, and its features grow without bound.",
        "the CARLA run that started this project; Yarats et al. 2019 (SAC-AE)",
        "`critic.q1(actor.features_extractor(obs), action)` in the actor's loss",
    ),
    "group_without_gradient": Entry(
        "Some weights get no gradient",
        "problem",
        "Check whether the part is frozen (requires_grad=False or learning rate 0) or detached from the loss, and "
        "whether all of its ReLUs are dead.",
        "the gradients at the optimizers' steps of some updates",
        "`requires_grad_(False)` on a pretrained encoder, or units that are all dead",
    ),
    "target_frozen": Entry(
        "Target networks do not move",
        "problem",
        "Use tau > 0 and call polyak_update for every target network.",
        "Lillicrap et al. 2015 (DDPG): targets slowly track the learned networks",
        "`soft_update()` is overridden and does not update the targets",
    ),
    "cannot_fit_batch": Entry(
        "The critic cannot fit a single batch",
        "problem",
        "Check the architecture. Are observations and actions both connected to the output? Are the activations "
        "always 0?",
        "Braiek and Khomh 2022 (TheDeepChecker): a network that cannot overfit one batch is broken",
        "a features extractor that returns zeros, or a critic head that does not take the action as an input",
    ),
    **{
        f"probe_{name}": Entry(
            f"The algorithm fails the probe with {what}",
            "problem",
            "Check the part that the evidence names. Repeat the probe after each change: it takes seconds.",
            "Andy Jones, Debugging Reinforcement Learning Systems: probe environments",
            example,
        )
        for name, what, example in (
            ("constant_reward", "a constant reward", "the critic's optimizer holds the target's weights"),
            ("picture_reward", "a reward that depends on the picture", "the replay buffer stores one picture only"),
            ("action_reward", "a reward that depends on the action", "the actor's loss has the wrong sign"),
            (
                "action_given_picture",
                "a reward that depends on the action given the picture",
                "the actor's encoder is detached",
            ),
            ("delayed_reward", "a delayed reward", "the targets leave out the discount"),
        )
    },
    "low_precision": Entry(
        "bfloat16 changes the values of this critic",
        "warning",
        'Use precision="fp32".',
        "a relative difference above 10 % on one batch",
        '`precision="bf16"` with values of very different size',
    ),
}


class Check(NamedTuple):
    """Hold the result of one check: its id, whether it passed, and what was measured or why it was skipped."""

    id: str
    status: Status
    value: Any


class Finding(NamedTuple):
    """Describe a problem or warning that the doctor found."""

    id: str
    severity: Severity
    title: str
    evidence: str
    remedy: str
    source: str


@dataclass
class Examination:
    """Collect the checks of an examination, with their results.

    :ivar checks: the checks, by id
    :ivar seconds: duration of the examination
    :ivar subject: what was examined, such as ``"VisualTD3 on LiteDriving-v0"``
    """

    subject: str = ""
    checks: dict[str, Check] = field(default_factory=dict)
    seconds: float = 0.0
    _found: dict[str, Finding] = field(default_factory=dict)

    def passed(self, check_id: str, value: Any = None) -> None:
        """Record that a check has passed, with its measurement.

        If the same check has failed before, for example for another camera, it stays failed.
        """
        if check_id not in self._found:
            self.checks[check_id] = Check(check_id, "pass", value)

    def skipped(self, check_id: str, reason: str) -> None:
        """Record why a check could not be made, unless the check already has a result."""
        self.checks.setdefault(check_id, Check(check_id, "skipped", reason))

    def found(
        self,
        check_id: str,
        evidence: str,
        value: Any = None,
        severity: Severity | None = None,
        remedy: str | None = None,
    ) -> None:
        """Record that a check has failed.

        :param check_id: a key of :data:`CATALOGUE`
        :param evidence: one sentence with the measured numbers
        :param value: the measured value
        :param severity: severity of the finding; if None, the severity in :data:`CATALOGUE`
        :param remedy: remedy of the finding; if None, the remedy in :data:`CATALOGUE`
        """
        entry = CATALOGUE[check_id]
        self.checks[check_id] = Check(check_id, "fail", value)
        self._found[check_id] = Finding(
            check_id, severity or entry.severity, entry.title, evidence, remedy or entry.remedy, entry.source
        )

    def judge(
        self, check_id: str, failed: bool, evidence: str, value: Any = None, severity: Severity | None = None
    ) -> None:
        """Record the result of a check that either passes or fails; see :meth:`found` for the parameters."""
        if failed:
            self.found(check_id, evidence, value, severity)
        else:
            self.passed(check_id, value)

    @property
    def findings(self) -> list[Finding]:
        """Return the findings: problems before warnings, and causes before their consequences."""
        order = list(CATALOGUE)
        return sorted(self._found.values(), key=lambda each: (SEVERITIES.index(each.severity), order.index(each.id)))

    @property
    def has_problem(self) -> bool:
        """Return whether one of the findings is a problem, and not only a warning."""
        return any(finding.severity == "problem" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain data: ``format_version``, ``findings``, ``checks`` and ``seconds``."""
        return {
            "format_version": FORMAT_VERSION,
            "subject": self.subject,
            "findings": [finding._asdict() for finding in self.findings],
            "checks": [check._asdict() for check in self.checks.values()],
            "seconds": round(self.seconds, 2),
        }

    def one_line(self) -> str:
        """Return the result as one line, which is printed when a training run begins."""
        n_checks = sum(check.status != "skipped" for check in self.checks.values())
        if not self.findings:
            return f"Doctor: {n_checks} checks of the settings, nothing found"
        worst = self.findings[0]
        others = ""
        if len(self.findings) > 1:
            others = f" (and {len(self.findings) - 1} more)"
        return f"Doctor: {worst.severity}: {worst.title}: {worst.evidence}{others}"


Progress = Callable[[str], None]
"""Function that is called before each part of an examination, with the name of the part."""
