"""Modules that every package may use: logged names, interfaces, number checks, schedules, errors.

This package imports no other one of this project.
"""
