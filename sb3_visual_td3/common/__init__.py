"""What every package may use: logged names, interfaces, number checks, schedules, errors. It imports none of ours."""
