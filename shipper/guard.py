"""Core. The new rows of a table, window by window, as far as no row below is still in flight.

Strategy: a transaction that takes longer than `settle` has ids below the horizon and rows that nobody sees yet. Where
the source shows them, the window ends below the smallest one: its job is held. After `hold_max` it goes on without
them; a recheck counts them once they appear.
"""

from collections.abc import Iterator
from typing import NamedTuple

from shipper.ledger import Ledger
from shipper.model import Care, Job, Observation, Progress, RecordedWindow, Row, Window
from shipper.scan import Noticed
from shipper.seen import Seen
from shipper.window import next_window


class Taken(NamedTuple):
    """A window, the rows that were read of it, and what is to be kept of it for rechecks."""

    window: Window
    rows: list[Row]
    recorded: RecordedWindow | None


def take(
    job: Job, horizon: Observation, progress: Progress, *, seen: Seen, ledger: Ledger, care: Care
) -> Iterator[Taken | Noticed]:
    """Read the windows above captured in order, up to the horizon or to the first row in flight."""
    after, limit, first = progress.captured, horizon.id, None
    passes = progress.held_since is not None and horizon.time - progress.held_since >= care.hold_max
    while after < limit:
        window = next_window(after, limit, chunk=job.chunk, first=first)
        # another job on the table may have recorded it; but what passes unseen is recorded by whom it passed
        begins = after if passes else ledger.recorded_upto(job, window)
        begins = window.upto if care.recheck is None else begins
        rows, evidence = seen.read(job.query, window, begins, passes=passes)
        if evidence.in_flight:
            held = {"rows": len(evidence.in_flight), "first": evidence.in_flight[0]}
            if not passes:
                limit = evidence.in_flight[0] - 1
                continue
            yield Noticed("capture.passed", held)
        recorded = None
        if care.recheck is not None and evidence.checksum is not None and begins < window.upto:
            part = Window(begins, window.upto)
            recorded = RecordedWindow(part, evidence.checksum, horizon.time, is_open=bool(evidence.in_flight))
        yield Taken(window, rows, recorded)
        after = window.upto
        # behind an empty window there may be a hole: purged rows, or a jump of the ids by 10^12
        first = None if rows or after == limit else seen.source.first_id(job.query, after, limit)

    if limit < horizon.id and (progress.held_since is None or after > progress.captured):
        ledger.hold(job.name, horizon.time)
        yield Noticed("capture.held", {"first": limit + 1})
