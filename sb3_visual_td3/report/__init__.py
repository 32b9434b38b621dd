"""From the event files of a run to a verdict, its cause, and what to do first.

The order of the modules: ``discovery`` finds runs, ``event_reader`` reads their points, ``tag_mapping`` renames the
tags of other libraries, ``run_settings`` reads hyperparameters, ``analysis`` judges, ``sections`` compute the figures
below the verdict, and ``render_*`` write the formats. Nothing here imports torch or Stable-Baselines3.
"""
