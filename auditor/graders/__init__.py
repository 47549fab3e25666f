"""Graders: mark an answer against an item's key, 0..1, behind one port (auditor/graders/port.py).

auditor/graders/desk.py routes each answer to its grader and remembers what was costly to find out.
"""
