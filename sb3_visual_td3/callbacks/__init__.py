"""Callbacks that watch a run, judge it while it trains, and leave its files behind."""
