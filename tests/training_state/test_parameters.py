"""Weights and optimizers come back exactly, and nothing that is pickled beside them runs."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.logger import configure

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.training_state.model_state import load_parameters
from tests.image_env import ImageEnv
from tests.training_state.small_envs import StatefulEnv

SMALL = {"buffer_size": 100, "learning_starts": 5, "batch_size": 4, "device": "cpu"}


def sac(seed=0, net_arch=(8,), **kwargs):
    return SAC("MlpPolicy", StatefulEnv(), seed=seed, policy_kwargs={"net_arch": list(net_arch)}, **SMALL, **kwargs)


def visual(seed=0):
    return VisualTD3("CnnPolicy", ImageEnv(), seed=seed, learning_rate="lin_1e-3", actor_lr=1e-4, **SMALL)


def stock(seed=0):
    return TD3("CnnPolicy", ImageEnv(), seed=seed, policy_kwargs={"net_arch": [8]}, **SMALL)


def tensors_of(model):
    variables = {name: getattr(model, name) for name in model._get_torch_save_params()[1]}
    buffer = io.BytesIO()
    th.save({**model.get_parameters(), **variables}, buffer)
    loaded = th.load(io.BytesIO(buffer.getvalue()), weights_only=True)

    def flat(value, name):
        if isinstance(value, dict):
            return [each for key in value for each in flat(value[key], f"{name}.{key}")]
        if isinstance(value, list):
            return [each for key, inner in enumerate(value) for each in flat(inner, f"{name}.{key}")]
        is_tensor = isinstance(value, th.Tensor)
        return [(name, value.tolist(), value.stride(), value.dtype) if is_tensor else (name, value)]

    return flat(loaded, "")


def train_once(model, buffer):
    model.replay_buffer = pickle.loads(buffer)
    th.manual_seed(7)
    np.random.seed(7)
    model._current_progress_remaining, model._n_updates = 0.5, 11
    model.train(gradient_steps=2, batch_size=4)


@pytest.mark.parametrize("make", [sac, visual, stock, lambda seed=0: sac(seed, ent_coef=0.3)])
def test_the_next_update_is_the_same_to_the_bit(make, tmp_path):
    model, other = make().learn(12), make(seed=1)
    other.set_logger(configure(None, []))
    model.save(tmp_path / "model.zip")
    before = tensors_of(other)
    load_parameters(other, tmp_path / "model.zip")
    assert before != tensors_of(other) == tensors_of(model)
    buffer = pickle.dumps(model.replay_buffer)
    for each in (model, other):
        train_once(each, buffer)
    assert tensors_of(other) == tensors_of(model)


def test_optimizers_still_step_the_weights_of_the_model(tmp_path):
    model, other = sac().learn(12), sac(seed=1)
    model.save(tmp_path / "model.zip")
    weights = [*other.policy.parameters(), other.log_ent_coef]
    load_parameters(other, tmp_path / "model.zip")
    assert [id(weight) for weight in weights] == [id(w) for w in [*other.policy.parameters(), other.log_ent_coef]]
    assert other.ent_coef_optimizer.param_groups[0]["params"][0] is other.log_ent_coef


def rewritten(path, **changes):
    """Replace entries of the zip file; None removes an entry."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries.update(changes)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(name, content)
    return path


class Bomb:
    def __reduce__(self):
        return (open, (str(Bomb.path), "w"))


def test_the_pickled_entry_is_never_read(tmp_path):
    sac().save(tmp_path / "model.zip")
    load_parameters(sac(seed=1), rewritten(tmp_path / "model.zip", data=b"\x80 not even JSON"))


def test_a_pickle_in_place_of_weights_is_refused_and_not_executed(tmp_path):
    sac().save(tmp_path / "model.zip")
    Bomb.path = tmp_path / "it ran"
    buffer = io.BytesIO()
    th.save({"weights": Bomb()}, buffer)
    with pytest.raises(ValueError, match=r"model\.zip is damaged"):
        load_parameters(sac(seed=1), rewritten(tmp_path / "model.zip", **{"policy.pth": buffer.getvalue()}))
    assert not Bomb.path.exists()


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.999])
def test_a_damaged_zip_is_named_and_changes_nothing(place, tmp_path):
    path, model = tmp_path / "model.zip", sac(seed=1)
    sac().save(path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("policy.pth").header_offset
    at = start + int(place * (len(content) - start - 30)) if place else 0
    damaged = content[:at] if place else bytearray()
    before = tensors_of(model)
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"model\.zip is damaged \(.*\): use another snapshot"):
        load_parameters(model, path)
    content[start + 200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.zip is damaged \(.*CRC.*\)"):
        load_parameters(model, path)
    assert tensors_of(model) == before


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: sac(net_arch=[9]),
            r"policy\.actor\.latent_pi\.0\.weight is \(9, 3\) in the file, \(8, 3\) in the model",
        ),
        (
            lambda: sac(net_arch=[8, 8]),
            r"policy\.critic\.qf0\.2\.weight is \(8, 8\) in the file, \(1, 8\) in the model; .*; and 15 more",
        ),
        (
            lambda: sac(ent_coef=0.3),
            "ent_coef_optimizer is missing in the file; log_ent_coef is missing in the file; ent_coef_tensor is ",
        ),
        (lambda: TD3("MlpPolicy", StatefulEnv(), **SMALL), "ent_coef_optimizer is missing"),
    ],
)
def test_another_architecture_is_named_and_changes_nothing(make, text, tmp_path):
    make().save(tmp_path / "model.zip")
    model = sac(seed=1)
    before = tensors_of(model)
    with pytest.raises(ValueError, match=text) as error:
        load_parameters(model, tmp_path / "model.zip")
    assert str(error.value).endswith("create the model with the settings of the snapshot")
    assert tensors_of(model) == before


def test_a_missing_optimizer_is_named(tmp_path):
    sac().save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"actor\.optimizer is missing"):
        load_parameters(sac(), rewritten(tmp_path / "model.zip", **{"actor.optimizer.pth": None}))
