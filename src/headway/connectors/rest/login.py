"""How a rest source says who it is: the standard headers, headers of a template, or a short-lived token.

``api.py`` hands ``headers_for`` to its connection, which asks it at first and again when a request is refused. Rule not to
break: a credential goes into a header or the body of the token request, and into no message
(``tests/connectors/rest/test_api.py``).
"""

from collections.abc import Iterable

from headway.connectors.errors import SourceError
from headway.connectors.http import Headers, Http, authorization
from headway.connectors.rest.expressions import fill
from headway.connectors.rest.source import RestSource
from headway.core import redaction

TOKEN_CHARS = 16_384  # JWTs with many groups are long; no server takes headers beyond that


def headers_for(source: RestSource, http: Http) -> Headers:
    """Return the headers that say who we are.

    Raises:
        SourceError: a credential cannot be had, or the vendor gives no token for it.
    """
    auth = source.auth
    if auth.kind == "standard":
        return authorization(source)
    if auth.kind == "headers":
        values = _credentials(source, auth.headers.values())
        return {name: fill(template, values) for name, template in auth.headers.items()}
    return {"Authorization": f"Bearer {_short_lived_token(source, http)}"}


def _short_lived_token(source: RestSource, http: Http) -> str:
    """Trade the client's credentials for a token (RFC 6749, 4.4, with a body in JSON)."""
    auth = source.auth
    values = _credentials(source, auth.request.values())
    body = {name: fill(template, values) for name, template in auth.request.items()}
    path = fill(auth.token_path, source.parameter_sets[0])
    try:
        answer = http.post(path, body, authorized=False)
    except SourceError as error:
        # The connection keeps the headers it sends out of messages; of this body it does not know.
        detail = error.detail
        for secret in (values.get("password"), values.get("token")):
            detail = detail.replace(secret, redaction.REDACTED) if secret else detail
        raise SourceError(error.code, detail, retry_after_seconds=error.retry_after_seconds) from None
    token = auth.token_at.find(answer.data)
    is_usable = isinstance(token, str) and token.isascii() and token.isprintable() and 0 < len(token) <= TOKEN_CHARS
    if not is_usable:
        raise SourceError("bad_answer", f"POST {path}: no token is found in the answer; check auth.token_at")
    return str(token)


def _credentials(source: RestSource, templates: Iterable[str]) -> dict[str, str]:
    """Return the credentials that these templates ask for, as they are now."""
    asked = " ".join(templates)
    values = {"username": source.username or ""}
    if "{token}" in asked:
        values["token"] = source.token() or ""
    if "{password}" in asked:
        values["password"] = source.password() or ""
    return values
