"""The commands, a module a subject. At import time they know typer and nothing heavier."""
