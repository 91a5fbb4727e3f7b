"""Runs migrations over the connection that `db.migration.run_alembic` gives."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from hakuriver_host.db import tables

assert tables.TaskRow.metadata is SQLModel.metadata  # noqa: S101 - loads the tables' definitions

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
