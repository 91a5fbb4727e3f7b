"""Cordoned and draining nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("cordoned", "draining"):
        op.add_column("node", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    with op.batch_alter_table("node") as batch:
        batch.drop_column("draining")
        batch.drop_column("cordoned")
