"""Which parameters and destinations an alert rule may have. Pure; evaluation comes with the alert engine."""

import re
from urllib.parse import unquote, urlsplit

from headway.alerts.models import RULE_TYPES
from headway.core import redaction, validation
from headway.core.errors import Issue

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"[^@\s\x00-\x20\x7f\"<>(),:;\\\[\]]{{1,64}}@(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NAMED = re.compile(r"@[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_PLAIN = re.compile(r"[\x21-\x7e]+")
_KEY_PARAMETER = re.compile(r"[?&#;](?:key|code)=", re.IGNORECASE)
# What nobody chose as a name: a UUID, or 20 letters and digits and more in a row with some of both.
_RANDOM = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[a-z]*+[0-9])(?=[0-9]*+[a-z])[a-z0-9]{20}", re.IGNORECASE
)


def check_parameters(rule_type: str, threshold: float | None, window_minutes: int | None) -> list[Issue]:
    """Say what is missing or out of place for a kind of rule."""
    takes_threshold, takes_window = RULE_TYPES[rule_type]
    found = []
    for name, value, takes in (
        ("threshold", threshold, takes_threshold),
        ("window_minutes", window_minutes, takes_window),
    ):
        if takes and value is None:
            found.append(Issue(f"/{name}", "missing", f"is required for {rule_type}"))
        elif value is not None and not takes:
            found.append(Issue(f"/{name}", "out_of_place", f"does not belong to {rule_type}"))
    if threshold is not None and takes_threshold:
        if rule_type == "failure_rate" and threshold > 100:
            found.append(Issue("/threshold", "out_of_range", "is a percentage: 1 to 100"))
        elif rule_type != "failure_rate" and threshold != int(threshold):
            found.append(Issue("/threshold", "invalid_type", "is a number of failures: a whole number"))
    return found


def check_destination(channel: str, destination: str) -> list[Issue]:
    """Say why a destination does not fit its channel; what carries a secret belongs into the configuration."""
    if _NAMED.fullmatch(destination):
        return []
    if channel == "email":
        fits = _EMAIL.fullmatch(destination) is not None
        detail = "must be an e-mail address, or @name of a destination in HEADWAY_CONFIG"
    elif channel == "webhook":
        fits = _is_https(destination)
        detail = "must be a plain https:// URL, or @name of a destination in HEADWAY_CONFIG"
        if fits and _carries_secret(destination):
            detail = "must not carry credentials or a token: put it into HEADWAY_CONFIG and name it as @name"
            return [Issue("/destination", "secret_in_destination", detail)]
    else:
        fits = False
        detail = "must be @name of a destination in HEADWAY_CONFIG, where URLs that carry secrets live"
    return [] if fits else [Issue("/destination", "invalid_destination", detail)]


def _is_https(url: str) -> bool:
    if not (url.lower().startswith("https://") and validation.is_http_url(url) and _PLAIN.fullmatch(url)):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and "\\" not in url
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


def _carries_secret(url: str) -> bool:
    """Tell whether a URL lets in whoever knows it; where that is unsure, it does."""
    parts = urlsplit(url)
    if "@" in parts.netloc or _KEY_PARAMETER.search(url) or redaction.has_secret(url):
        return True
    return any(_RANDOM.search(unquote(part)) for part in (parts.path, parts.query, parts.fragment))
