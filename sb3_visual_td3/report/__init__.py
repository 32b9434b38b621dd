"""A verdict from event files, its cause, and what to do first. Reads files only; never torch."""
