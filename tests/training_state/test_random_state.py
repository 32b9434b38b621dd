"""Tests that restored random generators, action noise and spaces continue their random sequences."""

import random
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import (
    ActionNoise,
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
    VectorizedActionNoise,
)

from sb3_visual_td3.training_state.env_state import describe_space
from sb3_visual_td3.training_state.model_state import action_noise_state, noises_in_part, set_action_noise_state
from sb3_visual_td3.training_state.random_state import (
    generator_state,
    random_state,
    restored_generator,
    set_random_state,
    set_space_random_state,
    space_random_state,
)
from tests.training_state.snapshots import set_other_random_state, through_json

BOX = spaces.Box(-1, 1, (2,), np.float32)


def draw():
    # The generators compute Gaussians in pairs. After an odd number, each generator stores one for later.
    return [random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(), *th.randn(3).tolist()]


def test_the_global_generators_continue():
    draw()
    state = through_json(random_state())
    expected = [draw() for _ in range(3)]
    set_other_random_state()
    assert draw() != expected[0]
    set_random_state(state)
    assert [draw() for _ in range(3)] == expected


def test_reading_draws_nothing():
    set_other_random_state()
    expected = draw()
    set_other_random_state()
    random_state()
    assert draw() == expected


@pytest.mark.gpu
@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")
def test_the_generators_of_cuda_devices_continue():
    th.randn(3, device="cuda")
    state = through_json(random_state())
    expected = th.randn(5, device="cuda")
    set_random_state(state)
    assert th.equal(th.randn(5, device="cuda"), expected)


def test_states_of_missing_cuda_devices_are_skipped():
    state = random_state()
    n_devices = th.cuda.device_count() if th.cuda.is_available() else 0
    set_random_state({**state, "cuda": [*state["cuda"][:n_devices], *[np.zeros(16, np.uint8)] * 3]})


@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64", "PCG64DXSM"])
def test_a_generator_of_any_kind_continues(kind):
    generator = np.random.Generator(getattr(np.random, kind)(5))
    generator.integers(10, dtype=np.uint32)  # most generators store the unused half of a 64-bit word
    state = through_json(generator_state(generator))
    expected = generator.random(4).tolist(), generator.integers(100, size=3, dtype=np.uint32).tolist()
    for other in (None, np.random.Generator(getattr(np.random, kind)(6)), np.random.default_rng(1)):
        again = restored_generator(other, state)
        assert (again.random(4).tolist(), again.integers(100, size=3, dtype=np.uint32).tolist()) == expected


def test_a_shared_generator_stays_the_same_object():
    generator = np.random.default_rng(0)
    assert restored_generator(generator, through_json(generator_state(np.random.default_rng(1)))) is generator


def test_a_generator_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'os': expected one of MT19937"):
        restored_generator(None, {"bit_generator": "os"})


NESTED = [
    lambda: spaces.Box(-1, 1, (2,), np.float32),
    lambda: spaces.Dict({"a": spaces.Discrete(9), "b": spaces.Tuple([spaces.Box(0, 1, (3,)), spaces.MultiBinary(4)])}),
    lambda: spaces.Sequence(spaces.Discrete(50)),
]


@pytest.mark.parametrize("make", NESTED)
def test_the_generators_of_spaces_continue(make):
    space, other = make(), make()
    space.seed(3)
    space.sample()
    state = through_json(space_random_state(space))
    expected = [repr(space.sample()) for _ in range(3)]
    other.seed(4)
    set_space_random_state(other, state)
    assert [repr(other.sample()) for _ in range(3)] == expected


def test_reading_an_unseeded_space_does_not_seed_it():
    space, other = spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2,))
    state = through_json(space_random_state(space))
    assert space._np_random is None
    other.seed(1)
    set_space_random_state(other, state)
    assert other._np_random is None


def test_a_space_of_another_structure_is_refused():
    with pytest.raises(ValueError, match="has 0 parts: expected 2 as in the snapshot"):
        set_space_random_state(BOX, space_random_state(NESTED[1]()))


def test_spaces_are_described_in_words():
    assert describe_space(spaces.Box(0, 255, (4, 84, 84), np.uint8)) == "Box(4, 84, 84) uint8 from 0 to 255"
    both = spaces.Dict({"a": BOX, "b": spaces.Discrete(3)})
    assert describe_space(both) == "Dict(a: Box(2,) float32 from -1.0 to 1.0, b: Discrete(3))"
    uneven = [spaces.Box(np.array([-1.0, low]), np.ones(2)) for low in (-2.0, -3.0)]
    assert describe_space(uneven[0]) != describe_space(uneven[1])


class Shrinking(ActionNoise):
    """Imitates a user's noise whose attributes are a shrinking size, a random generator and a name."""

    def __init__(self):
        super().__init__()
        self.size, self.rng, self.name = np.float32(1.0), np.random.default_rng(), "mine"

    def __call__(self):
        self.size *= np.float32(0.9)
        return self.rng.normal(0, self.size, 2)


class WithState(Shrinking):
    def get_state(self):
        return {"size": self.size, "random": self.rng.bit_generator.state}

    def set_state(self, state):
        self.size, self.rng.bit_generator.state = state["size"], state["random"]


