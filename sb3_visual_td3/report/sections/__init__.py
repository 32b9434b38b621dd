"""The parts of the report below the verdict: figures computed from the series, and how they are told."""
