"""How connectors speak to a platform: one place for timeouts, retries, limits and what may be followed.

No redirect is followed and a link is only taken on the source's own scheme, host and port, or a credential would
travel along. Answers are capped, times are bounded, and what may pass (network trouble, 429, 5xx) is tried again with
growing, jittered pauses that end at once when the process stops. Every failure becomes a ``SourceError`` in the
operator's words, without a credential (``tests/connectors/test_http.py``).
"""

import base64
import ipaddress
import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import requests
import tenacity
import urllib3
from requests.auth import AuthBase
from tenacity.stop import stop_after_attempt
from tenacity.wait import wait_random_exponential

from headway import __version__
from headway.connectors.config import Source
from headway.connectors.errors import SourceError, StoppedError
from headway.core import clock, redaction

CONNECT_SECONDS, READ_SECONDS, ANSWER_SECONDS = 5.0, 20.0, 30.0
ANSWER_BYTES = 32 * 1024 * 1024
TRIES = 4
LONGEST_PAUSE_SECONDS = 10.0
# A source that asks for a longer pause gets it from the schedule of syncs, not from a thread that sleeps.
LONGEST_WAIT_SECONDS = 30.0
# Nobody waits longer than a day on a header's word: a reset in the year 9999 fits no schedule.
LONGEST_RETRY_AFTER_SECONDS = 86_400.0
EXCERPT_CHARS = 200
CLOCK_TOLERANCE = timedelta(seconds=2)

_PASSING = frozenset({429, 500, 502, 503, 504})
_DEFAULT_PORTS = {"http": 80, "https": 443}

Headers = Mapping[str, str]


class Answer(NamedTuple):
    """What a platform answered: parsed JSON (None with 304, 404 and 410), headers, and the link to the next page."""

    status: int
    data: Any
    headers: Headers
    next_url: str | None


class _PassingError(Exception):
    """A failure that may be gone at the next try."""

    def __init__(self, error: SourceError) -> None:
        super().__init__(error.detail)
        self.error = error


