"""A day's worth of runs, back to back: `make soak`."""
