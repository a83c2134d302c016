"""A table, a state, a Carbon, and the time, in one process: what tests of the core live through."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from builders import NOW, horizon, job
from fakes import FakeSource, WhisperCarbon

from shipper.core.capture import capture
from shipper.core.delivery.courier import Courier
from shipper.core.model import Archive, Job, Key, Now, Span
from shipper.core.repair.backfill import Limits, aligned, backfill, pieces
from shipper.core.rows.table import CaptureStep, Context, Event, chunks, windows_in
from shipper.core.rows.totals import shown_span
from shipper.state.store import State

UNIT = 3600
ARCHIVES = (Archive(60, 7 * 86400), Archive(3600, 365 * 86400))


class Life:
    """A table, a state, a Carbon, and the time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOW
        self.source = FakeSource()
        self.state = State(str(folder / "shipper.db"))
        self.carbon = self.new_carbon("one")
        self.given = 0
        self.noticed: list[Event] = []

    def new_carbon(self, name: str) -> WhisperCarbon:
        """Make an empty Carbon."""
        (self.folder / name).mkdir()
        return WhisperCarbon(self.folder / name, ARCHIVES, lambda: self.now)

    def created(self, ago: int) -> str:
        """Write the time so many seconds ago."""
        return datetime.fromtimestamp(self.now - ago, UTC).strftime("%Y-%m-%d %H:%M:%S")

    def insert(self, *rows: tuple[int, str, str]) -> None:
        """Add rows: how many seconds ago, action, outcome."""
        for ago, action, outcome in rows:
            self.given += 1
            self.source.insert(self.given, self.created(ago), action, outcome)

    def ship(self, *jobs: Job) -> None:
        """Capture and deliver all there is, until it is proven."""
        for wanted in jobs:
            upto = horizon(self.source.observe(wanted.query).id, time=self.now)
            steps = capture(wanted, upto, source=self.source, ledger=self.state, now=self.now)
            self.noticed += [step for step in steps if isinstance(step, Event)]
        self.deliver()

    def deliver(self) -> None:
        """Deliver all there is, until it is proven."""
        courier = Courier(self.state.outbox, self.carbon, archives=ARCHIVES, batch=100, replay=(0,))
        while courier.step(now=self.now, clock=0.0):
            pass
        self.carbon.flush()

    def backfill(self, wanted: Job, *spans: Span, cleared: Sequence[Key] = ()) -> None:
        """Count spans again."""
        for span in spans:
            list(count_again(wanted, span, source=self.source, ledger=self.state, now=self.now, cleared=cleared))

    def sums(self) -> dict[str, int]:
        """Add up each series as Graphite has it."""
        sums = {path: int(sum(slots.values())) for path, slots in self.carbon.zoom(ARCHIVES[1]).items()}
        return {path: rows for path, rows in sums.items() if rows}

    def minutes(self, path: str) -> dict[int, int]:
        """Return a series' minutes, as seconds ago of NOW."""
        return {NOW - slot: int(value) for slot, value in self.carbon.sums()[path].items()}

    def events(self) -> list[str]:
        """Return the events that were noticed since the last call, but those of the job itself."""
        events = [noticed.event for noticed in self.noticed if not noticed.event.startswith("job.")]
        self.noticed.clear()
        return events

    def rejected(self) -> dict[str, int]:
        """Return the counters of rows that cannot be shown, those above 0."""
        return dict(self.state._connection.execute("SELECT reason, rows FROM rejected WHERE rows > 0").fetchall())


def wanted(**changed: Any) -> Job:
    """Build the job that tests begin with."""
    return job(archives=ARCHIVES, **changed)


def count_again(
    wanted: Job, span: Span, *, source: Any, ledger: Any, now: int, cleared: Sequence[Key] = ()
) -> Iterator[CaptureStep | None]:
    """Count a span again, in whole slots, piece by piece, as the operation does."""
    progress = ledger.progress(wanted.name)
    is_timed, upto = wanted.query.time is not None, progress.captured
    found = [one for one in chunks(wanted, 0, upto, source=source) if one] if is_timed else []
    limits = Limits(shown_span(wanted, now=now, source_time=now), ledger.pruned(wanted.name), UNIT, -1)
    whole = aligned(wanted, span, limits, now=now)
    for piece in pieces(whole, UNIT) if whole else ():
        windows, seen = windows_in(found, piece), horizon(upto, time=now)
        context = Context(wanted, source, ledger, Now(now))
        yield from backfill(context, piece, windows, seen, progress, cleared=cleared)
