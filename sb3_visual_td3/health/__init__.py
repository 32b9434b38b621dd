"""Measure the health of a training run: turn tensors into scalars, under the names of ``common/tags.py``."""
