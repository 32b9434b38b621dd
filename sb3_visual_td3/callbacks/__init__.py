"""Callbacks for ``model.learn()``: they log what is measured, raise alerts, evaluate, and save the run.

They work with VisualTD3 and with stock off-policy algorithms. They know an algorithm only by the interfaces in
:mod:`~sb3_visual_td3.common.types`.
"""
