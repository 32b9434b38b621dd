"""What every room may use: the table of logged names, schedules and shared types."""
