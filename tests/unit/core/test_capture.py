"""The first sentence: where it starts, what it reads, what it records."""

from dataclasses import replace
from typing import Any

import pytest
from builders import NOW, begin, captured, done, horizon, job
from fakes import FakeSource

from shipper.core.capture import capture
from shipper.core.errors import ConfigError, RowRefused, SourceReset
from shipper.core.id_set import words_of
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import ALWAYS, Job, Key, Now, RejectedValue, Rejection, RejectReason, Row, Span, Window
from shipper.core.rows.folding import FAR, fold
from shipper.core.rows.table import CaptureStep, Context, Event
from shipper.core.rows.totals import add
from shipper.core.rows.totals import replace as recounted
from shipper.state.store import State

EARLIER = "2026-09-21 14:12:10"
CREATED = "2026-09-21 14:14:10"  # ten seconds into the minute NOW


@pytest.fixture
def source() -> FakeSource:
    """Give a table with ten rows of one minute."""
    source = FakeSource()
    for number in range(1, 11):
        source.insert(number, CREATED, "login")
    return source


def run(
    wanted: Job, source: FakeSource, state: State, *, upto: int = 10, time: int = NOW + 15, now: int = NOW + 15
) -> list[CaptureStep]:
    """Capture up to a horizon."""
    return [
        one
        for one in capture(wanted, horizon(upto, time=time), source=source, ledger=state, now=now)
        if isinstance(one, CaptureStep)
    ]


def totals(state: State) -> dict[Key, int]:
    """Read all totals."""
    query = "SELECT path, slot, step, value FROM total JOIN series ON series.id = total.series"
    return {Key(path, slot, step): value for path, slot, step, value in state._connection.execute(query)}


@pytest.mark.parametrize(
    ("start", "minutes"),
    [
        ("beginning", {NOW - 120: 4, NOW: 10}),
        ("now", {NOW: 10}),
        (6, {NOW: 10}),
        (3, {NOW - 120: 4, NOW: 10}),
        (10, {NOW: 10}),
    ],
)
def test_start(state: State, start: str | int, minutes: dict[int, int]) -> None:
    """A new job begins at the horizon, at the beginning, or behind an id; its first slot is whole.

    Mutants: now means 0; leave the first slot as it is found; count it again with each capture.
    """
    source = FakeSource()
    for number in range(1, 15):
        source.insert(number, EARLIER if number <= 4 else CREATED, "login")
    run(job(start=start, chunk=3), source, state, upto=14)

    found = state.progress("events")
    assert found is not None
    assert (found.captured, found.recount_from) == (14, None)
    assert totals(state) == {Key("events.login.count", slot, 60): rows for slot, rows in minutes.items()}


def test_first_slot_survives_a_crash(source: FakeSource, state: State) -> None:
    """A first slot that was not counted whole before a crash is counted after it. Mutant: only when the job begins."""
    steps = capture(job(start="now"), horizon(10, time=NOW + 15), source=source, ledger=state, now=NOW + 15)
    assert next(steps) == Event("job.started", {"start": "now", "captured": 10}, "info")
    assert next(steps) is None
    steps.close()
    assert totals(state) == {}
    run(job(start="now"), source, state)

    assert totals(state) == {Key("events.login.count", NOW, 60): 10}


def test_start_only_once(source: FakeSource, state: State) -> None:
    """A job that has begun goes on from captured, whatever start says."""
    run(job(start=8), source, state, upto=8)
    run(job(start="beginning"), source, state)

    assert totals(state) == {Key("events.login.count", NOW, 60): 10}


@pytest.mark.parametrize("begins", [8, "now"])
def test_rows_of_before_the_job(source: FakeSource, state: State, begins: str | int) -> None:
    """Rows for slots before the one that a job begins with are too late: each would be all that its slot has.

    Mutants: add them; begin with the slot of the oldest row that is read.
    """
    run(job(start=begins), source, state, upto=8, time=NOW + 120)
    source.insert(11, "2026-09-21 14:13:59", "login")
    source.insert(12, "2026-09-21 14:16:00", "login")
    run(job(start=begins), source, state, upto=12, time=NOW + 120)

    if begins == "now":
        assert totals(state) == {Key("events.login.count", NOW + 120, 60): 1}
        assert rejected(state) == {"too_late": 3}
    else:
        assert totals(state) == {
            Key("events.login.count", slot, 60): rows for slot, rows in ((NOW, 10), (NOW + 120, 1))
        }
        assert rejected(state) == {"too_late": 1}


