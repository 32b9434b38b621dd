"""Compute the parts of the report below the verdict.

Each module computes the numbers of one part (``growth``), and turns them into a section (``growth_section``).
"""
