"""Starts the three services on this machine as child processes, and stops them without leaving one behind."""
