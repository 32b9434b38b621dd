"""Read the event files of a run, and report a verdict, its cause, and what to do first.

Nothing here imports torch or Stable-Baselines3.
"""
