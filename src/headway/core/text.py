"""Small forms of text."""

import re
import unicodedata


def slugify(name: str, fallback: str) -> str:
    """Return a slug for a name: ASCII, lower case, at most 100 characters; the fallback where nothing is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:100].rstrip("-_") or fallback
