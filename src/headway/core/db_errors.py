"""What the database refuses, in the caller's words: the one place that knows the driver's errors.

A violated constraint is told by its name; a dead, starting or overloaded database becomes 503 with ``Retry-After``.
A name that is missing in the table here is still a 409, never a 500 (``tests/core/test_db_errors.py`` walks the
schema, so that a new unique constraint cannot forget its sentence).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import exc

from headway.core.errors import ConflictError, HeadwayError, InvalidInputError, UnavailableError

# constraint: (code, what is the matter)
CLASHES = {
    "uq_clients_slug": ("slug_taken", "another client has this slug"),
    "uq_clients_name": ("name_taken", "another client has this name"),
    "uq_clients_ping_key": ("conflict", "this ping key exists; try again"),
    "uq_pipelines_client_id_slug": ("slug_taken", "another pipeline of this client has this slug"),
    "uq_pipelines_client_id_environment_platform_name": (
        "name_taken",
        "another pipeline of this client has this name on the same platform and environment",
    ),
    "uq_pipelines_client_id_platform_external_id": (
        "external_id_taken",
        "another pipeline of this client has this external_id on the same platform",
    ),
    "uq_pipelines_ping_uuid": ("conflict", "this ping UUID exists; try again"),
    "uq_alert_rules_active": (
        "duplicate_rule",
        "an active rule with the same scope, rule_type, channel and destination exists",
    ),
    "uq_api_keys_name": ("name_taken", "a key of this name exists; revoke it or choose another name"),
    "uq_api_keys_key_hash": ("conflict", "this key exists"),
}

_BUSY = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
)
_UNWRITABLE = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.DiskFull)


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of the database inside the block into Headway's own."""
    try:
        yield
    except exc.TimeoutError:
        raise UnavailableError("all database connections are busy; try again", code="overloaded") from None
    except exc.DBAPIError as error:
        raise _worded(error.orig, disconnected=error.connection_invalidated) from None
    except psycopg.Error as error:
        raise _worded(error) from None


def _worded(error: BaseException | None, *, disconnected: bool = False) -> HeadwayError:
    if isinstance(error, psycopg.errors.UniqueViolation):
        code, detail = CLASHES.get(error.diag.constraint_name or "", ("conflict", "something with this key exists"))
        return ConflictError(detail, code=code)
    if isinstance(error, psycopg.errors.ForeignKeyViolation):
        return ConflictError("something that this refers to is gone; try again")
    # some of these are OperationalErrors too: whether the database is there comes after them
    if isinstance(error, psycopg.errors.DataError | psycopg.errors.ProgramLimitExceeded):
        return InvalidInputError("a value does not fit its column")
    if disconnected or isinstance(error, (*_BUSY, *_UNWRITABLE, psycopg.OperationalError, psycopg.InterfaceError)):
        return _unavailable(error)
    # the error's own text may hold the row that was refused: its first line does not
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return HeadwayError("something went wrong in the database", cause=f"{type(error).__name__}: {said}")


def _unavailable(error: BaseException | None) -> UnavailableError:
    if isinstance(error, psycopg.errors.QueryCanceled):
        return UnavailableError("this took too long; narrow the question, or try again", code="timeout")
    if isinstance(error, _BUSY):
        return UnavailableError("the database is busy with these rows; try again", code="busy")
    if isinstance(error, _UNWRITABLE):
        return UnavailableError("the database takes no writes at present", code="database_unavailable", retry_after=5)
    return UnavailableError("the database cannot be reached", code="database_unavailable", retry_after=2)
