"""Table identity: checks that a table is still the one that was captured, and continues a job after a reset.

Strategy: ids have a meaning only as long as none is used twice. With `captured` the state keeps the newest rows up to
it and the name of the server. A largest id below `captured`, or a different row under a known id, means that the table
went back: it was emptied, restored, or taken over by a server that lacked rows. The job is then held until a known row
proves that it is the same table, or an operator says what happened (`shipper reset`). Missing rows alone may have been
deleted, and a different server alone is a successful failover. If all known rows are gone and ids behind captured are
missing, the table may have been rotated; the event source.rotated reports it.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

from shipper.core.errors import ConfigError, SourceReset
from shipper.core.id_set import size_of, words_of
from shipper.core.ledger import Ledger
from shipper.core.model import ALWAYS, Fingerprint, Job, Observation, Offsets, Progress, Span, time_digest
from shipper.core.position import Position, new_position
from shipper.core.rows.look import TableLook
from shipper.core.rows.start import next_bucket, position_behind
from shipper.core.rows.table import Event, Source, fingerprint_of, timeless, walk_back


def check_identity(job: Job, offsets: Offsets | None) -> None:
    """Check that a job still reads the table whose ids it has counted; else the service logs `job.held`.

    Raises:
        ConfigError: the configuration names another source, table or column.
    """
    configured = (job.source, job.query.table, job.query.key)
    if offsets is not None and offsets[:3] != configured:
        source, table, column = configured
        raise ConfigError(
            f"start job {job.name}: it counted {offsets.table}.{offsets.id} of source {offsets.source}, but the "
            f"configuration says {table}.{column} of source {source}",
            hint="Undo the change of source, table, id or time; for another table, add a new job with its own `name`.",
        )


def check(
    job: Job, progress: Progress, position: Position, *, look: TableLook, ledger: Ledger, adds: bool = False
) -> Iterator[Event]:
    """Compare the table with the rows that were captured, before new rows are counted.

    A job along a time needs no comparison, nor does a largest id that is captured, unless a late row is to be added
    (`adds`).

    Raises:
        SourceReset: the table went back; an operator must say how to continue.
    """
    horizon = look.horizon
    if job.query.is_along:  # no row has the identity of another
        return
    reason = fallen(horizon.id, progress.captured)
    if reason is None:
        known = ledger.fingerprint(job.name)
        if known is None or (horizon.id == progress.captured and not known.went_back and not adds):
            return
        present = look.fingerprint(job, known.rows[0][0] if known.rows else progress.captured)
        match verdict(job, known, present, progress.time_digest, position):
            case "same":
                yield from _rotated(job, progress, known, present, look)
                return
            case "changed":
                yield Event("source.changed", {"server": present.server or "-"}, "warning")
                return
        reason = changed(progress.captured)
    ledger.distrust(job.name)
    raise SourceReset(f"check {job.query.table}: {reason}", hint=remedy(job))


def fallen(largest: int, captured: int) -> str | None:
    """Return why a table with this largest id went back; None if its ids are not below those that were captured."""
    return f"its largest id fell to {largest}; id {captured} was captured" if largest < captured else None


def changed(captured: int) -> str:
    """Return why a table went back that has other rows under known ids."""
    return f"its rows up to id {captured} changed since they were captured"


def remedy(job: Job) -> str:
    """Return what an operator does about a table that went back."""
    return f"Find out whether the table was emptied, restored or replaced, then run `shipper reset {job.name}`."


class After(StrEnum):
    """Event that made a table go back."""

    EMPTIED = "emptied"
    """Its rows are gone, and ids started again: all its rows are counted."""
    RESTORED = "restored"
    """It was restored, or another server took over: all its rows count as counted already."""
    REPLACED = "replaced"
    """Another table has its name: all its rows are counted, and its ids may continue."""


class Restart(NamedTuple):
    """Start of a job after a reset. Delivered values stay as they are."""

    position: Position
    low: int
    since: int
    """Slots from here on are complete."""
    known: Fingerprint
    """Identifies the table from here on."""


class Outlook(NamedTuple):
    """Effect of a reset, in numbers."""

    captured: int
    """The job continues behind this id."""
    ids: int
    """Most ids of the table that will be counted."""
    skipped: int
    """Most ids above captured that will be skipped."""
    unaccounted: int
    """Number of ids that the replaced table used after the last look; their rows are lost."""


def outlook(what: After, captured: int, first: int, largest: int) -> Outlook:
    """Return the effect of a reset on a table with ids from first to largest; both are 0 if it is empty."""
    if what is After.RESTORED:
        return Outlook(largest, 0, max(0, largest - captured), 0)
    held = largest - first + 1 if first else 0
    if what is After.REPLACED and first > captured:
        return Outlook(captured, held, 0, first - captured - 1)
    return Outlook(0, held, 0, 0)


def would_double(what: After, captured: int, first: int, *, is_held: bool) -> bool:
    """Return whether a reset would count rows twice: those of a table that never went back."""
    return what is not After.RESTORED and not is_held and 0 < first <= captured


def known_again(known: Fingerprint, present: Fingerprint) -> tuple[int, int]:
    """Return the number of known rows that the table still has, and of all known rows; only rows with a time."""
    timed = {row for row in known.rows if row[1] is not None}
    return len(timed & set(present.rows)), len(timed)


def restarted(
    job: Job, what: After, progress: Progress, position: Position, horizon: Observation, *, source: Source
) -> Restart:
    """Return where a job continues, by what happened to its table."""
    first = source.first_id(job.query, 0, horizon.id) if horizon.id else 0
    begins, low = new_position(0, 0, ()), 0
    if what is After.RESTORED:
        begins, low = position_behind(job, horizon.id, source=source), horizon.id
        if job.lookback is not None:
            span = Span(progress.complete_until - job.lookback, ALWAYS.end)
            low = walk_back(job, horizon.id, span, source=source)
    elif what is After.REPLACED and first > progress.captured:  # its ids continue: those between are in the old table
        begins, low = position, progress.captured
    known = fingerprint_of(job, source, begins.captured)
    return Restart(begins, low, next_bucket(job, progress, horizon.time), known)


def _rotated(
    job: Job, progress: Progress, known: Fingerprint, present: Fingerprint, look: TableLook
) -> Iterator[Event]:
    """Report a rotation, with the ids that were lost in it: all known rows are gone, and ids continue further up."""
    if not known.rows or present.rows or look.horizon.id <= progress.captured:
        return
    first = look.source.first_id(job.query, progress.captured, look.horizon.id)
    if first > progress.captured + 1:
        yield Event("source.rotated", {"captured": progress.captured, "first": first}, "warning")


def _lacks_newest_only(known: Fingerprint, times: Mapping[int, int | None]) -> bool:
    """Return whether only the newest known rows were deleted: a table that was filled again would have their ids."""
    present = [identity in times for identity, _ in known.rows]
    return present == sorted(present) and not present[0] and present[-1] if present else False


def verdict(
    job: Job, known: Fingerprint, present: Fingerprint, digest: str, position: Position | None
) -> Literal["same", "changed", "reset"]:
    """Compare the known rows of a table with its present rows, up to the newest known row.

    Digest is the job's `time_digest` when the known rows were stored. Without a position a table of which no row was
    known is the same.
    """
    if digest != time_digest(job):  # times are of another column or zone
        present = timeless(present)
    times = dict(present.rows)
    pairs = ((time, times.get(identity)) for identity, time in known.rows)
    newest = next((pair for pair in pairs if None not in pair), None)  # times of older rows may have been corrected
    is_other_server = None not in {known.server, present.server} and known.server != present.server
    # a known id with another time; a server that lacks the newest row; known rows that did not come back
    if newest is not None and newest[0] != newest[1]:
        return "reset"
    if is_other_server and present.rows and known.rows and known.rows[0][0] not in times:
        return "reset"
    if known.went_back and newest is None and not _lacks_newest_only(known, times):
        return "reset"
    if not known.rows:  # rows that are there now are late ones, or ids are used again
        late = position.counted.missing(words_of(identity for identity, _ in present.rows)) if position else {}
        return "same" if position is None or size_of(late) == len(present.rows) else "reset"
    return "changed" if is_other_server or (present.rows and known.rows[0][0] not in times) else "same"
