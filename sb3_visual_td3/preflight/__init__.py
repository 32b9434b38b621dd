"""The doctor: what is wrong with the environment, the settings or the learner, before a run and not after it."""
