"""What the contract suite (``tests/contract/test_connectors.py``) needs to know of a connector to judge it.

Each connector has one in ``tests/connectors/<platform>/subject.py``, listed in ``tests/connectors/subjects.py``: a fake
of its platform (a ``FakePlatform``) that behaves as the real server does, filled with payloads of the recorded shape,
and the words of that platform.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from headway.connectors.config import Source
from headway.connectors.contract import Payload
from headway.runs.observation import Status
from tests.connectors.platform import FakePlatform


class FakeRuns(FakePlatform):
    """A fake platform that holds runs, which the suite adds, changes and deletes. Call these under ``lock``."""

    def add(
        self,
        *,
        pipeline: str,
        word: str,
        created_at: datetime,
        started_at: datetime | None,
        finished_at: datetime | None,
        updated_at: datetime,
    ) -> str:
        """Add a run in the platform's own status ``word``; returns the external_run_id that it is to get."""
        raise NotImplementedError

    def change(
        self, run: str, *, word: str, started_at: datetime | None, finished_at: datetime | None, updated_at: datetime
    ) -> None:
        """Let a run go on: the same id, another status and other times."""
        raise NotImplementedError

    def delete(self, run: str) -> None:
        """Forget a run: asked for by id, the platform answers as it does for one it never knew."""
        raise NotImplementedError


class Subject(Protocol):
    """A connector under judgement.

    What it may have besides, and the suite looks for: ``quiet_requests`` (the most requests of a walk over 1,000
    pipelines with nothing new, 10 unless given), ``reopens`` (False where a run that has ended stays so),
    ``plan(platform, run, at)`` (plans a waiting run for a time) and ``connect(source, stop)`` (makes the connector,
    where it is in no registry).
    """

    platform: str
    #: A word that says that a run has ended well, one that it failed, one that it is under way, one that it waits.
    success: str
    failed: str
    running: str
    queued: str
    #: Whether a next link in an answer (a URL) is followed, so that a hostile one has to be refused.
    follows_links: bool

    @property
    def words(self) -> Mapping[str, Status]:
        """Every status word that the platform is known to have, and what it means to us."""
        ...

    def serve(self) -> FakeRuns:
        """Return a new, empty platform; the suite enters it."""
        ...

    def source(self, url: str, **more: Any) -> Source:
        """Return a configured source for a platform at ``url``, with a credential where the platform wants one."""
        ...

    def hostile_link(self, url: str) -> Mapping[str, str]:
        """Return the headers of an answer whose next page is at ``url``; used where ``follows_links``."""
        ...

    def recorded(self) -> Sequence[Payload]:
        """Return payloads as the mapping takes them, from recordings of the real thing."""
        ...
