"""The table of clients: the tenants whose pipelines are watched."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from headway.core.db import Base

SLUG_PATTERN = "^[a-z0-9][a-z0-9_-]{0,99}$"
CODE_POINT_ORDER = Text(collation="C")


class Client(Base):
    """One tenant."""

    __tablename__ = "clients"
    __table_args__ = (
        CheckConstraint(f"slug ~ '{SLUG_PATTERN}'", name="slug"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name"),
        {"comment": "Tenants whose pipelines are watched"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, comment="Identity")
    slug: Mapped[str] = mapped_column(CODE_POINT_ORDER, unique=True, comment="Short name for URLs and configuration")
    name: Mapped[str] = mapped_column(CODE_POINT_ORDER, unique=True, comment="Name as people read it")
    is_active: Mapped[bool] = mapped_column(
        server_default=text("true"), comment="False once deactivated: history stays, standard lists leave it out"
    )
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"), comment="Free labels")
    ping_key: Mapped[str] = mapped_column(Text, unique=True, comment="Credential of the client's ping URLs")
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), comment="When it was made")
    updated_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), comment="When it was last changed")
