"""Core. Is the table still the one that was captured? What follows when it went back.

Strategy: ids mean something only as long as none is given twice. With `captured` we keep the newest rows up to it, and
the server's name for itself. A largest id below `captured`, or another row under a known id, is a table that went
back: emptied, restored, or taken over by a server that had not seen all. That stops the job, until a known row shows
that it is the same table after all, or the operator says how to go on. Rows that are gone may have been deleted, and
another server alone is a failover that worked.
"""

from collections.abc import Generator
from typing import Literal

from shipper.errors import SourceReset
from shipper.ledger import Ledger
from shipper.model import ALWAYS, Care, Fingerprint, Job, Observation, Progress, Span
from shipper.retention import after
from shipper.scan import Noticed, Source, timeless, walk_back
from shipper.seen import Seen
from shipper.shape import places_of


def check(
    job: Job, horizon: Observation, progress: Progress, *, seen: Seen, ledger: Ledger, care: Care
) -> Generator[Noticed, None, bool]:
    """Compare the table with what was captured, before anything new of it is read; return whether the job was reset.

    Raises:
        SourceReset: the table went back, and nobody has said how to go on.
    """
    reason = f"its largest id is {horizon.id}, but {progress.captured} was captured"
    if horizon.id >= progress.captured:
        known = ledger.fingerprint(job.name)
        if known is None or (horizon.id == progress.captured and not known.went_back):
            return False
        found = seen.fingerprint(job, known.rows[0][0] if known.rows else progress.captured)
        is_comparable = progress.places == places_of(job)  # else by another column, or in another zone
        match _verdict(known, found if is_comparable else timeless(found)):
            case "same":
                return False
            case "changed":
                yield Noticed("source.changed", {"rows": len(known.rows), "server": found.server or "-"})
                return False
        reason = f"its rows up to id {progress.captured} are not those that were captured"
    if care.reset == "hold":
        ledger.distrust(job.name)
        raise SourceReset(
            f"observe {job.query.table}: {reason}",
            hint="Was the table emptied or restored, or did a server take over that had not seen all? Say how to go on "
            'in the source, and start again: reset = "max" holds all rows there for captured, "zero" counts them anew.',
        )
    captured = horizon.id if care.reset == "max" else 0
    _reset(job, captured, horizon, source=seen.source, ledger=ledger)
    yield Noticed("source.reset", {"reason": reason, "before": progress.captured, "captured": captured})
    return True


def _verdict(known: Fingerprint, found: Fingerprint) -> Literal["same", "changed", "reset"]:
    """Compare what is known of a table with what it holds now, up to the newest known row."""
    times = dict(found.rows)
    pairs = ((time, times.get(identity)) for identity, time in known.rows)
    newest = next((pair for pair in pairs if None not in pair), None)  # older ones may have been corrected since
    is_other_server = None not in {known.server, found.server} and known.server != found.server
    if newest is not None and newest[0] != newest[1]:
        return "reset"
    if is_other_server and found.rows and known.rows and known.rows[0][0] not in times:
        return "reset"
    if known.went_back and newest is None:
        return "reset"
    if not known.rows:  # there was nothing below captured, so what is there now came again
        return "reset" if found.rows else "same"
    return "changed" if is_other_server or (found.rows and known.rows[0][0] not in times) else "same"


def _reset(job: Job, captured: int, horizon: Observation, *, source: Source, ledger: Ledger) -> None:
    """Let the job go on from another id; slots of event time still in state are to be counted again."""
    oldest, low = ledger.lowest(job.name, ALWAYS), captured
    if job.query.time is not None and captured:
        span = Span(oldest[0] if oldest else ALWAYS.start, ALWAYS.end)
        low = walk_back(job, captured, span, source=source, open_above=None if job.revisit is None else 0)
    recount_from = oldest[0] if oldest and job.query.time is not None else None
    since = after(horizon.time, job.query.bucket) if recount_from is None else recount_from
    ledger.reset(job, captured, low=low, recount_from=recount_from, since=since)
