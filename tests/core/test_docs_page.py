"""The API's pages need nothing from outside."""

import hashlib
import re

from headway.core.docs_page import FILES
from tests.api import Api


async def test_pages_name_no_other_host(api: Api) -> None:
    page = await api.get("/docs")
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sources
    assert all(source.startswith("/docs/assets/") for source in sources)
    for source in sources:
        assert (await api.get(source)).status_code == 200


def test_vendored_files_are_what_they_were() -> None:
    for line in (FILES / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((FILES / name).read_bytes()).hexdigest() == digest
