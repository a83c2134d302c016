"""Search for the rows of a span of time, by an index of the time."""

from shipper.core.model import Job, Span, Window, adjoined
from shipper.core.rows.table import Source

HOUR = 3600  # of rows in one statement: its time is limited


def windows_by_index(job: Job, upto: int, span: Span, *, source: Source) -> list[Window] | None:
    """Return windows with all rows of a span up to an id; None unless an index of the time finds them.

    Nearly all rows of a span have ids close to each other, and a late one is far away: it gets its own window.
    """
    if not source.has_index_of_time(job.query):
        return None
    windows: list[Window] = []
    for start in range(span.start, span.end, HOUR):
        piece, after = Span(start, min(start + HOUR, span.end)), 0
        while after < upto and (found := source.ids_in(job.query, Window(after, upto), piece)) is not None:
            window, rows = found
            # a window with more other rows than its own ends before them
            most = 2 * rows + job.chunk
            if window.upto - window.after > most and (middle := source.nth_id(job.query, window, most)) is not None:
                part = source.ids_in(job.query, Window(window.after, middle), piece)
                window = Window(window.after, middle) if part is None else part[0]
            windows.append(window)
            after = window.upto
    return [Window(*ids) for ids in adjoined((one.after, one.upto) for one in windows)]
