"""The state of a training run beyond its weights, part by part and as plain data.

:mod:`~sb3_visual_td3.training_state.training` puts the parts together: settings, model, replay buffer, environments,
callbacks, logger and random numbers. With all of them, a resumed run is the same run, bit for bit.
"""
