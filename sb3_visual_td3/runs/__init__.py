"""Write and read a run's files other than event files: ``run.json``, snapshots, and the lock that protects them.

This package does not import torch, so that the report can read a run quickly.
"""
