"""A table, a state, a Carbon and a clock in one process, for tests of the core."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from builders import NOW, horizon, job
from fakes import FakeSource, WhisperCarbon

from shipper.core.capture import capture
from shipper.core.delivery.courier import Courier
from shipper.core.model import Archive, Condition, Job, Key, Now, Span
from shipper.core.repair.backfill import Limits, aligned, backfill, pieces
from shipper.core.rows.folding import shown_span
from shipper.core.rows.table import CaptureStep, Context, Event, chunks, windows_in
from shipper.state.store import State

UNIT = 3600
ARCHIVES = (Archive(60, 7 * 86400), Archive(3600, 365 * 86400))


class Life:
    """A table, a state, a Carbon, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOW
        self.ahead = 0
        """How far the source's clock is ahead, in seconds."""
        self.source = FakeSource()
        self.state = State(str(folder / "shipper.db"))
        self.carbon = self.new_carbon("one")
        self.given = 0
        self.noticed: list[Event] = []

    def new_carbon(self, name: str) -> WhisperCarbon:
        """Start an empty Carbon."""
        (self.folder / name).mkdir()
        return WhisperCarbon(self.folder / name, ARCHIVES, lambda: self.now)

    def created(self, ago: int) -> str:
        """Format the time a number of seconds ago."""
        return datetime.fromtimestamp(self.now - ago, UTC).strftime("%Y-%m-%d %H:%M:%S")

    def insert(self, *rows: tuple[int, str, str]) -> None:
        """Add rows, given by seconds before now, action and outcome."""
        for ago, action, outcome in rows:
            self.given += 1
            self.source.insert(self.given, self.created(ago), action, outcome)

    def ship(self, *jobs: Job) -> None:
        """Capture and deliver all rows, until they are proven."""
        for wanted in jobs:
            upto = horizon(self.source.observe(wanted.query).id, time=self.now + self.ahead)
            steps = capture(wanted, upto, source=self.source, ledger=self.state, now=self.now)
            self.noticed += [step for step in steps if isinstance(step, Event)]
        self.deliver()

    def deliver(self) -> None:
        """Deliver all totals, until they are proven."""
        courier = Courier(self.state.outbox, self.carbon, archives=ARCHIVES, batch=100, replay=(0,))
        while courier.step(now=self.now, clock=0.0):
            pass
        self.carbon.flush()

    def backfill(self, wanted: Job, *spans: Span, cleared: Sequence[Key] = ()) -> None:
        """Recount spans."""
        for span in spans:
            list(recount(wanted, span, source=self.source, ledger=self.state, now=self.now, cleared=cleared))

    def sums(self) -> dict[str, int]:
        """Return the sum of each series in Graphite, but sums of 0."""
        sums = {path: int(sum(slots.values())) for path, slots in self.carbon.zoom(ARCHIVES[1]).items()}
        return {path: rows for path, rows in sums.items() if rows}

    def minutes(self, path: str) -> dict[int, int]:
        """Return the values of a series, by seconds before NOW."""
        return {NOW - slot: int(value) for slot, value in self.carbon.sums()[path].items()}

    def events(self) -> list[str]:
        """Return the events since the last call, but those of the job itself."""
        events = [event.event for event in self.noticed if not event.event.startswith("job.")]
        self.noticed.clear()
        return events

    def rejected(self) -> dict[str, int]:
        """Return the number of rejected rows, by reason."""
        return dict(self.state._connection.execute("SELECT reason, rows FROM rejected WHERE rows > 0").fetchall())

    def limited(self) -> list[dict[str, Any]]:
        """Return what recounts have left as it is, and forget that."""
        found = [dict(noticed.details) for noticed in self.noticed if noticed.event == "recount.limited"]
        self.noticed.clear()
        return found


def redefined(job: Job) -> Job:
    """Return a job that counts the same rows by another definition, so that its slots are counted again."""
    return replace(job, query=replace(job.query, where=(Condition("outcome", "in", ("ok", "bad")),)))


def wanted(**changed: Any) -> Job:
    """Build the default job of the tests."""
    return job(archives=ARCHIVES, **changed)


def recount(
    wanted: Job, span: Span, *, source: Any, ledger: Any, now: int, cleared: Sequence[Key] = ()
) -> Iterator[CaptureStep | None]:
    """Recount a span in complete slots, piece by piece, as the backfill operation does."""
    progress = ledger.progress(wanted.name)
    is_timed, upto = wanted.query.time is not None, progress.captured
    read = [one for one in chunks(wanted, 0, upto, source=source) if one] if is_timed else []
    limits = Limits(shown_span(wanted, now=now, source_time=now), ledger.pruned(wanted.name), UNIT, -1)
    complete = aligned(wanted, span, limits, now=now)
    for piece in pieces(complete, UNIT) if complete else ():
        windows, seen = windows_in(read, piece), horizon(upto, time=now)
        context = Context(wanted, source, ledger, Now(now))
        yield from backfill(context, piece, windows, seen, progress, cleared=cleared)
