"""Provide callbacks that log measurements, raise alerts, evaluate the policy and save the run.

They work with VisualTD3 and with stock off-policy algorithms.
"""
