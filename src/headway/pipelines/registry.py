"""Finds the pipelines that reports name, and registers those that are new.

Called by the one writer of runs, in its transaction. Look-ups are one query whatever the batch's size; registration
takes the clients' rows in key order, so that any number of callers that register the same pipeline at once get one
(``tests/runs/test_registration.py``).
"""

import asyncio
import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import NamedTuple
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from headway.access.principal import Principal
from headway.core import ids
from headway.core.errors import ConflictError
from headway.core.text import slugify
from headway.pipelines import queries
from headway.pipelines.reference import PipelineRef, Reference

DEFAULT_CLIENT = "default"
MAX_REGISTRATIONS = 1000
LOOK_UP_SLICE = (
    4000  # references in one query: more than most fleets have, and few enough not to hold up the event loop
)


class Refusal(NamedTuple):
    """Why a report's pipeline cannot be used."""

    code: str
    detail: str
    pointer: str = "/pipeline"


UNKNOWN_ID = Refusal("unknown_pipeline", "there is no such pipeline", "/pipeline_id")
UNKNOWN_PIPELINE = Refusal(
    "unknown_pipeline", "there is no such pipeline; make it, or send ?register=true with a natural reference"
)
UNKNOWN_CLIENT = Refusal("unknown_client", "there is no such client, and this key may not make it")
TOO_MANY_NEW = Refusal(
    "too_many_registrations", f"a request registers at most {MAX_REGISTRATIONS} pipelines; send the rest in another"
)


class Ask(NamedTuple):
    """One caller's question: these pipelines, registered where they are new if it says so."""

    references: Iterable[Reference]
    principal: Principal
    register: bool


async def resolve(
    connection: AsyncConnection, asks: list[Ask], *, now: datetime
) -> list[dict[Reference, UUID | Refusal]]:
    """Return, for each caller, the pipeline of each reference or why there is none.

    Raises:
        ConflictError: the inventory was edited under a registration; once more, it goes by what it is now.
    """
    found = await _find(connection, {reference for ask in asks for reference in ask.references})
    unknown = [_registrable(ask, found) for ask in asks]
    too_many: list[set[Reference]] = [set() for _ in asks]
    if any(unknown):
        clients = await _ensure_clients(connection, asks, unknown, now=now)
        usable = [[r for r in mine if r.client in clients] for mine in unknown]
        too_many = [set(mine[MAX_REGISTRATIONS:]) for mine in usable]
        new = {reference for mine in usable for reference in mine[:MAX_REGISTRATIONS]}
        found |= await _register(connection, new, clients, now=now)
    return [
        {reference: _answer(reference, ask, found, cut) for reference in ask.references}
        for ask, cut in zip(asks, too_many, strict=True)
    ]


Found = dict[Reference, tuple[UUID, UUID]]  # reference: (pipeline, client)


async def _find(connection: AsyncConnection, references: Iterable[Reference]) -> Found:
    rest = iter(references)
    found: Found = {}
    while part := list(islice(rest, LOOK_UP_SLICE)):
        found |= await queries.find_references(connection, references=part)
    return found


def _answer(reference: Reference, ask: Ask, found: Found, too_many: set[Reference]) -> UUID | Refusal:
    known = found.get(reference)
    if known is not None and ask.principal.sees(known[1]):
        return known[0]
    if isinstance(reference, UUID):
        return UNKNOWN_ID
    if not ask.register:
        return UNKNOWN_PIPELINE
    return TOO_MANY_NEW if reference in too_many else UNKNOWN_CLIENT


def _registrable(ask: Ask, found: Found) -> list[PipelineRef]:
    """Return the unknown references that a caller may register where their client exists, in its own order."""
    if not ask.register:
        return []
    mine = ask.principal
    return [
        reference
        for reference in ask.references
        if isinstance(reference, PipelineRef)
        and reference not in found
        and (mine.client_id is None or mine.client_slug == reference.client)
    ]