@pytest.mark.parametrize("rows", [0, 1])
def test_bucket_longer_within_the_first(source: FakeSource, state: State, rows: int) -> None:
    """A bucket that gets longer before the first of that length is over is counted whole, as at a start.

    Mutants: begin with the next whole bucket, so that rows until then are too late; only where there was a row.
    """
    now, before, after = NOW + 60, job(start="now"), job(start="now", bucket=1200)
    run(before, source, state, time=now, now=now)
    for number in range(11, 11 + rows):
        source.insert(number, "2026-09-21 14:16:00", "login")
        run(before, source, state, upto=number, time=now + 60)
    run(after, source, state, upto=10 + rows, time=now + 60)
    source.insert(12, "2026-09-21 14:18:00", "login")
    run(after, source, state, upto=12, time=now + 180)

    assert {key: value for key, value in totals(state).items() if value} == {
        Key("events.login.count", NOW - 840, 60): 11 + rows
    }
    assert rejected(state) == {}


def test_start_beyond_the_table(source: FakeSource, state: State) -> None:
    """A start that no row has reached yet is a mistake, told before anything is stored."""
    with pytest.raises(ConfigError, match=r"start = 11 is above the largest id of audit_trail, 10"):
        run(job(start=11), source, state)

    assert captured(state) is None


def test_windows(source: FakeSource, state: State) -> None:
    """Each window is recorded by itself, and adds to the same total."""
    captured = run(job(chunk=4), source, state)

    assert [(Window(0, 4), 4), (Window(4, 8), 4), (Window(8, 10), 2)] == [(one.window, one.rows) for one in captured]
    assert totals(state) == {Key("events.login.count", NOW, 60): 10}


def test_hole_in_the_ids(state: State) -> None:
    """A jump of the ids is skipped in one query, not walked through; what lies behind it is counted.

    Mutant: measure all windows in ids.
    """
    source = FakeSource()
    for number in (1, 10**12, 10**12 + 1):
        source.insert(number, CREATED, "login")
    captured = run(job(chunk=10), source, state, upto=10**12 + 1)

    assert [Window(0, 10), Window(10, 10**12 + 1)] == [one.window for one in captured]
    assert totals(state) == {Key("events.login.count", NOW, 60): 3}


def test_nothing_up_to_the_horizon(state: State) -> None:
    """Where all rows up to the horizon are gone, it is reached in one window more."""
    captured = run(job(chunk=10), FakeSource(), state, upto=10**12)

    assert [Window(0, 10), Window(10, 10**12)] == [one.window for one in captured]


def test_stopped_between_windows(source: FakeSource, state: State) -> None:
    """Whoever iterates may stop; the next capture goes on where it ended, and is complete only at the horizon."""
    steps = capture(job(chunk=4), horizon(10, time=NOW), source=source, ledger=state, now=NOW)
    assert next(steps) == Event("job.started", {"start": "beginning", "captured": 0}, "info")
    next(steps)
    steps.close()
    position = state.offsets("events")
    assert position is not None
    assert (position.captured, position.complete_until) == (4, None)
    run(job(chunk=4), source, state)
    position = state.offsets("events")

    assert position is not None
    assert (position.captured, position.complete_until) == (10, "2026-09-21T14:14:15Z")
    assert totals(state) == {Key("events.login.count", NOW, 60): 10}


def test_complete_without_news(source: FakeSource, state: State) -> None:
    """A table that stands still is complete until the newest observation all the same."""
    run(job(), source, state)
    run(job(), source, state, time=NOW + 600)
    position = state.offsets("events")

    assert position is not None
    assert position.complete_until == "2026-09-21T14:24:00Z"


def test_captured_at_once(source: FakeSource, state: State) -> None:
    """A row is counted with the first look after its commit, whatever is in flight beside it. Mutant: wait for that."""
    source.begin(11, CREATED, "login")
    source.insert(12, CREATED, "login")
    (step,) = run(job(), source, state, upto=12)
    assert (step.window, step.rows) == (Window(0, 12), 11)
    source.commit()
    (late,) = run(job(), source, state, upto=12)
    assert (late.window, late.rows) == (None, 1)
    assert run(job(), source, state, upto=12) == []

    assert totals(state) == {Key("events.login.count", NOW, 60): 12}
    assert state.late_rows("events") == 1


