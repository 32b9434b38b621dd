"""Reads back what callbacks have written."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def scalars_in(folder):
    """Return every scalar below a folder: name -> [(step, value), ...] in the order of the file."""
    (file,) = folder.rglob("events.out.tfevents.*")
    accumulator = EventAccumulator(str(file), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}
