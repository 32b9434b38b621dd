"""Compute the parts of the report below the verdict.

Each module computes the figures of one part from the series (``growth``, ``norms``, ...). A second function turns these
figures into a section with sentences and tables (``growth_section``, ``norms_section``, ...). report.json contains the
figures.
"""
