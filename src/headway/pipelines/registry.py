"""Finds the pipelines that reports name, and registers those that are new.

Called by the one writer of runs, in its transaction. Look-ups are one query whatever the batch's size; registration
takes the clients' rows in key order, so that any number of callers that register the same pipeline at once get one
(``tests/runs/test_registration.py``).
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from headway.access.principal import Principal
from headway.core import ids
from headway.core.text import slugify
from headway.pipelines import queries
from headway.pipelines.reference import PipelineRef, Reference

DEFAULT_CLIENT = "default"
MAX_REGISTRATIONS = 1000


class Refusal(NamedTuple):
    """Why a report's pipeline cannot be used."""

    code: str
    detail: str


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
    """Return, for each caller, the pipeline of each reference or why there is none."""
    wanted = {reference for ask in asks for reference in ask.references}
    found = await queries.find_references(connection, references=wanted)
    new = _to_register(asks, found)
    if new:
        found |= await _register(connection, new, now=now)
    return [{reference: _answer(reference, ask, found) for reference in ask.references} for ask in asks]


Found = Mapping[Reference, tuple[UUID, UUID]]  # reference: (pipeline, client)


def _answer(reference: Reference, ask: Ask, found: Found) -> UUID | Refusal:
    known = found.get(reference)
    if known is not None and ask.principal.sees(known[1]):
        return known[0]
    if not ask.register or isinstance(reference, UUID):
        return UNKNOWN_PIPELINE
    if known is None and _may_register(reference, ask.principal):
        return TOO_MANY_NEW
    return UNKNOWN_CLIENT


def _may_register(reference: PipelineRef, principal: Principal) -> bool:
    """Tell whether a caller may register there if the client exists."""
    return principal.client_id is None or principal.client_slug == reference.client


def _to_register(asks: list[Ask], found: Found) -> dict[PipelineRef, bool]:
    """Return what is to be registered, each with whether its client may be made for it."""
    new: dict[PipelineRef, bool] = {}
    for ask in asks:
        if not ask.register:
            continue
        unknown = [r for r in ask.references if isinstance(r, PipelineRef) and r not in found]
        allowed = [r for r in unknown if _may_register(r, ask.principal)]
        for reference in sorted(allowed, key=_sort_key)[:MAX_REGISTRATIONS]:
            may_make = ask.principal.may_make_clients or reference.client == DEFAULT_CLIENT
            new[reference] = new.get(reference, False) or may_make
    return new


async def _register(
    connection: AsyncConnection, new: Mapping[PipelineRef, bool], *, now: datetime
) -> dict[Reference, tuple[UUID, UUID]]:
    slugs = {reference.client for reference in new}
    to_make = {reference.client for reference, may_make in new.items() if may_make}
    clients = await queries.lock_clients(connection, slugs=slugs)
    missing = sorted(to_make - clients.keys())
    if missing:
        rows = [{"id": ids.new_id(), "slug": s, "ping_key": secrets.token_urlsafe(16), "now": now} for s in missing]
        await queries.insert_clients(connection, rows=rows)
        clients = await queries.lock_clients(connection, slugs=slugs)
    # Whoever waited for the lock finds here what the other one made.
    found = await queries.find_references(connection, references=new)
    left = sorted((r for r in new if r not in found and r.client in clients), key=_sort_key)
    if not left:
        return found
    taken_names, taken_slugs = await queries.find_taken(
        connection,
        client_ids=list(clients.values()),
        names=[name for r in left for name in (r.name, _long_name(r))],
        slugs=[slug for r in left for slug in _slug_choices(r)],
    )
    rows = []
    for reference in left:
        client_id = clients[reference.client]
        place = (client_id, reference.environment or "prod", reference.platform)
        name = reference.name if (*place, reference.name) not in taken_names else _long_name(reference)
        slug = next((s for s in _slug_choices(reference) if (client_id, s) not in taken_slugs), uuid4().hex)
        taken_names.add((*place, name))
        taken_slugs.add((client_id, slug))
        pipeline_id = ids.new_id()
        rows.append(
            {
                "id": pipeline_id,
                "client_id": client_id,
                "slug": slug,
                "name": name,
                "platform": reference.platform,
                "external_id": reference.external_id,
                "environment": reference.environment or "prod",
                "ping_uuid": uuid4(),
                "created_at": now,
                "updated_at": now,
            }
        )
        found[reference] = (pipeline_id, client_id)
    await queries.insert_pipelines(connection, rows=rows)
    return found


def _sort_key(reference: PipelineRef) -> tuple[str, ...]:
    """Order references so that one without an external_id has the plain name."""
    return (
        reference.client,
        reference.platform,
        reference.environment or "prod",
        reference.name,
        reference.external_id or "",
    )


def _long_name(reference: PipelineRef) -> str:
    """Return the name of a new pipeline whose plain name is taken."""
    suffix = f" ({reference.external_id})"
    if len(reference.name) + len(suffix) <= 512:
        return reference.name + suffix
    return f"{reference.name[:480]} ({_digest(reference.external_id or '')})"


def _slug_choices(reference: PipelineRef) -> tuple[str, str, str]:
    """Return the slugs to try, best first; the later ones hold a digest of the whole reference."""
    base = slugify(reference.name, "pipeline")
    whole = "\0".join(_sort_key(reference))
    return base, f"{base[:91]}-{_digest(whole)}", f"{base[:83]}-{_digest(whole, 8)}"


def _digest(text: str, size: int = 4) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()
