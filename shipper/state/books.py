"""What a job has counted, as the state file tells whoever compares it: without totals, which are in question."""

import json

from shipper.core.ledger import Book, Name
from shipper.core.model import Kind, Measure, Span
from shipper.state.positions import late_ids
from shipper.state.queries import OFFSETS, PROGRESS, offsets_of, progress_of
from shipper.state.schema import reader
from shipper.state.slots import slots

_NAMES = 'SELECT path, "group", measure, kind FROM series WHERE job = ?'
_PRUNED = "SELECT start, end FROM pruned WHERE job = ? AND start < ? AND end > ?"


def book(path: str, job: str, span: Span) -> Book | None:
    """Read it, with the slots of a span, beside the process that holds the state; None for a job that has not begun.

    Raises:
        StateCorrupt: it is damaged, foreign or newer.
        ConfigError: there is no such file, or it may not be read.
    """
    with reader(path) as connection:
        connection.execute("BEGIN")  # all of it as it is at one moment
        position = connection.execute(f"{OFFSETS} WHERE job = ?", (job,)).fetchone()
        progress = connection.execute(PROGRESS, (job,)).fetchone()
        if progress is None:
            return None
        names = [
            Name(path, tuple(json.loads(group)), Measure(measure, Kind(kind)))
            for path, group, measure, kind in connection.execute(_NAMES, (job,))
        ]
        pruned = [Span(*row) for row in connection.execute(_PRUNED, (job, span.end, span.start))]
        held, late = slots(connection, job, span), late_ids(connection, job)
    return Book(offsets_of(position), progress_of(progress), names, held, pruned, late)
