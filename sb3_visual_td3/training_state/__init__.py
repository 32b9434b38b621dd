"""Read and restore the state of a training run, part by part: the weights from a model file, all else as plain data.

:mod:`~sb3_visual_td3.training_state.training` combines the parts. With all of them, a resumed run equals an
uninterrupted run bit for bit.
"""
