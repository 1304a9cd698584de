"""What a connector is: how one platform is read, and what each of its runs says.

A connector is a folder with an ``api`` (which requests to make: paging, filters, login) and a ``mapping`` (a pure
function from the platform's own description of a run to an observation). ``connectors/syncing.py`` drives them all and
writes what they say; it alone knows of cursors, overlap, claims and the database. The judge of a connector is
``tests/contract/test_connectors.py``; how to write one stands in ``docs/connectors/writing-one.md``.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple, Protocol

from headway.connectors.http import Http
from headway.core import reading
from headway.core.validation import FUTURE
from headway.pipelines.reference import PipelineRef
from headway.runs.observation import RunObservation, Status

Payload = Mapping[str, Any]
IDENTITY_CHARS = 512


class HeldRun(NamedTuple):
    """A run of this source that we hold as not finished."""

    pipeline_external_id: str
    external_run_id: str
    attempt: int


class Page(NamedTuple):
    """Some runs of a source, each as the connector's own mapping takes it.

    ``position`` is from where the same walk may go on after this page, after any pause; None: only from its beginning.
    ``total`` is how many runs the whole walk has, where the source tells. ``gone`` are held runs that the source no
    longer knows (it answers 404 or 410 for each, never merely leaves them out of a list that may be incomplete).
    """

    runs: Sequence[Payload]
    position: str | None = None
    total: int | None = None
    gone: Sequence[HeldRun] = ()


class Report(NamedTuple):
    """What a payload says of its run, and whether its status word is one that we do not know."""

    observation: RunObservation
    is_unknown_word: bool = False


class Check(NamedTuple):
    """What a source turned out to be: the product with its version, and the names of the pipelines it would import.

    ``pipelines`` has the first 1,000 of them; ``notes`` are what the operator had better know.
    """

    product: str
    pipelines: Sequence[str]
    notes: Sequence[str] = ()


class Connector(Protocol):
    """How one configured source is read. Each walk yields its pages as they come: never more than one is held.

    Order within a walk is free; runs may come twice. All times passed in are aware, in UTC.
    """

    #: Whether ``window`` reads no more than its window; else there is one window for all, resumed by position.
    is_windowed: ClassVar[bool]
    #: Its connection, closed by whoever made the connector.
    http: Http

    def changed(self, since: datetime) -> Iterator[Page]:
        """Yield every run that changed at or after ``since``, as far as the platform can tell, and all live ones."""
        ...

    def window(self, since: datetime, until: datetime, position: str | None) -> Iterator[Page]:
        """Yield every run whose time (start, creation or end: what the platform can filter by) is in the window.

        ``position`` is that of the last page that was stored of this very window, None for its beginning.
        """
        ...

    def reread(self, held: Sequence[HeldRun]) -> Iterator[Page]:
        """Yield these runs as they are now, or name them as gone. At most 200 are asked for at a time."""
        ...

    def report(self, payload: Payload, *, now: datetime) -> Report | None:
        """Return what a payload of a page says; None where it is no run that we take (planned for later than now).

        The observation's ``source`` is the name of the configured source: by it we know which runs to ask for again.

        Raises:
            OddPayloadError: it lacks what identifies a run.
        """
        ...

    def check(self) -> Check:
        """Ask the platform who it is, and what there is to import.

        Raises:
            SourceError: as every walk does, it cannot be reached, refuses us, or answers what it should not.
        """
        ...


class OddPayloadError(Exception):
    """One run of a page cannot be used; the others can."""


def status_of(word: str | None, words: Mapping[str, Status], *, has_ended: bool) -> tuple[Status, bool]:
    """Return our status for a platform's word, and whether the word is an unknown one.

    An unknown word is ``running``, or ``failed`` with an end time: shown, not hidden.
    """
    known = None if word is None else words.get(word)
    if known is not None:
        return known, False
    return (Status.FAILED if has_ended else Status.RUNNING), True


def identity(payload: Payload, *path: str) -> str:
    """Return the text or number at a path, as that by which the source tells its things apart.

    Raises:
        OddPayloadError: there is none, or it is too long to be one.
    """
    found = reading.id_at(payload, *path)
    if found is None or len(found) > IDENTITY_CHARS:
        msg = f"{'.'.join(path)} is {'missing' if found is None else 'too long'}"
        raise OddPayloadError(msg)
    return found


def pipeline_ref(
    *, client: str, platform: str, name: str, external_id: str, environment: str | None = None
) -> PipelineRef:
    """Return the reference of a pipeline whose names fit.

    Raises:
        OddPayloadError: a name is too long.
    """
    if len(external_id) > IDENTITY_CHARS:
        raise OddPayloadError("the pipeline's id is too long")
    return PipelineRef(client, platform, name[:IDENTITY_CHARS] or external_id, external_id, environment)


def latest_fact(now: datetime) -> datetime:
    """Return the latest time that a fact may have: some clocks are ahead."""
    return now + FUTURE


def latest_plan(now: datetime) -> datetime:
    """Return the latest time that a plan may have."""
    return now + timedelta(days=366)
