"""Find mistakes in the environment, the settings or the learner before a training run begins."""
