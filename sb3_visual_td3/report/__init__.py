"""Read the event files of a run, and report a verdict, its cause, and what to do first.

The modules work in this order: ``discovery`` finds runs, ``event_reader`` reads their points, and ``tag_mapping``
renames the tags of other libraries. ``run_settings`` reads hyperparameters, ``analysis`` judges, ``sections`` compute
the numbers below the verdict, and ``render_*`` write the formats. Nothing here imports torch or Stable-Baselines3.
"""
