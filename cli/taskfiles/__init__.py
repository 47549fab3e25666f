"""Reads what a user wrote: tasks and suites, from files. Nothing runs before every file is sound."""

from cli.taskfiles.load import load_suites, load_tasks
from cli.taskfiles.problems import BadFiles, Problem

__all__ = ["BadFiles", "Problem", "load_suites", "load_tasks"]