class Http:
    """The connection to one source; used by one thread at a time.

    ``authorize`` returns the headers that say who we are. It is asked at first and once more for a request that is
    refused with a status of ``renews_on``: tokens expire, and files that hold them are rotated.
    """

    def __init__(
        self,
        source: Source,
        *,
        stop: threading.Event | None = None,
        authorize: Callable[[], Headers] | None = None,
        renews_on: frozenset[int] = frozenset({401}),
    ) -> None:
        self._source = source
        self._base = source.url
        self._origin = _origin(source.url)
        self._stop = threading.Event() if stop is None else stop
        self._authorize = authorize or (lambda: authorization(source))
        self._renews_on = renews_on
        self._credentials: Headers | None = None
        # A proxy that the environment names is for the world outside: this machine is spoken to directly.
        self._proxies = {"no_proxy": "*"} if _is_loopback(source.url) else None
        self._session = _Session()
        self._session.auth = _NoNetrc()
        self._session.headers.update({"User-Agent": f"headway/{__version__}", "Accept": "application/json"})
        self.requests = 0
        #: How far the source's clock is behind ours, by its ``Date`` headers; never negative.
        self.clock_lag = timedelta()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def get(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        headers: Headers | None = None,
        missing_ok: bool = False,
    ) -> Answer:
        """Return the answer to a GET of a path below the source's URL, or of a link that the source gave.

        Raises:
            SourceError: it cannot be had; a 404 or 410 is an answer where ``missing_ok``.
            StoppedError: the process is told to stop.
        """
        return self.request("GET", path, params=params, headers=headers, missing_ok=missing_ok)

    def post(self, path: str, document: Any, *, headers: Headers | None = None, authorized: bool = True) -> Answer:
        """Return the answer to a POST of a JSON document; only for what changes nothing, as it may be repeated.

        Raises:
            SourceError, StoppedError: as ``get``.
        """
        return self.request("POST", path, document=document, headers=headers, authorized=authorized)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        document: Any = None,
        headers: Headers | None = None,
        missing_ok: bool = False,
        authorized: bool = True,
    ) -> Answer:
        """Return the answer to a request, tried again while that can help.

        Raises:
            SourceError, StoppedError: as ``get``.
        """
        url = self._url(path)

        def attempt() -> Answer:
            if self._stop.is_set():
                raise StoppedError
            return self._once(method, url, params, document, headers or {}, missing_ok, authorized)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            stop=stop_after_attempt(TRIES),
            wait=_pause,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except _PassingError as failure:
            raise failure.error from None

    def _once(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None,
        document: Any,
        headers: Headers,
        missing_ok: bool,
        authorized: bool,
    ) -> Answer:
        status, received, body = self._send(method, url, params, document, headers, authorized)
        if authorized and status in self._renews_on and self._credentials and not _is_limit(status, received):
            self._credentials = None
            status, received, body = self._send(method, url, params, document, headers, authorized)
        self._compare_clocks(received)
        if status in {404, 410} and missing_ok:
            return Answer(status, None, received, None)
        if status == 304:
            return Answer(status, None, received, None)
        self._refuse(method, url, status, received, body)
        return Answer(status, self._parse(method, url, body), received, _next_url(url, received))

    def _send(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None,
        document: Any,
        headers: Headers,
        authorized: bool,
    ) -> tuple[int, Headers, bytes]:
        if authorized and self._credentials is None:
            self._credentials = dict(self._authorize())
        sent = {**headers, **(self._credentials or {})} if authorized else dict(headers)
        place = _place(method, url)
        self.requests += 1
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            with self._session.request(
                method,
                url,
                params=params,
                json=document,
                headers=sent,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                stream=True,
                proxies=self._proxies,
            ) as response:
                return response.status_code, response.headers, self._read(place, response, deadline)
        except requests.exceptions.SSLError as error:
            raise SourceError("tls", f"{place}: TLS failed: {self._clean(_reason(error))}") from None
        except (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError):
            raise _PassingError(SourceError("timeout", f"{place}: no answer within {READ_SECONDS:.0f} s")) from None
        except (requests.exceptions.ConnectionError, urllib3.exceptions.ProtocolError) as error:
            detail = f"{place}: cannot be reached: {self._clean(_reason(error))}"
            raise _PassingError(SourceError("unreachable", detail)) from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise SourceError("bad_answer", f"{place}: {self._clean(_reason(error))}") from None

    def _read(self, place: str, response: requests.Response, deadline: float) -> bytes:
        """Return the body. It is read as it comes: waiting for a full piece would let a drip outlast the deadline."""
        body = bytearray()
        while piece := response.raw.read1(64 * 1024, decode_content=True):
            body += piece
            if len(body) > ANSWER_BYTES:
                raise SourceError("answer_too_large", f"{place}: the answer exceeds {ANSWER_BYTES // 2**20} MiB")
            if time.monotonic() > deadline:
                detail = f"{place}: the answer was not complete within {ANSWER_SECONDS:.0f} s"
                raise _PassingError(SourceError("timeout", detail))
        return bytes(body)

    def _refuse(self, method: str, url: str, status: int, headers: Headers, body: bytes) -> None:
        """Raise what an answer that is none means."""
        if 200 <= status < 300:
            return
        place = _place(method, url)
        if 300 <= status < 400:
            target = _split(headers.get("Location", ""))
            where = f"{target.scheme}://{target.netloc}"[:EXCERPT_CHARS] if target.netloc else "another path"
            detail = f"{place}: answers with a redirect to {where}, which is not followed; set url to where it ends"
            raise SourceError("redirected", self._clean(detail))
        said = self._excerpt(body)
        if _is_limit(status, headers):
            pause = _retry_after(headers)
            error = SourceError(
                "rate_limited", f"{place}: asks for fewer requests ({status})", retry_after_seconds=pause
            )
            raise error if pause is not None and pause > LONGEST_WAIT_SECONDS else _PassingError(error)
        if status in _PASSING:
            pause = _retry_after(headers)
            error = SourceError("server_error", f"{place}: answers {status}{said}", retry_after_seconds=pause)
            raise error if pause is not None and pause > LONGEST_WAIT_SECONDS else _PassingError(error)
        if status == 401:
            detail = f"{place}: refuses the credentials (401){said}; check that they are right and not expired"
            raise SourceError("unauthorized", detail)
        if status == 403:
            raise SourceError("forbidden", f"{place}: the credentials may not read this (403){said}")
        if status in {404, 410}:
            raise SourceError("not_found", f"{place}: there is no such path ({status}); check url")
        raise SourceError("refused", f"{place}: answers {status}{said}")

    def _parse(self, method: str, url: str, body: bytes) -> Any:
        if not body.strip():
            return None
        try:
            return json.loads(body, parse_constant=lambda _: None, parse_float=_finite)
        except (ValueError, RecursionError):
            kind = "a web page" if body.lstrip()[:1] == b"<" else "something else"
            detail = f"{_place(method, url)}: answers {kind} where JSON is expected; check url"
            raise SourceError("not_json", detail) from None

    def _url(self, path: str) -> str:
        """Return the URL of a path, or the link itself where it stays with the source.

        Raises:
            SourceError: it leads elsewhere.
        """
        if path == "" or (path[0] in "/?" and not path.startswith("//")):  # `@evil` or `.evil` would be another host
            return self._base + path
        origin = _origin(path)
        if origin is None or origin != self._origin:
            where = _split(path).netloc.rpartition("@")[2] or "something odd"
            raise SourceError(
                "foreign_link",
                f"the source links to {self._clean(where[:200])}, which is not where it is: not followed",
            )
        return path

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError

    def _compare_clocks(self, headers: Headers) -> None:
        try:
            told = parsedate_to_datetime(headers.get("Date", ""))
            lag = clock.now() - told
        except (TypeError, ValueError, OverflowError):
            return
        if lag > CLOCK_TOLERANCE:
            self.clock_lag = max(self.clock_lag, lag)

    def _excerpt(self, body: bytes) -> str:
        limit = 8 * EXCERPT_CHARS
        words = body[:limit].decode(errors="replace").split()
        text = " ".join(words if len(body) <= limit else words[:-1])  # half a token would not be known as one
        if not text or text.startswith("<"):
            return ""
        return f": {self._clean(text)[:EXCERPT_CHARS]}"

    def _clean(self, text: str) -> str:
        """Return a text without credentials: ours, however the source wrote them, and whatever looks like one."""
        known = {part for value in (self._credentials or {}).values() for part in (value, value.rpartition(" ")[2])}
        for read in (self._source.token, self._source.password):
            try:
                known.add(read() or "")
            except SourceError:
                continue  # it cannot be had, so it was not sent
        written = {way for secret in known for way in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""))}
        for secret in sorted(written, key=len, reverse=True):
            if len(secret) > 3:
                text = text.replace(secret, redaction.REDACTED)
        return redaction.redact_text(text)


