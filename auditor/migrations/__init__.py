"""Alembic migrations of the ledger; auditor/ledger/database.py runs them at start."""
