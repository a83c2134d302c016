"""The promise as a state machine: captures and deliveries, with crashes and a Carbon that dies, in any order.

The state is the real one, on disk; source and Carbon are fakes that keep the contracts of the real ones. Rules insert
rows whatever our own state is: filtering on it would hide bugs. Each property was seen to fail; the mutants are in the
docstrings.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, horizon, job
from fakes import FakeSource, FakeWeb, WhisperCarbon
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shipper.core.capture import capture
from shipper.core.delivery.courier import Courier
from shipper.core.errors import DeliveryFailed, SourceReset
from shipper.core.id_set import words_of
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Archive, Condition, Job, Span
from shipper.core.repair.reset import After, restarted
from shipper.core.rows.look import TableLook
from shipper.core.verify.reconcile import compare_job
from shipper.state.queries import read_snapshot
from shipper.state.store import State

ARCHIVES = (Archive(60, 4 * 3600), Archive(3600, 365 * 86400))
LATE = 10**9  # other tests cover how ids grow old
KINDS = 3
EVENTS = job(
    "events",
    chunk=3,
    archives=ARCHIVES,
    zeros=86400,
    late=LATE,
    measures=(COUNT, Measure("kinds", Kind.DISTINCT, "duration_ms")),
)
ASKED = ("a", "b c", "ok")
TICKS = job(
    "ticks",
    chunk=3,
    archives=ARCHIVES,
    late=LATE,
    zeros=7200,
    time=None,
    by=("outcome",),
    where=(Condition("outcome", "in", ASKED),),
    template="ticks.{outcome}.{measure}",
)
JOBS = st.sampled_from([EVENTS, TICKS])
ACTIONS = st.sampled_from(["a", "b c", "b_c", None])  # two of them are sanitized to one path
REPLAY = (60, 600, 3600)
TOTALS = """
    SELECT path, slot, value FROM total JOIN series ON series.id = total.series"""


class Crash(BaseException):
    """The process ends here."""


class Fragile:
    """A wrapper whose n-th call of any method crashes, before or after the call."""

    def __init__(self, wrapped: Any, fuse: list[int], *, is_late: bool) -> None:
        self._wrapped, self._fuse, self._is_late = wrapped, fuse, is_late

    @contextmanager
    def recording(self, *arguments: Any) -> Iterator[Any]:
        """Allow the crash within a record, too."""
        with self._wrapped.recording(*arguments) as recording:
            yield Fragile(recording, self._fuse, is_late=self._is_late)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._wrapped, name)
        if not callable(method):
            return method

        def call(*arguments: Any, **keywords: Any) -> Any:
            self._fuse[0] -= 1
            if self._fuse[0] == 0 and not self._is_late:
                raise Crash
            result = method(*arguments, **keywords)
            if self._fuse[0] == 0:
                raise Crash
            return result

        return call


class Shipping(RuleBasedStateMachine):
    """Two jobs on one table, a courier, and a Carbon."""

    replay: Sequence[int] = REPLAY
    """Delays of replays, at most those of REPLAY."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # fsync costs nothing there
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.now, self.clock, self.is_lossy = NOW, 0.0, False
        self.source = FakeSource(now=lambda: self.now)
        whisper = Path(self.folder.name) / "whisper"
        whisper.mkdir()
        self.carbon = WhisperCarbon(whisper, ARCHIVES, lambda: self.now)
        self.carbon.kinds["kinds"] = "max"
        self.recorded: dict[tuple[str, int], set[int]] = {}
        self.given, self.has_deleted, self.unseen_restarts = 0, False, 0
        self.has_lost = False
        """Whether rows were ever deleted: distinct values of their slots stay as they were."""
        self.gone: dict[str, list[dict[str, Any]]] = {EVENTS.name: [], TICKS.name: []}
        """Rows that were counted and have left the table."""
        self.pruned: dict[str, Counter[str]] = {EVENTS.name: Counter(), TICKS.name: Counter()}
        """Sums of totals that have left the state, by raw group."""
        self.open()

    def open(self) -> None:
        """Start as after any exit."""
        self.state = State(f"{self.folder.name}/shipper.db")
        sent = self.state.outbox.take_replays()
        self.courier = Courier(
            self.state.outbox, self.carbon, archives=ARCHIVES, batch=2, replay=self.replay, schedule=sent
        )

    @property
    def largest(self) -> int:
        """Return the table's largest id."""
        return max((int(str(row["id"])) for row in self.source.rows), default=0)

    def ticks(self, wanted: Job, windows: int, *, source: Any = None, ledger: Any = None) -> None:
        """Capture a number of windows, then stop."""
        upto = horizon(self.source.observe(wanted.query).id, time=self.now)
        source, ledger = source or self.source, ledger or self.state
        steps = capture(wanted, upto, source=source, ledger=ledger, now=self.now)
        for _ in zip(range(windows), steps, strict=False):
            self.remember()
        steps.close()

    def remember(self) -> None:
        """Note every total that was ever recorded."""
        for path, slot, value in self.state._connection.execute(TOTALS):
            self.recorded.setdefault((path, slot), set()).add(value)

    @initialize()
    def begin(self) -> None:
        """Begin both jobs at the beginning, so that every row is theirs."""
        for wanted in (EVENTS, TICKS):
            self.ticks(wanted, 1)

    @rule(
        actions=st.lists(ACTIONS, min_size=1, max_size=8),
        age=st.integers(0, 36 * 3600) | st.integers(0, 7200) | st.sampled_from([None, -(10**7), 10**8]),
        gap=st.sampled_from([1, 1, 2, 7, 10**6]),
    )
    def insert(self, actions: list[str | None], age: int | None, gap: int) -> None:
        """The application commits rows: new and older ones, some without a time, too old or in the future."""
        self.begin_transaction(actions, age, gap)
        self.source.rows += self.source.in_flight[-len(actions) :]
        del self.source.in_flight[-len(actions) :]

    @rule(
        actions=st.lists(ACTIONS, min_size=1, max_size=3),
        age=st.integers(0, 7200) | st.sampled_from([None, 10**8]),
        gap=st.sampled_from([1, 1, 3]),
    )
    def begin_transaction(self, actions: list[str | None], age: int | None, gap: int) -> None:
        """The application inserts rows that it does not commit yet."""
        created = None
        if age is not None:
            created = datetime.fromtimestamp(self.now - age, UTC).strftime("%Y-%m-%d %H:%M:%S")
        for action in actions:
            self.given += gap
            self.source.begin(self.given, created, action, action or "ok")
            self.source.in_flight[-1]["is_shown"] = age is not None and 0 <= age <= 36 * 3600
            self.source.in_flight[-1]["duration_ms"] = self.given % (KINDS + 1) or None

    @precondition(lambda self: self.source.in_flight)
    @rule(which=st.integers(0, 9), is_committed=st.booleans())
    def end_transaction(self, which: int, *, is_committed: bool) -> None:
        """An uncommitted row appears, below rows that were counted long ago, or is rolled back."""
        row = self.source.in_flight.pop(which % len(self.source.in_flight))
        if is_committed:
            self.source.rows.append(row)

    @rule(proves=st.booleans())
    def switch_proof(self, *, proves: bool) -> None:
        """The catalogue proves that ids are unique, or does not."""
        self.source.is_unique_id = proves

    def end_all(self) -> None:
        """Commit all open transactions."""
        while self.source.in_flight:
            self.end_transaction(0, is_committed=True)

    @precondition(lambda self: len(self.source.rows) > 1)
    @rule(which=st.integers(0, 99))
    def delete(self, which: int) -> None:
        """A row is deleted, but not the newest, which would hold the jobs. A counted row stays in the totals."""
        rows = sorted(self.source.rows, key=lambda row: int(row["id"]))[:-1]
        row = rows[which % len(rows)]
        self.source.rows.remove(row)
        self.forget_uncounted([row])

    @precondition(lambda self: self.source.rows)
    @rule(part=st.floats(0.1, 0.9))
    def purge(self, part: float) -> None:
        """The oldest rows are purged."""
        rows = sorted(self.source.rows, key=lambda row: int(row["id"]))
        gone = rows[: int(len(rows) * part)]
        self.source.rows = [row for row in self.source.rows if row not in gone]
        self.forget_uncounted(gone)

    def forget_uncounted(self, gone: list[dict[str, Any]]) -> None:
        """Remember which rows that are gone each job has counted."""
        self.has_deleted = self.has_lost = True
        for wanted in (EVENTS, TICKS):
            self.gone[wanted.name] += [row for row in gone if self.is_decided(wanted, int(row["id"]))]

    def is_decided(self, wanted: Job, identity: int) -> bool:
        """Whether a job has counted an id."""
        return not self.state.position(wanted.name).counted.missing(words_of([identity]))

    @rule()
    def truncate(self) -> None:
        """The table starts again at id 1; its jobs are held until an operator resets them."""
        self.source.in_flight.clear()
        self.forget_uncounted(self.source.rows)
        self.source.rows.clear()
        self.given, self.has_deleted = 0, False  # older reports are not compared any more
        for wanted in (EVENTS, TICKS):
            progress, position = self.state.progress(wanted.name), self.state.position(wanted.name)
            assert progress is not None
            if progress.captured:
                with pytest.raises(SourceReset):
                    self.ticks(wanted, 1000)
            upto = horizon(0, time=self.now)
            restart = restarted(wanted, After.EMPTIED, progress, position, upto, source=self.source)
            self.state.reset(wanted.name, **restart._asdict())

    @rule(wanted=JOBS, windows=st.integers(1, 4))
    def tick(self, wanted: Job, windows: int) -> None:
        """A capture runs, possibly not to its end."""
        self.ticks(wanted, windows)

    @rule(windows=st.integers(1, 4), dies=st.booleans())
    def tick_together(self, windows: int, *, dies: bool) -> None:
        """Both jobs are captured with one look at the table and one commit; or the process is killed before it.

        Mutants: deliver uncommitted totals; take one job's rows for the other's.
        """
        upto = horizon(self.source.observe(EVENTS.query).id, time=self.now)
        look = TableLook(self.source, upto)
        self.state._gathering += 1
        for wanted in (EVENTS, TICKS):
            steps = capture(wanted, upto, source=self.source, ledger=self.state, now=self.now, look=look)
            for _ in zip(range(windows), steps, strict=False):
                pass
            steps.close()
        if dies:
            self.crash()
        else:
            self.state._gathering -= 1
            self.deliver(1)
        self.remember()

    @rule(steps=st.integers(1, 6))
    def deliver(self, steps: int) -> None:
        """The courier takes some steps."""
        for _ in range(steps):
            with suppress(DeliveryFailed):
                self.courier.step(now=self.now, clock=self.clock)

    @rule(seconds=st.sampled_from([1, 59, 61, 700, 4000, 3 * 3600]))
    def wait(self, seconds: int) -> None:
        """Carbon writes its cache within a second, and time passes."""
        self.carbon.flush()
        self.now, self.clock = self.now + seconds, self.clock + seconds

    @rule()
    def prune(self) -> None:
        """Slots that are delivered and unchanged for two days are pruned."""
        for wanted in (EVENTS, TICKS):
            before = self.in_state(wanted)
            self.state.housekeeping.prune(wanted.name, unit=3600, before=self.now - wanted.keep)
            self.pruned[wanted.name] += before - self.in_state(wanted)

    @rule()
    def kill_carbon(self) -> None:
        """Carbon dies with its cache; the courier sees its connection end, and cannot connect again."""
        self.is_lossy = True
        self.carbon.kill()
        self.deliver(1)

    @precondition(lambda self: self.unseen_restarts < len(self.replay))
    @rule()
    def restart_carbon_unseen(self) -> None:
        """Carbon dies with its cache, and is back before the courier notices: a replay brings the lost values.

        This happens a limited number of times: a value that Carbon loses after each replay is lost.
        """
        self.is_lossy = True
        self.unseen_restarts += 1
        self.carbon.kill()
        self.carbon.start()

    @rule()
    def close_idle(self) -> None:
        """Carbon, or a proxy before it, closes idle connections."""
        self.carbon.close_idle()

    @rule()
    def start_carbon(self) -> None:
        """Carbon is started, if it is down."""
        self.carbon.start()

    @precondition(lambda self: self.carbon.is_up)
    @rule(datapoints=st.integers(0, 2))
    def break_connection(self, datapoints: int) -> None:
        """Carbon stores some datapoints of a batch and never confirms it."""
        self.carbon.breaks_after = datapoints
        with suppress(DeliveryFailed):
            self.courier.step(now=self.now, clock=self.clock)
        self.carbon.breaks_after = None

    @rule()
    def crash(self) -> None:
        """The process is killed between two steps."""
        self.state.close()
        self.open()

    @rule()
    def end(self) -> None:
        """The process ends in order, and leaves its replays to the next."""
        self.state.outbox.keep_replays(self.courier.schedule())
        self.crash()

    @rule(wanted=JOBS, fuse=st.integers(1, 25), is_late=st.booleans())
    def crash_in_capture(self, wanted: Job, fuse: int, *, is_late: bool) -> None:
        """The process is killed at some point of a capture."""
        left = [fuse]
        ledger, source = (Fragile(end, left, is_late=is_late) for end in (self.state, self.source))
        with suppress(Crash):
            self.ticks(wanted, 4, source=source, ledger=ledger)
        self.crash()
        self.remember()

    @rule(fuse=st.integers(1, 12), is_late=st.booleans())
    def crash_in_delivery(self, fuse: int, *, is_late: bool) -> None:
        """The process is killed at some point of the courier's steps."""
        left = [fuse]
        outbox, sink = (Fragile(end, left, is_late=is_late) for end in (self.state.outbox, self.carbon))
        self.courier._outbox, self.courier._sink = outbox, sink
        with suppress(Crash, DeliveryFailed):
            while self.courier.step(now=self.now, clock=self.clock) and left[0] > 0:
                pass
        self.crash()

    @invariant()
    def graphite_holds_only_totals(self) -> None:
        """Safety: a value in Graphite is a total that was recorded for its path and slot.

        Mutants: send the window's counts instead of totals; render the slot's end.
        """
        self.remember()  # also totals that the courier has merged
        for path, slots in self.carbon.sums().items():
            for slot, value in slots.items():
                assert value in self.recorded[path, slot]

    @invariant()
    def watermarks_stay_behind(self) -> None:
        """Safety: watermark <= captured <= the table's end, and all rows up to the watermark are delivered.

        Mutants: commit before deliver; commit the current captured instead of the noted one; forget `remaining`.
        """
        for wanted in (EVENTS, TICKS):
            position = self.state.offsets(wanted.name)
            if position is None:
                continue
            assert position.watermark <= position.captured
            if not self.is_lossy and position.watermark == position.captured and not self.is_waiting(wanted):
                assert self.decided(wanted) == self.in_graphite(wanted)

    @invariant()
    def each_id_counts_once(self) -> None:
        """Safety: every id of a job's set is in its totals or counters exactly once, and no other id is.

        Mutants: begin with all ids up to captured as counted; leave a late id out of the set; record the set of ids
        in a transaction of its own; take a recount's ids for new.
        """
        for wanted in (EVENTS, TICKS):
            if self.state.offsets(wanted.name) is not None:
                sums = self.in_state(wanted) + self.pruned[wanted.name]
                assert self.decided(wanted) == sums

    def is_waiting(self, wanted: Job) -> bool:
        """Whether totals of a job are pending."""
        waiting = """
            SELECT 1 FROM total JOIN series ON series.id = total.series WHERE job = ? AND changed > 0 LIMIT 1"""
        return self.state._connection.execute(waiting, (wanted.name,)).fetchone() is not None

    def decided(self, wanted: Job) -> Counter[str]:
        """Count the rows that are in a job's set, or were when they left the table, by raw group."""
        rows = [row for row in self.source.rows if self.is_decided(wanted, int(row["id"]))]
        return self.counts(wanted, [*rows, *self.gone[wanted.name]])

    def in_state(self, wanted: Job) -> Counter[str]:
        """Add up a job's totals in the state, by raw group."""
        sums = Counter[str]()
        query = """
            SELECT json_extract("group", '$[0]'), SUM(value) FROM total JOIN series ON series.id = total.series
            WHERE job = ? AND measure = 'count' GROUP BY 1"""
        for group, value in self.state._connection.execute(query, (wanted.name,)):
            sums[str(group)] += value
        return +sums

    def counts(self, wanted: Job, rows: Iterable[dict[str, Any]]) -> Counter[str]:
        """Count the rows that a job counts, by raw group."""
        (column,) = wanted.query.by
        counted = (row for row in rows if (row["is_shown"] if wanted is EVENTS else row[column] in ASKED))
        return Counter(str(row[column]) for row in counted)

    def in_graphite(self, wanted: Job) -> Counter[str]:
        """Add up a job's values in Graphite, by raw group."""
        sums = Counter[str]()
        query = """SELECT path, json_extract("group", '$[0]') FROM series WHERE job = ? AND measure = 'count'"""
        shown = self.carbon.zoom(ARCHIVES[1])
        for path, group in self.state._connection.execute(query, (wanted.name,)):
            sums[str(group)] += int(sum(shown.get(path, {}).values()))
        return sums

    def teardown(self) -> None:
        """Liveness and equality at rest: without faults all rows are captured, delivered and proven.

        Sums and counters together equal the source.

        Mutants: add to Graphite's value twice after a crash; advance captured before its totals; prove at once.
        """
        try:
            self.come_to_rest()
        finally:
            self.state.close()
            self.folder.cleanup()

    def come_to_rest(self) -> None:
        """Capture and deliver all rows, let time prove them, and compare."""
        self.end_all()
        self.prove()
        self.compare()

    def prove(self) -> None:
        """Capture and deliver all rows, and let time prove them."""
        self.carbon.start()
        looks = (0, *REPLAY)
        for n, seconds in enumerate((*looks, 0, *REPLAY, 6 * 3600, 60, *REPLAY, *REPLAY)):
            self.wait(seconds)
            for wanted in (EVENTS, TICKS) if n < len(looks) else ():
                self.ticks(wanted, 1000)
            for _ in range(10_000):
                if not self.courier.step(now=self.now, clock=self.clock):
                    break
            else:
                pytest.fail("the courier never comes to rest")

    def compare(self) -> None:
        """Sums and counters together equal the source, and all totals are proven."""
        self.carbon.kill()  # proven means written: a kill changes nothing
        self.graphite_holds_only_totals()
        for wanted in (EVENTS, TICKS):
            position = self.state.offsets(wanted.name)
            assert position is not None
            assert position.watermark == position.captured >= self.largest
            counted = [*self.source.rows, *self.gone[wanted.name]]
            assert self.counts(wanted, counted) == self.in_graphite(wanted)
        assert self.by_slot() == self.expected_by_slot()
        if not self.has_lost:
            assert self.distinct_values() == self.expected_distinct_values()
        self.compare_unshown()
        self.reconcile()
        unproven = "SELECT COUNT(*) FROM total WHERE changed > 0"
        assert self.state._connection.execute(unproven).fetchone() == (0,)

    def reconcile(self) -> None:
        """An operator's `reconcile` shows no difference where the job has counted all rows."""
        for wanted in (EVENTS, TICKS):
            known = read_snapshot(self.state.path, wanted.name, Span(0, self.now))
            assert known is not None
            graphite, start = FakeWeb(self.carbon), known.progress.since
            comparison = compare_job(wanted, known, start, None, source=self.source, graphite=graphite, now=self.now)
            assert self.has_deleted or comparison.differences == []
            counts = [one for one in comparison.differences if one.path.endswith(".count")]
            assert all((one.graphite or 0) > (one.source or 0) for one in counts)

    def compare_unshown(self) -> None:
        """The counters have all rejected rows, and no others."""
        rejected = self.state._connection.execute("SELECT SUM(rows) FROM rejected").fetchone()[0] or 0
        counted = [*self.source.rows, *self.gone[EVENTS.name]]
        assert rejected == sum(not row["is_shown"] for row in counted)

    def by_slot(self) -> dict[int, int]:
        """Add up the event-time job's values in Graphite, by hour."""
        shown = Counter[int]()
        for path, slots in self.carbon.zoom(ARCHIVES[1]).items():
            if path.startswith("events.") and path.endswith(".count"):
                shown.update({slot: int(value) for slot, value in slots.items()})
        return {hour: rows for hour, rows in shown.items() if rows}

    def expected_by_slot(self) -> dict[int, int]:
        """Count the table by hour."""
        rows = [row for row in (*self.source.rows, *self.gone[EVENTS.name]) if row["is_shown"]]
        epochs = (datetime.fromisoformat(str(row["created_at"])).replace(tzinfo=UTC).timestamp() for row in rows)
        return dict(Counter(int(epoch) // 3600 * 3600 for epoch in epochs))

    def distinct_values(self) -> dict[tuple[str, int], int]:
        """Return the event-time job's distinct values in Graphite, by raw group and hour."""
        query = """SELECT path, json_extract("group", '$[0]') FROM series WHERE measure = 'kinds'"""
        shown = self.carbon.zoom(ARCHIVES[1])
        return {
            (str(group), hour): int(value)
            for path, group in self.state._connection.execute(query)
            for hour, value in shown.get(path, {}).items()
            if value
        }

    def expected_distinct_values(self) -> dict[tuple[str, int], int]:
        """Count the table's distinct values by group and minute; return the largest of each hour."""
        minutes: dict[tuple[str, int], set[int]] = {}
        for row in self.source.rows:
            if row["is_shown"] and row["duration_ms"] is not None:
                epoch = int(datetime.fromisoformat(str(row["created_at"])).replace(tzinfo=UTC).timestamp())
                minutes.setdefault((str(row["action"]), epoch // 60 * 60), set()).add(row["duration_ms"])
        hours: dict[tuple[str, int], int] = {}
        for (group, minute), values in minutes.items():
            key = group, minute // 3600 * 3600
            hours[key] = max(hours.get(key, 0), len(values))
        return hours
