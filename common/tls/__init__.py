"""Mutual TLS: its settings (settings.py), its files (material.py) and how they are read again (reloading.py)."""