def authorization(source: Source) -> Headers:
    """Return the standard header for a source's credentials: a bearer token, or a user name with a password.

    Raises:
        SourceError: they cannot be had.
    """
    if source.username is not None:
        pair = f"{source.username}:{source.password() or ''}".encode()  # in UTF-8, as RFC 7617 has it
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    token = source.token()
    return {} if token is None else {"Authorization": f"Bearer {token}"}


class _Session(requests.Session):
    """Knows no redirects: without this, ``requests`` reads the body of one whole, before any cap, and parses its target."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        return None


class _NoNetrc(AuthBase):
    """Leaves a request as it is: without this, ``requests`` takes credentials from the user's ``.netrc``."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


_jittered = wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE_SECONDS)


def _pause(state: tenacity.RetryCallState) -> float:
    """Return the seconds before the next try: what the source asked for, else growing with jitter."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.error.retry_after_seconds if isinstance(error, _PassingError) else None
    return float(_jittered(state)) if asked is None else asked


def _is_limit(status: int, headers: Headers) -> bool:
    """Tell whether an answer says "too many requests"; GitHub does so with 403, too."""
    return status == 429 or (
        status == 403 and ("Retry-After" in headers or headers.get("X-RateLimit-Remaining", "").strip() == "0")
    )


def _retry_after(headers: Headers) -> float | None:
    """Return the seconds that a source asks to wait (RFC 9110, 10.2.3; GitHub's reset as a last resort)."""
    said = headers.get("Retry-After", "").strip()
    try:
        if not said:
            seconds = _reset_after(headers)
        elif re.fullmatch(r"\d+", said):
            seconds = float(said)
        else:
            seconds = (parsedate_to_datetime(said) - clock.now()).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return None if seconds is None else min(max(0.0, seconds), LONGEST_RETRY_AFTER_SECONDS)


def _reset_after(headers: Headers) -> float | None:
    reset = headers.get("X-RateLimit-Reset", headers.get("RateLimit-Reset", "")).strip()
    if not re.fullmatch(r"\d{1,12}", reset):
        return None
    seconds = float(reset)  # a time, or the seconds until then
    return seconds - clock.now().timestamp() if seconds > 1e9 else seconds


def _next_url(url: str, headers: Headers) -> str | None:
    """Return the target of ``Link: <…>; rel="next"`` (RFC 8288), which may be relative to what was asked for."""
    for link in requests.utils.parse_header_links(headers.get("Link", "")):
        if link.get("rel") == "next":
            target = str(link["url"])
            try:
                return urljoin(url, target)
            except ValueError:
                return target  # refused where it is followed
    return None


def _finite(text: str) -> float | None:
    """Return a number of a document, None for one such as 1e999: no column and no JSON takes infinity."""
    number = float(text)
    return number if math.isfinite(number) else None


def _is_loopback(url: str) -> bool:
    host = _split(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    """Return the parts of a URL, none where it is malformed."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _origin(url: str) -> tuple[str, str, int | None] | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.username is not None or parts.password is not None:
        return None
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), _DEFAULT_PORTS.get(scheme) if port is None else port


def _place(method: str, url: str) -> str:
    """Return what was asked for, without its query: it may hold what is nobody's business."""
    parts = urlsplit(url)
    return f"{method} {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:500]


def _reason(error: BaseException) -> str:
    """Return the innermost reason of a chain of errors, without the URL that the outer ones repeat."""
    inner: BaseException = error
    while (below := inner.__cause__ or inner.__context__ or getattr(inner, "reason", None)) is not None and isinstance(
        below, BaseException
    ):
        inner = below
    return (str(inner) or type(inner).__name__)[:EXCERPT_CHARS]
