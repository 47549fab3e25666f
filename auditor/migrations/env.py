"""Alembic's environment: runs on the connection that auditor/ledger/database.py hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import engine_from_config, pool

from auditor.ledger.models import Base


def run() -> None:
    """On the caller's connection, or (from Alembic's command line) on one of its own to sqlalchemy.url."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
        context.run_migrations()
        return
    engine = engine_from_config(context.config.get_section("alembic", {}), poolclass=pool.NullPool)
    with engine.connect() as own:
        context.configure(connection=own, target_metadata=Base.metadata, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()


run()