async def _ensure_clients(
    connection: AsyncConnection, asks: list[Ask], unknown: list[list[PipelineRef]], *, now: datetime
) -> dict[str, UUID]:
    """Make the clients that are missing, where a caller may, and lock them all; returns their ids by slug."""
    slugs = {reference.client for mine in unknown for reference in mine}
    to_make = {
        reference.client
        for ask, mine in zip(asks, unknown, strict=True)
        for reference in mine
        if ask.principal.may_make_clients or reference.client == DEFAULT_CLIENT
    }
    missing = sorted(to_make - await queries.find_client_slugs(connection, slugs=to_make)) if to_make else []
    if missing:
        rows = [{"id": str(ids.new_id()), "slug": slug, "ping_key": secrets.token_urlsafe(16)} for slug in missing]
        await queries.insert_clients(connection, rows=rows, now=now)
    clients = await queries.lock_clients(connection, slugs=slugs)
    if to_make - clients.keys():
        raise ConflictError("another client took the name of a new one; try again", code="name_taken")
    return clients


async def _register(
    connection: AsyncConnection, new: set[PipelineRef], clients: Mapping[str, UUID], *, now: datetime
) -> Found:
    """Register pipelines of locked clients; returns them, with those that somebody else registered meanwhile."""
    found = await _find(connection, new)
    wanted: dict[tuple[str, ...], list[PipelineRef]] = {}
    for reference in sorted(new - found.keys(), key=_sort_key):
        wanted.setdefault(_identity(reference), []).append(reference)
    if not wanted:
        return found
    await asyncio.sleep(0)
    choices = [_Choices(same[0]) for same in wanted.values()]
    taken_names, taken_slugs = await queries.find_taken(
        connection,
        client_ids=list({clients[c.reference.client] for c in choices}),
        names=[name for c in choices for name in c.names],
        slugs=[slug for c in choices for slug in c.slugs],
    )
    rows: list[dict[str, str | None]] = []
    for choice, same in zip(choices, wanted.values(), strict=True):
        reference, environment = choice.reference, _environment(choice.reference)
        client_id = clients[reference.client]
        place = (client_id, environment, reference.platform)
        name = next(n for n in choice.names if (*place, n) not in taken_names)
        slug = next(s for s in choice.slugs if (client_id, s) not in taken_slugs)
        taken_names.add((*place, name))
        taken_slugs.add((client_id, slug))
        pipeline_id = ids.new_id()
        rows.append(
            {
                "id": str(pipeline_id),
                "client_id": str(client_id),
                "slug": slug,
                "name": name,
                "platform": reference.platform,
                "external_id": reference.external_id,
                "environment": environment,
                "ping_uuid": str(uuid4()),
            }
        )
        found |= dict.fromkeys(same, (pipeline_id, client_id))
    await queries.insert_pipelines(connection, rows=rows, now=now)
    return found


def _environment(reference: PipelineRef) -> str:
    return reference.environment or "prod"


def _identity(reference: PipelineRef) -> tuple[str, ...]:
    """Return what tells a pipeline from others: references that differ in the rest mean the same one."""
    if reference.external_id is not None:
        return "external_id", reference.client, reference.platform, reference.external_id
    return "name", reference.client, reference.platform, _environment(reference), reference.name


def _sort_key(reference: PipelineRef) -> tuple[bool, str, str, str, str, str]:
    """Order references so that those without an external_id come first: the name is all that they are known by."""
    external_id = reference.external_id
    plain = reference.client, reference.platform, _environment(reference), reference.name
    return external_id is not None, *plain, external_id or ""


class _Choices:
    """The names and slugs that a new pipeline may get, best first; the last of each is nobody else's."""

    def __init__(self, reference: PipelineRef) -> None:
        self.reference = reference
        self.names = tuple(_names(reference))
        self.slugs = tuple(_slugs(reference))


def _names(reference: PipelineRef) -> Iterator[str]:
    name, external_id = reference.name, reference.external_id
    yield name
    if external_id is not None:
        if len(name) + len(external_id) + 3 <= 512:
            yield f"{name} ({external_id})"
        yield f"{name[:480]} ({_digest(external_id)})"
    yield f"{name[:470]} ({uuid4()})"


def _slugs(reference: PipelineRef) -> Iterator[str]:
    base = slugify(reference.name, "pipeline")
    whole = "\0".join(_identity(reference))
    yield base
    yield f"{base[:91]}-{_digest(whole)}"
    yield uuid4().hex


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
