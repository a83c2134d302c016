"""Core. Is the table still the one that was captured? What follows when it went back.

Strategy: ids mean something only as long as none is given twice. With `captured` we keep the row that stood there and
the server's name for itself. A largest id below `captured`, or another row under the same id, is a table that went
back: emptied, restored, or taken over by a server that had not seen all. That stops the job, unless the operator has
said how to go on. A row that is gone may have been deleted, and another server alone is a failover that worked.
"""

from collections.abc import Iterator

from shipper.errors import SourceReset
from shipper.ledger import Ledger
from shipper.model import ALWAYS, Care, Fingerprint, Job, Observation, Progress, Span
from shipper.scan import Noticed, Source, fingerprint_of, walk_back
from shipper.shape import places_of


def check(
    job: Job, horizon: Observation, progress: Progress, *, source: Source, ledger: Ledger, care: Care
) -> Iterator[Noticed]:
    """Compare the table with what was captured, before anything new of it is read.

    Raises:
        SourceReset: the table went back, and nobody has said how to go on.
    """
    reason = f"its largest id is {horizon.id}, but {progress.captured} was captured"
    if horizon.id >= progress.captured:
        known = ledger.fingerprint(job.name)
        if known is None or horizon.id == progress.captured:
            return
        found = fingerprint_of(job, source, known.id)
        if progress.places != places_of(job):  # another column, or another zone
            found = found._replace(time=None)
        if not _is_other(known, found):
            if found.id not in {0, known.id} or _is_other_server(known, found):
                yield Noticed("source.changed", {"row": known.id, "found": found.id, "server": found.server or "-"})
            return
        reason = f"the row with id {known.id} is not the one that was captured"
    if care.reset == "hold":
        raise SourceReset(
            f"observe {job.query.table}: {reason}",
            hint="Was the table emptied or restored, or did a server take over that had not seen all? Say how to go on "
            'in the source, and start again: reset = "max" holds all rows there for captured, "zero" counts them anew.',
        )
    captured = horizon.id if care.reset == "max" else 0
    _reset(job, captured, source=source, ledger=ledger)
    yield Noticed("source.reset", {"reason": reason, "before": progress.captured, "captured": captured})


def _is_other(known: Fingerprint, found: Fingerprint) -> bool:
    """Is it another table? A row that is gone says so only where the server is another, too."""
    if found.id == known.id:
        return None not in {known.time, found.time} and known.time != found.time
    return found.id != 0 and _is_other_server(known, found)


def _is_other_server(known: Fingerprint, found: Fingerprint) -> bool:
    return None not in {known.server, found.server} and known.server != found.server


def _reset(job: Job, captured: int, *, source: Source, ledger: Ledger) -> None:
    """Let the job go on from another id; slots of event time still in state are to be counted again."""
    oldest, low = ledger.lowest(job.name, ALWAYS), captured
    if job.query.time is not None and captured:
        span = Span(oldest[0] if oldest else ALWAYS.start, ALWAYS.end)
        low = walk_back(job, captured, span, source=source, open_above=None if job.revisit is None else 0)
    is_recounted = job.query.time is not None and oldest is not None
    ledger.reset(job, captured, low=low, recount_from=oldest[0] if oldest and is_recounted else None)
