"""The doctor finds mistakes in the environment, the settings or the learner before a run, and not after it."""
