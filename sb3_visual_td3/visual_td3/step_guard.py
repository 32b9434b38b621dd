"""Check the loss and its gradient before the optimizer steps.

One step with a NaN in the gradient leaves NaN in every weight. Only the loss and the gradients of some weights are
checked, see :func:`~sb3_visual_td3.common.groups.checked_weights`.

On a GPU, a fused optimizer itself skips a step with a non-finite value. The CPU reads only once between two rollouts
whether a step was skipped, because reading this makes the CPU wait for the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch as th

from sb3_visual_td3.common.groups import checked_weights
from sb3_visual_td3.common.types import NetworkUpdate


class NonFiniteUpdateError(ValueError):
    """Report that an update was skipped, because its loss or its gradient is not finite.

    :param update: the update that was skipped
    :param n_steps: environment steps so far
    """

    def __init__(self, update: NetworkUpdate, n_steps: int) -> None:
        super().__init__(_message(update, n_steps))
        self.update = update
        self.n_steps = n_steps


class _Watched(NamedTuple):
    """Hold an update while the GPU may still compute it.

    :ivar number: a scalar on the GPU, finite exactly if the loss and the checked gradients are finite
    :ivar update: the update, for the error message
    :ivar n_steps: environment steps so far
    """

    number: th.Tensor
    update: NetworkUpdate
    n_steps: int


class StepGuard:
    """Step the optimizers of a model, and skip steps whose loss or gradient is not finite.

    :param device: the device of the networks
    :param is_stock: True for a model that must train exactly as in Stable-Baselines3. Steps are then checked only on a
        CPU, and only while a callback handles non-finite numbers
    """

    def __init__(self, device: th.device, is_stock: bool = False) -> None:
        self._is_stock = is_stock
        self._is_at_hand = device.type == "cpu"
        self._waiting: list[_Watched] = []

    def must_check(self, is_handled: bool) -> bool:
        """Return True if the caller must call :meth:`step`, which checks the update, instead of ``optimizer.step``.

        :param is_handled: whether a callback handles non-finite numbers
        """
        return not self._is_stock or (is_handled and self._is_at_hand)

    def step(
        self,
        optimizer: th.optim.Optimizer,
        update: NetworkUpdate,
        n_steps: int,
        is_handled: bool,
    ) -> None:
        """Step the optimizer if the update is finite.

        :param optimizer: the network's optimizer; the gradients are ready
        :param update: the update, whose loss and groups of weights are checked
        :param n_steps: environment steps so far, for the message
        :param is_handled: True if a callback handles non-finite numbers; a step is then skipped without an error
        :raises NonFiniteUpdateError: if the update is not finite and no callback handles this. With a fused optimizer
            on a GPU, :meth:`raise_if_skipped` raises this error later
        """
        number = _number_of(update)
        if not self._is_at_hand and _can_skip(optimizer):
            # Fused optimizers step only if this tensor is 0; torch.amp.GradScaler sets it in the same way.
            optimizer.found_inf = (~number.isfinite()).float()  # type: ignore[attr-defined]
            try:
                optimizer.step()
            finally:
                del optimizer.found_inf  # type: ignore[attr-defined]
            if not is_handled:
                self._waiting.append(_Watched(number, update, n_steps))
        elif math.isfinite(number.item()):
            optimizer.step()
        elif not is_handled:
            raise NonFiniteUpdateError(update, n_steps)

    def raise_if_skipped(self) -> None:
        """Raise an error if an optimizer step on a GPU was skipped since the last call.

        :raises NonFiniteUpdateError: if an update was not finite
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        for each, value in zip(waiting, th.stack([each.number for each in waiting]).tolist(), strict=True):
            if not math.isfinite(value):
                raise NonFiniteUpdateError(each.update, each.n_steps)


def _number_of(update: NetworkUpdate) -> th.Tensor:
    """Return a scalar that is finite exactly if the loss and the gradients of the checked weights are finite."""
    loss = update.values["loss"]
    checked = [weight for weights in update.groups.values() for weight in checked_weights(weights)]
    gradients = [weight.grad for weight in checked if weight.grad is not None]
    if not gradients:
        return loss
    # Largest magnitudes are used instead of norms, because the squares of a finite gradient may overflow.
    largest = th._foreach_norm(gradients, math.inf)
    return th.stack([loss, *largest]).sum()


def _can_skip(optimizer: th.optim.Optimizer) -> bool:
    """Return whether an optimizer is fused, so that ``found_inf`` makes it skip a step."""
    return all(group.get("fused") for group in optimizer.param_groups)


def _message(update: NetworkUpdate, n_steps: int) -> str:
    loss = float(update.values["loss"])
    what = f"loss is {loss}"
    if math.isfinite(loss):
        what = f"loss is {loss:.4g} but its gradient is not finite"
    return (
        f"the {update.network}'s {what} at update {update.n_updates:,}, environment step {n_steps:,}: its weights were "
        f"left as they were. {_cause(update)} Add ExplosionAlertCallback (with on_critical='rollback' and a "
        "SnapshotCallback it restores healthy weights)."
    )


def _cause(update: NetworkUpdate) -> str:
    """Return one or two sentences on the likely cause of a non-finite update."""
    given = {f"observations{key}": part for key, part in _parts(update.observations)}
    if "rewards" in update.values:
        given["rewards"] = update.values["rewards"]
    sizes = {name: part.detach().abs().max().item() for name, part in given.items() if part.numel()}
    for name, size in sizes.items():
        if not math.isfinite(size):
            return f"The sampled {name} hold {size}: check what the environment returned."
    if "target_q" in update.values and not update.values["target_q"].isfinite().all():
        return "The targets are not finite though the rewards are: check the environment's next observations."
    if not sizes:
        return "Check whether observations and rewards are finite and of the order of 1."
    magnitudes = ", ".join(f"of the {name} {size:.4g}" for name, size in sizes.items())
    return f"The largest magnitudes in the batch: {magnitudes}. They should be of the order of 1, pixels up to 255."


def _parts(observations: th.Tensor | Mapping[str, th.Tensor] | None) -> Iterator[tuple[str, th.Tensor]]:
    if isinstance(observations, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in observations.items())
    elif observations is not None:
        yield "", observations
