"""Keeps weights from an update that would spoil them: the loss is looked at before the optimizer steps.

One step with a NaN in the gradient leaves NaN in every weight, and the training goes on with it, silently. The loss and
the gradients of vectors (biases, LayerNorms) are looked at: what is not finite anywhere on the way back from a loss is
not finite in the biases before it.

A CPU knows these numbers at once. A GPU would have to be waited for in every update, so there a fused optimizer is told
on the device itself to leave the weights alone (its ``found_inf``, which gradient scalers use), and whether it did is
asked once after all the updates of a training, where choosing the next action waits for the device in any case. An
optimizer that cannot be told so is waited for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch as th

from sb3_visual_td3.common.types import NetworkUpdate


class _Watched(NamedTuple):
    """A number that is finite where an update is, still on its device, and the update."""

    number: th.Tensor
    update: NetworkUpdate
    n_steps: int


class StepGuard:
    """Steps optimizers, but not where the loss or its gradient is not finite.

    :param device: where the networks are
    :param is_stock: whether updates are Stable-Baselines3's, which refuses nothing: then a CPU leaves out a step only
        where a callback sees to what is not finite and ends the training or goes back
    """

    def __init__(self, device: th.device, is_stock: bool = False) -> None:
        self._is_stock = is_stock
        self._is_at_hand = device.type == "cpu"
        self._waiting: list[_Watched] = []

    def looks_at(self, is_judged: bool) -> bool:
        """:return: whether updates are looked at, given whether a callback sees to what is not finite"""
        return not self._is_stock or (is_judged and self._is_at_hand)

    def step(
        self,
        optimizer: th.optim.Optimizer,
        trained: Sequence[th.Tensor],
        update: NetworkUpdate,
        n_steps: int,
        is_judged: bool,
    ) -> None:
        """Step, if the update is finite.

        :param optimizer: of the network, whose gradients are ready
        :param trained: the weights that have gradients
        :param update: what is being made
        :param n_steps: environment steps so far, for the message
        :param is_judged: whether a callback sees to what is not finite: the step is then left out without an error
        :raises ValueError: if the update is not finite, it is known by now, and no callback sees to it
        """
        number = _number_of(update.values["loss"], trained)
        if not self._is_at_hand and _can_leave_out(optimizer):
            optimizer.found_inf = (~number.isfinite()).float()  # type: ignore[attr-defined]
            try:
                optimizer.step()
            finally:
                del optimizer.found_inf  # type: ignore[attr-defined]
            if not is_judged:
                self._waiting.append(_Watched(number, update, n_steps))
        elif math.isfinite(number.item()):
            optimizer.step()
        elif not is_judged:
            raise ValueError(_message(update, n_steps))

    def raise_if_refused(self) -> None:
        """Ask a GPU whether all the updates since the last call were finite.

        :raises ValueError: if one was not
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        for each, value in zip(waiting, th.stack([each.number for each in waiting]).tolist(), strict=True):
            if not math.isfinite(value):
                raise ValueError(_message(each.update, each.n_steps))


def _number_of(loss: th.Tensor, trained: Sequence[th.Tensor]) -> th.Tensor:
    """:return: a scalar that is finite where the loss and the gradients of the vectors are"""
    gradients = [weight.grad for weight in trained if weight.grad is not None]
    vectors = [gradient for gradient in gradients if gradient.dim() == 1] or sorted(gradients, key=th.Tensor.numel)[:1]
    if not vectors:
        return loss
    # Largest magnitudes, not norms: the squares of a finite gradient may overflow.
    largest = th._foreach_norm(vectors, math.inf)
    return th.stack([loss, *largest]).sum()


def _can_leave_out(optimizer: th.optim.Optimizer) -> bool:
    return all(group.get("fused") for group in optimizer.param_groups)


def _message(update: NetworkUpdate, n_steps: int) -> str:
    loss = float(update.values["loss"])
    what = f"loss is {loss}" if not math.isfinite(loss) else f"loss is {loss:.4g} but its gradient is not finite"
    return (
        f"the {update.network}'s {what} at update {update.n_updates:,}, environment step {n_steps:,}: its weights were "
        f"left as they were. {_cause(update)} Add ExplosionAlertCallback (with on_critical='rollback' and a "
        "SnapshotCallback it goes back to healthy weights)."
    )


def _cause(update: NetworkUpdate) -> str:
    """:return: in a sentence or two, where to look: what the environment gave comes first"""
    given = {
        **{f"observations{key}": part for key, part in _parts(update.observations)},
        **({"rewards": update.values["rewards"]} if "rewards" in update.values else {}),
    }
    sizes = {name: part.detach().abs().max().item() for name, part in given.items() if part.numel()}
    for name, size in sizes.items():
        if not math.isfinite(size):
            return f"The sampled {name} hold {size}: see what the environment returned."
    if "target_q" in update.values and not update.values["target_q"].isfinite().all():
        return "The targets are not finite though these rewards are: see the next observations, in the environment."
    if not sizes:
        return "See whether observations and rewards are finite and of the order of 1."
    told = ", ".join(f"of the {name} {size:.4g}" for name, size in sizes.items())
    return f"The largest magnitudes in the batch: {told}. They should be of the order of 1, pixels up to 255."


def _parts(observations: th.Tensor | Mapping[str, th.Tensor] | None) -> Iterator[tuple[str, th.Tensor]]:
    if isinstance(observations, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in observations.items())
    elif observations is not None:
        yield "", observations
