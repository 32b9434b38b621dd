"""What a run leaves on the disk besides its event files: ``run.json``, snapshots, and the lock that protects them.

Nothing here imports torch, so that the report can read a run quickly.
"""
