"""Compute the parts of the report below the verdict.

Each module computes the numbers of one part from the series (``growth``, ``norms``, ...). A second function turns these
numbers into a section with sentences and tables (``growth_section``, ``norms_section``, ...). report.json contains the
numbers.
"""
