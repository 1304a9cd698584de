"""What can go wrong, as the caller will read it.

One base class with an HTTP status and a stable code; the first line of a class's docstring is the title of its
problem document (RFC 9457). A feature's own errors stand with its service and derive from these. Routes raise these
and no HTTPException; ``core/problems.py`` turns them into answers. No error repeats the value it refuses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import getdoc
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with the input: where it is (an RFC 6901 JSON pointer), a stable code and what to do."""

    pointer: str
    code: str
    detail: str


class HeadwayError(Exception):
    """Internal error."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        issues: Sequence[Issue] = (),
        retry_after: int | None = None,
        cause: str | None = None,
    ) -> None:
        super().__init__(detail if cause is None else f"{detail} ({cause})")
        self.detail = detail
        self.problem_code = code or self.code
        self.issues = tuple(issues)
        self.retry_after = retry_after

    @classmethod
    def title(cls) -> str:
        """Return the title of this kind of problem: the first line of the class's docstring."""
        return (getdoc(cls) or cls.__name__).splitlines()[0].rstrip(".")

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers that belong to the answer."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class BadRequestError(HeadwayError):
    """Malformed request."""

    status = 400
    code = "malformed_request"


class UnauthorizedError(HeadwayError):
    """Authentication required."""

    status = 401
    code = "unauthorized"

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the challenge of RFC 6750."""
        return {"WWW-Authenticate": 'Bearer realm="headway"'}


class ForbiddenError(HeadwayError):
    """Not allowed."""

    status = 403
    code = "forbidden"


class NotFoundError(HeadwayError):
    """Not found."""

    status = 404
    code = "not_found"


class ConflictError(HeadwayError):
    """Conflict with what is stored."""

    status = 409
    code = "conflict"


class TooLargeError(HeadwayError):
    """Request too large."""

    status = 413
    code = "too_large"


class UnsupportedEncodingError(HeadwayError):
    """Unsupported encoding."""

    status = 415
    code = "unsupported_encoding"


class InvalidInputError(HeadwayError):
    """Invalid input."""

    status = 422
    code = "invalid_input"


class UnavailableError(HeadwayError):
    """Temporarily unavailable."""

    status = 503
    code = "unavailable"

    def __init__(self, detail: str, *, code: str | None = None, retry_after: int = 1) -> None:
        super().__init__(detail, code=code, retry_after=retry_after)
