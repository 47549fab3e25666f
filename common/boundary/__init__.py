"""The data boundary in code: who exists (identities.py) and who may reach what (allow_table.py)."""