def ornstein():
    return OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2), initial_noise=np.full(2, 0.5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: NormalActionNoise(np.zeros(2), np.ones(2)),
        ornstein,
        lambda: VectorizedActionNoise(ornstein(), 3),
        Shrinking,
        WithState,
        lambda: VectorizedActionNoise(Shrinking(), 2),
    ],
)
def test_noise_continues(make):
    noise, other = make(), make()
    for _ in range(3):
        noise()
    state, generators = through_json(action_noise_state(noise), large=1), random_state()
    expected = [noise().tobytes() for _ in range(4)]
    other()
    set_action_noise_state(other, state)
    set_random_state(generators)
    assert [other().tobytes() for _ in range(4)] == expected


def test_the_sigma_of_action_noise_is_restored():
    noise = NormalActionNoise(np.zeros(2), np.ones(2))
    state = through_json(action_noise_state(noise))
    noise._sigma = 0.25 * np.ones(2)
    set_action_noise_state(noise, state)
    assert noise._sigma.tolist() == [1.0, 1.0]


def test_another_noise_is_refused():
    state = action_noise_state(VectorizedActionNoise(ornstein(), 3))
    with pytest.raises(ValueError, match="the snapshot has n_envs=3, the model has n_envs=2"):
        set_action_noise_state(VectorizedActionNoise(ornstein(), 2), state)
    with pytest.raises(
        ValueError,
        match=r"VectorizedActionNoise, the model has None: create the model with the settings of the snapshot",
    ):
        set_action_noise_state(None, state)


class DecayingNoise(ActionNoise):
    """Wrap another noise, as a class of the user may do, and hold values of many types."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.factor, self.recent, self.by_name, self.shape, self.label = 1.0, [0.0, 0.0], {"n": 0}, (2,), None

    def __call__(self):
        self.factor *= 0.99
        self.recent = [0.9 * value + np.random.randn() for value in self.recent]
        self.by_name["n"] += 1
        self.label = f"call {self.by_name['n']}"
        return self.factor * self.base() + self.recent + self.by_name["n"] + np.zeros(self.shape)


def test_a_noise_around_another_one_continues():
    noise, other = DecayingNoise(ornstein()), DecayingNoise(ornstein())
    for _ in range(3):
        noise()
    state, generators = through_json(action_noise_state(noise)), random_state()
    expected = [noise().tobytes() for _ in range(3)]
    set_random_state(generators)
    set_action_noise_state(other, state)
    assert [other().tobytes() for _ in range(3)] == expected
    assert vars(other).keys() == vars(noise).keys()
    assert (other.shape, other.recent, other.label) == (noise.shape, noise.recent, noise.label)
    assert noises_in_part(VectorizedActionNoise(noise, 2)) == []


class Point(NamedTuple):
    x: float


def test_the_containers_of_a_noise_keep_their_types():
    noise, other = ornstein(), ornstein()
    noise.pairs, noise.by_name, noise.path = ((1, 2), (3, 4)), {"a": (1, 2), "b": {}}, [(0, np.float32(1.0)), []]
    other.pairs, other.by_name, other.path = (), {}, None
    # Containers of other classes are not saved.
    noise.point, other.point = Point(1.0), Point(2.0)
    noise.counts, other.counts = Counter(a=1), Counter(a=2)
    set_action_noise_state(other, through_json(action_noise_state(noise)))
    assert (other.pairs, other.by_name, other.path) == (noise.pairs, noise.by_name, noise.path)
    assert (other.point, other.counts) == (Point(2.0), Counter(a=2))
    assert (type(other.point), type(other.counts)) == (Point, Counter)
    assert noises_in_part(noise) == ["OrnsteinUhlenbeckActionNoise"]
    del noise.point, noise.counts
    assert noises_in_part(noise) == []


def test_noises_with_more_than_plain_data_are_named():
    noise = DecayingNoise(ornstein())
    noise.base.weights = th.zeros(2)
    assert noises_in_part(VectorizedActionNoise(noise, 2)) == ["OrnsteinUhlenbeckActionNoise"]
    noise.others = [ornstein()]
    assert noises_in_part(noise) == ["OrnsteinUhlenbeckActionNoise", "DecayingNoise"]
    assert noises_in_part(None) == noises_in_part(NormalActionNoise(np.zeros(2), np.ones(2))) == []


class NoiseWithHistory(NormalActionNoise):
    """Creates its attributes when it is called for the first time."""

    def __call__(self):
        if not hasattr(self, "history"):
            self.history, self.n_calls, self.generator = [], 0, np.random.default_rng(1)
        self.n_calls += 1
        self.history.append(float(self.generator.random()))
        return super().__call__()


def test_attributes_that_a_noise_creates_on_its_first_call_are_restored():
    noise, other = (NoiseWithHistory(np.zeros(2), np.ones(2)) for _ in range(2))
    noise()
    set_action_noise_state(other, through_json(action_noise_state(noise)))
    assert (other.history, other.n_calls) == (noise.history, 1)
    assert other.generator.random() == noise.generator.random()
