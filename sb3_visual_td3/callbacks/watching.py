"""Takes an observer to a model whose updates can be watched, and away again."""

from __future__ import annotations

from sb3_visual_td3.common.types import UpdateObserver, WatchedModel


def watched(model: object) -> WatchedModel:
    """Make sure that a model's updates can be watched.

    :param model: any algorithm
    :return: the same model
    :raises ValueError: if it offers no updates to watch
    """
    if not isinstance(model, WatchedModel):
        raise ValueError(
            f"{type(model).__name__} offers no updates to watch: use VisualTD3 (preset='td3' is stock TD3)"
        )
    return model


def watch(model: object, observer: UpdateObserver) -> None:
    """Show the observer every update from now on.

    :raises ValueError: if the model offers no updates to watch
    """
    watched(model).observers.append(observer)


def unwatch(model: object, observer: UpdateObserver) -> None:
    """Show the observer no more updates; one that is not there may be taken away, too."""
    observers = watched(model).observers
    if observer in observers:
        observers.remove(observer)
