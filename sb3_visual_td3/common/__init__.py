"""Define what every package may use: logged names, interfaces, number checks, schedules and errors.

This package imports no other package of this project.
"""
