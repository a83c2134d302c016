"""Is the table still the one that was captured?

Strategy: ids mean something only as long as none is given twice. With `captured` we keep the newest rows up to it, and
the server's name for itself. A largest id below `captured`, or another row under a known id, is a table that went
back: emptied, restored, or taken over by a server that had not seen all. That holds the job, until a known row shows
that it is the same table after all, or an operator says what has happened (`shipper reset`). Rows that are gone may
have been deleted, and another server alone is a failover that worked. Where all known rows are gone and ids are missing
behind captured, the table may be another one in its place, and that is told.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

from shipper.core.errors import SourceReset
from shipper.core.id_set import size_of, words_of
from shipper.core.ledger import Ledger
from shipper.core.model import ALWAYS, Fingerprint, Job, Observation, Progress, Span, path_digest
from shipper.core.position import Position, new_position
from shipper.core.retention import after
from shipper.core.rows.look import TableLook
from shipper.core.rows.start import passed
from shipper.core.rows.table import Event, Source, fingerprint_of, timeless, walk_back


def check(
    job: Job, progress: Progress, position: Position, *, look: TableLook, ledger: Ledger, adds: bool = False
) -> Iterator[Event]:
    """Compare the table with what was captured, before anything new of it is counted.

    Where its largest id is captured that is known, unless a row is to be added below.

    Raises:
        SourceReset: the table went back, and nobody has said how to go on.
    """
    horizon = look.horizon
    reason = f"its largest id is {horizon.id}, but {progress.captured} was captured"
    if horizon.id >= progress.captured:
        known = ledger.fingerprint(job.name)
        if known is None or (horizon.id == progress.captured and not known.went_back and not adds):
            return
        found = look.fingerprint(job, known.rows[0][0] if known.rows else progress.captured)
        is_comparable = progress.path_digest == path_digest(job)  # else by another column, or in another zone
        match _verdict(known, found if is_comparable else timeless(found), position):
            case "same":
                yield from _rotated(job, progress, known, found, look)
                return
            case "changed":
                yield Event("source.changed", {"rows": len(known.rows), "server": found.server or "-"}, "warning")
                return
        reason = f"its rows up to id {progress.captured} are not those that were captured"
    ledger.distrust(job.name)
    raise SourceReset(
        f"observe {job.query.table}: {reason}",
        hint=f"Was the table emptied, restored or replaced? Say so: `shipper reset {job.name}` shows what each means.",
    )


class After(StrEnum):
    """What has happened to a table."""

    EMPTIED = "emptied"
    """Its rows are gone, and ids began anew: all that it holds is counted."""
    RESTORED = "restored"
    """It was taken back, or another server took over: all that it holds is counted already."""
    REPLACED = "replaced"
    """It is another table of that name: all that it holds is counted, and its ids may go on."""


class Restart(NamedTuple):
    """Where a job goes on after a reset. What was delivered stays as it is."""

    position: Position
    low: int
    since: int
    """Slots from here on are whole."""
    known: Fingerprint
    """By what the table is known from here on."""


class Outlook(NamedTuple):
    """What a reset comes to, in numbers."""

    captured: int
    """The job goes on behind this id."""
    ids: int
    """So many ids at most, of those that the table holds, are counted."""
    passed: int
    """So many ids at most, above those that were captured, are not."""
    unaccounted: int
    """So many ids were given out in the other table since the last look; of these nobody knows."""


def outlook(what: After, captured: int, first: int, largest: int) -> Outlook:
    """Say what a reset comes to, for a table that holds ids from first to largest; 0 and 0 where it is empty."""
    if what is After.RESTORED:
        return Outlook(largest, 0, max(0, largest - captured), 0)
    held = largest - first + 1 if first else 0
    if what is After.REPLACED and first > captured:
        return Outlook(captured, held, 0, first - captured - 1)
    return Outlook(0, held, 0, 0)


def would_double(what: After, captured: int, first: int, *, is_held: bool) -> bool:
    """Say whether a reset would count rows that are counted: those of a table that never went back."""
    return what is not After.RESTORED and not is_held and 0 < first <= captured


def known_again(known: Fingerprint, found: Fingerprint) -> tuple[int, int]:
    """Return how many of the rows that a table is known by it still holds, and how many they are: those with times."""
    timed = {row for row in known.rows if row[1] is not None}
    return len(timed & set(found.rows)), len(timed)


def restarted(
    job: Job, what: After, progress: Progress, position: Position, horizon: Observation, *, source: Source
) -> Restart:
    """Say where a job goes on, according to what has happened to its table."""
    first = source.first_id(job.query, 0, horizon.id) if horizon.id else 0
    begins, low = new_position(0, 0, ()), 0
    if what is After.RESTORED:
        begins, low = passed(job, horizon.id, source=source), horizon.id
        if job.lookback is not None:
            span = Span(progress.complete_until - job.lookback, ALWAYS.end)
            low = walk_back(job, horizon.id, span, source=source)
    elif what is After.REPLACED and first > progress.captured:  # its ids go on: those between are in the other table
        begins, low = position, progress.captured
    known = fingerprint_of(job, source, begins.captured)
    return Restart(begins, low, after(horizon.time, job.query.bucket), known)


def _rotated(job: Job, progress: Progress, known: Fingerprint, found: Fingerprint, look: TableLook) -> Iterator[Event]:
    """Tell how many ids nobody can account for, if all that was known is gone and the table goes on further up."""
    if not known.rows or found.rows or look.horizon.id <= progress.captured:
        return
    first = look.source.first_id(job.query, progress.captured, look.horizon.id)
    if first > progress.captured + 1:
        yield Event("source.rotated", {"captured": progress.captured, "first": first}, "warning")


def _lacks_newest_only(known: Fingerprint, found: Mapping[int, int | None]) -> bool:
    """Say whether the newest known rows were deleted, and no others: a table that was filled again would have them."""
    ids = [identity for identity, _ in known.rows]
    there = [identity in found for identity in ids]
    return there == sorted(there) and not there[0] and there[-1] if there else False


def _verdict(known: Fingerprint, found: Fingerprint, position: Position) -> Literal["same", "changed", "reset"]:
    """Compare what is known of a table with what it holds now, up to the newest known row."""
    times = dict(found.rows)
    pairs = ((time, times.get(identity)) for identity, time in known.rows)
    newest = next((pair for pair in pairs if None not in pair), None)  # older ones may have been corrected since
    is_other_server = None not in {known.server, found.server} and known.server != found.server
    if newest is not None and newest[0] != newest[1]:
        return "reset"
    if is_other_server and found.rows and known.rows and known.rows[0][0] not in times:
        return "reset"
    if known.went_back and newest is None and not _lacks_newest_only(known, times):
        return "reset"
    if not known.rows:  # there was nothing below captured, so what is there now came late, or else again
        is_late = position.counted.missing(words_of(identity for identity, _ in found.rows))
        return "same" if size_of(is_late) == len(found.rows) else "reset"
    return "changed" if is_other_server or (found.rows and known.rows[0][0] not in times) else "same"
