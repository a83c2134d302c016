"""The promise under an operator's hands: seek, backfill and early pruning beside all else that shipping.py does.

What an operator passes is not counted until its slots are counted again; then Graphite equals the source in each slot.
"""

from contextlib import suppress

import pytest
from builders import horizon
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from life import recount
from shipping import EVENTS, JOBS, TICKS, Crash, Fragile, Shipping

from shipper.core.errors import ShipperError
from shipper.core.model import Job, Span
from shipper.core.rows.start import Target, by_end, by_id, by_time, position_behind

DAY = 86400
AGES = st.integers(0, 37 * 3600)


class Mending(Shipping):
    """The same, and somebody who counts again and passes rows."""

    truncate = delete = purge = None  # type: ignore[assignment] # rows that are gone cannot be counted again

    def __init__(self) -> None:
        super().__init__()
        self.lacks_rows = False
        """May Graphite lack rows of the event-time job, until all is counted again?"""
        self.passed: dict[str, set[int]] = {EVENTS.name: set(), TICKS.name: set()}
        """Ids that each job has passed."""

    @rule(wanted=JOBS, age=AGES, seconds=st.integers(1, 6 * 3600), repeats=st.integers(1, 2))
    def count_again(self, wanted: Job, age: int, seconds: int, repeats: int) -> None:
        """An operator counts a span of time again, once or twice.

        Mutants: add instead of replace; leave what was too late counted as rejected.
        """
        span = Span(self.now - age, self.now - age + seconds)
        for _ in range(repeats if self.is_settled(wanted) else 0):
            list(recount(wanted, span, source=self.source, ledger=self.state, now=self.now))
            self.remember()

    @rule(age=AGES, fuse=st.integers(1, 25), is_late=st.booleans())
    def crash_in_backfill(self, age: int, fuse: int, *, is_late: bool) -> None:
        """The process is killed while it counts again."""
        left, span = [fuse], Span(self.now - age, self.now)
        ledger, source = (Fragile(end, left, is_late=is_late) for end in (self.state, self.source))
        if self.is_settled(EVENTS):
            with suppress(Crash):
                list(recount(EVENTS, span, source=source, ledger=ledger, now=self.now))
            self.crash()
            self.remember()

    @rule(wanted=JOBS, to=st.none() | st.integers(0, 40) | AGES.map(lambda age: -age))
    def seek(self, wanted: Job, to: int | None) -> None:
        """An operator lets rows be passed: to the end, so many ids further, or to a time.

        Mutant: count the border slot from the id on.
        """
        progress = self.state.progress(wanted.name)
        if progress is None or not self.is_settled(wanted):
            return
        upto = horizon(self.source.observe(wanted.query).id, time=self.now)
        with suppress(ShipperError):
            if to is None:
                target = by_end(wanted, progress, upto, now=self.now)
            elif to >= 0:
                target = by_id(wanted, progress.captured + to, progress, upto, source=self.source, now=self.now)
            else:
                target = by_time(wanted, self.now + to, progress, upto, source=self.source, now=self.now)
            self.pass_rows(wanted, progress.captured, target)

    def pass_rows(self, wanted: Job, captured: int, target: Target) -> None:
        """Let a job go on elsewhere; rows that are in flight are not passed."""
        position = position_behind(wanted, target.captured, source=self.source)
        self.state.seek(wanted.name, target, position)
        ids = range(captured + 1, target.captured + 1)
        there = [int(row["id"]) for row in self.source.rows if int(row["id"]) in ids]
        self.passed[wanted.name].update(there)
        self.lacks_rows |= wanted is EVENTS

    @rule()
    def prune_early(self) -> None:
        """Slots are forgotten that are not two days old, so that rows come too late for them."""
        if self.is_settled(EVENTS):
            self.lacks_rows |= self.state.housekeeping.prune(EVENTS.name, unit=3600, before=10**10) > 0

    def is_settled(self, wanted: Job) -> bool:
        """Has the job nothing to count again by itself first?"""
        progress = self.state.progress(wanted.name)
        return progress is not None and progress.recount_from is None

    @invariant()
    def watermarks_stay_behind(self) -> None:
        """As there, but for rows that were passed."""
        if not self.lacks_rows and not self.passed[TICKS.name]:
            super().watermarks_stay_behind()

    @invariant()
    def each_id_counts_once(self) -> None:
        """As there, but for rows that were passed, and are held for counted."""
        if not self.lacks_rows and not self.passed[TICKS.name]:
            super().each_id_counts_once()

    def counts(self, wanted, rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201 - as in Shipping
        """Count as there, but without rows that were skipped."""
        if wanted is TICKS:
            rows = [row for row in rows if row["id"] not in self.passed[TICKS.name]]
        return super().counts(wanted, rows)

    def compare_unshown(self) -> None:
        """As there, but of rows that were passed only those are counted whose slots were counted again."""
        if not self.passed[EVENTS.name]:
            super().compare_unshown()

    def compare(self) -> None:
        """Equal as it is, unless rows were passed or came too late; then equal once all is counted again."""
        if self.lacks_rows:
            span = Span(self.now - 20 * DAY, self.now)
            list(recount(EVENTS, span, source=self.source, ledger=self.state, now=self.now))
            self.remember()
            self.prove()
        super().compare()


Mending.TestCase.settings = settings(max_examples=settings().max_examples // 4, stateful_step_count=30, deadline=None)
TestMending = pytest.mark.timeout(1800)(Mending.TestCase)
