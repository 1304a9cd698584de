"""The table of API keys: hashes only, the key itself is shown once and never stored."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from headway.core.db import Base


class ApiKey(Base):
    """One API key."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("cardinality(scopes) > 0 AND scopes <@ ARRAY['ingest', 'read', 'admin']", name="scopes"),
        CheckConstraint("octet_length(key_hash) = 32", name="key_hash"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name"),
        # a revoked key keeps its row, its name is free again
        Index("uq_api_keys_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
        {"comment": "Who may call the API; keys are kept as SHA-256 alone"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, comment="Identity")
    name: Mapped[str] = mapped_column(Text, comment="What it is called")
    prefix: Mapped[str] = mapped_column(Text, comment="First characters of the key, to tell it in lists")
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True, comment="SHA-256 of the key")
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text), comment="What it may do: ingest, read, admin")
    client_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("clients.id"), comment="The only client it sees; null is all"
    )
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), comment="When it was made")
    expires_at: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True), comment="When it stops working")
    last_used_at: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True), comment="Last use, to the minute")
    revoked_at: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True), comment="When it was revoked")
