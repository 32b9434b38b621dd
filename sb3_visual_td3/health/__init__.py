"""Measures of a training run: tensors in, scalars under the names of ``common/tags.py`` out."""