def test_table_replaced_behind_a_reading(source: FakeSource, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is replaced once it was read ahead is not counted. Mutant: check it before the reading."""
    source.rows.pop(4)
    run(job(), source, state)
    before, read = totals(state), source.read_at_once
    source.insert(12, CREATED, "login")

    def replace_behind(*asked: Any) -> Any:
        answer = read(*asked)
        source.rows = [row | {"created_at": "2020-01-01 00:00:00"} for row in source.rows]
        return answer

    monkeypatch.setattr(source, "read_at_once", replace_behind)
    with pytest.raises(SourceReset):
        run(job(), source, state, upto=12)

    assert totals(state) == before
    assert captured(state) == 10


def test_late_row_is_kept_with_its_total(source: FakeSource, state: State) -> None:
    """What is counted of late rows and that it is, become durable at once, before windows above. Mutant: afterwards."""
    source.rows.pop(4)
    run(job(), source, state)
    for number in (5, 11, 12):
        source.insert(number, CREATED, "login")
    steps = capture(job(chunk=1), horizon(12, time=NOW + 15), source=source, ledger=state, now=NOW + 15)
    next(steps)
    steps.close()
    state.forget_cached()

    assert totals(state) == {Key("events.login.count", NOW, 60): 10}
    assert captured(state) == 10
    assert not state.position("events").counted.missing(words_of([5]))
    run(job(chunk=1), source, state, upto=12)
    assert totals(state) == {Key("events.login.count", NOW, 60): 12}


def test_note_once_a_minute(source: FakeSource, state: State) -> None:
    """Looks that find nothing are remembered, and recorded once a minute. Mutants: each; none."""
    source.rows.pop(4)
    recorded = []
    for passed in range(0, 200, 20):
        before = state.revision
        run(job(), source, state, time=NOW + 15 + passed)
        recorded.append(state.revision - before)

    assert recorded == [1, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    assert state.position("events").age == 180


def test_gaps_of_a_sum_without_room(state: State) -> None:
    """Late rows whose sum the database cannot hold are read one by one. Mutants: give them up; read them twice."""

    class Narrow(FakeSource):
        def read(self, query, rows, span=ALWAYS):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - as there
            if not isinstance(rows, Window) and len(rows) > 1:
                raise RowRefused("read: out of range")
            return super().read(query, rows, span)

    source = Narrow()
    for number in (1, 5, 9):
        source.insert(number, CREATED, "login")
    run(job(), source, state, upto=9)
    for number in (2, 3, 7):
        source.insert(number, CREATED, "login")
    run(job(), source, state, upto=9)

    assert totals(state) == {Key("events.login.count", NOW, 60): 6}


def test_set_that_grows_too_large(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set beyond its bound gives its oldest gaps up, and says how long rows are waited for then.

    Mutants: say nothing; give up all.
    """
    monkeypatch.setattr("shipper.core.position.MOST_WORDS", 1500)
    source, step = FakeSource(), 2**22
    for number in range(1, 2001):
        source.insert(number * step, CREATED, "login")
    for seconds, upto in ((0, 1100), (50, 2000)):
        run(job(chunk=5000), source, state, upto=upto * step, time=NOW + 15 + seconds)
    seen = horizon(2000 * step, time=NOW + 90)
    steps = list(capture(job(), seen, source=source, ledger=state, now=NOW + 15))

    assert Event("late.shortened", {"late": 75}, "warning") in steps
    assert state.position("events").counted.words == 976
    source.insert(1000 * step + 1, CREATED, "late")
    source.insert(1500 * step + 1, CREATED, "late")
    run(job(), source, state, upto=2000 * step, time=NOW + 95)
    run(job(), source, state, upto=2000 * step, time=NOW + 330)
    assert totals(state)[Key("events.late.count", NOW, 60)] == 1


def test_source_reset(source: FakeSource, state: State) -> None:
    """A table that ends below captured is not read. Mutant: take it for one without news."""
    run(job(), source, state)
    with pytest.raises(SourceReset, match="its largest id fell to 9; id 10 was captured"):
        run(job(), source, state, upto=9)


def test_tick_time(source: FakeSource, state: State) -> None:
    """Without a time column the bucket is that of the observation, by the source's clock; the first one is whole.

    Mutants: by our clock; the bucket in which the job begins.
    """
    for upto, time in ((4, 125), (6, 150), (9, 180), (10, 240)):
        run(job(time=None), source, state, upto=upto, time=NOW + time, now=NOW + 3600)

    path = "events.login.count"
    assert totals(state) == {Key(path, NOW + 180, 60): 9, Key(path, NOW + 240, 60): 1}


def test_unshown(source: FakeSource, state: State) -> None:
    """Rows without a place are counted once, each under its reason, in the result and in the state."""
    source.insert(11, None, "login")
    source.insert(12, "2001-01-01 00:00:00", "login")
    source.insert(13, "2101-01-01 00:00:00", "login")
    (captured,) = run(job(), source, state, upto=13)

    assert captured.rows == 13
    assert captured.tally.rejected == {
        Rejection(RejectReason.NO_TIME): 1,
        Rejection(RejectReason.TOO_OLD): 1,
        Rejection(RejectReason.FUTURE, FAR): 1,
    }
    assert rejected(state) == {"no_time": 1, "too_old": 1, "future": 1}


def test_refused(source: FakeSource, state: State) -> None:
    """A group whose path would be too long for Carbon is counted as refused, once, and harms no other."""
    source.insert(11, CREATED, "x" * 100)
    long = job(template=".".join(["{action}" + "a" * 90] * 6))
    (captured,) = run(long, source, state, upto=11)

    assert captured.rows == 11
    assert captured.tally.rejected == {Rejection(RejectReason.REFUSED, NOW): 1}
    assert rejected(state) == {"refused": 1}
    assert list(totals(state).values()) == [10]


def rejected(state: State) -> dict[str, int]:
    """Read the counters, those above 0."""
    return dict(state._connection.execute("SELECT reason, rows FROM rejected WHERE rows > 0").fetchall())


class TestTooMuch:
    """Good values whose total Carbon could not hold."""

    wanted = job(measures=(COUNT, Measure("ms", Kind.SUM, "duration_ms"), Measure("top", Kind.MAX, "duration_ms")))
    path = "events.login.ms"

    @pytest.fixture
    def source(self) -> FakeSource:
        """Give three rows, of which two are as much as Carbon can hold."""
        source = FakeSource()
        for number, value in enumerate((4, 6, 1), 1):
            source.insert(number, CREATED, "login", duration_ms=value * 10**299)
        return source

    def test_added(self, source: FakeSource, state: State) -> None:
        """A total stays as it is where more would be too much; that is told, all else is counted.

        Mutants: put it all the same, which stops the courier for good; raise.
        """
        steps = run(replace(self.wanted, chunk=1), source, state, upto=3)

        assert [step.tally.rejected_values for step in steps] == [[], [], [RejectedValue(self.path, 1, "1.1e+300")]]
        expected = {"events.login.count": 3, self.path: 10**300, "events.login.top": 6 * 10**299}
        assert {key.path: int(value) for key, value in totals(state).items()} == expected

    def test_all_at_once(self, source: FakeSource, state: State) -> None:
        """A first total that would be too much is none."""
        rows = [Row(NOW, ("login",), 1, (1, 9 * 10**299, 1))] * 2
        folded = fold(rows, Span(0, NOW + 60), self.wanted.kinds)
        begin(state, self.wanted)
        window = Window(0, 2)
        told = add(Context(self.wanted, source, state, Now(NOW)), window, folded, done(state, window))

        assert told.rejected_values == [RejectedValue(self.path, 1, "1.8e+300")]
        assert {key.path: value for key, value in totals(state).items()} == {
            "events.login.count": 2,
            "events.login.top": 1,
        }

    def test_recounted(self, source: FakeSource, state: State) -> None:
        """A recount tells it likewise, and leaves what stands there."""
        run(self.wanted, source, state, upto=1)
        rows = [Row(NOW, ("login",), 3, (3, 11 * 10**299, 1))]
        folded = fold(rows, Span(0, NOW + 60), self.wanted.kinds)
        told = recounted(Context(self.wanted, source, state, Now(NOW)), Span(NOW, NOW + 60), folded, done(state, None))

        assert told.rejected_values == [RejectedValue(self.path, 1, "1.1e+300")]
        assert {key.path: int(value) for key, value in totals(state).items()} == {
            "events.login.count": 3,
            self.path: 4 * 10**299,
            "events.login.top": 1,
        }
