"""vLLM in process, for whichever service answers or writes with it: `engine.py` is the way in.

vLLM itself is imported when an engine starts, and not before.
"""
