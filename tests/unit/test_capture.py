"""The first sentence: where it starts, what it reads, what it records."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import NOW, captured, horizon, job, progress
from fakes import FakeSource

from shipper.capture import capture
from shipper.errors import ConfigError, SourceReset
from shipper.fold import fold
from shipper.ledger import Done
from shipper.model import COUNT, Cause, Job, Key, Kind, Measure, Moment, Reason, Refusal, Row, Span, Window
from shipper.record import add
from shipper.record import replace as recounted
from shipper.scan import Captured, Noticed
from shipper.state import State

EARLIER = "2026-09-21 14:12:10"
CREATED = "2026-09-21 14:14:10"  # ten seconds into the minute NOW


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """Give an empty state."""
    with State(str(tmp_path / "shipper.db")) as state:
        yield state


@pytest.fixture
def source() -> FakeSource:
    """Give a table with ten rows of one minute."""
    source = FakeSource()
    for number in range(1, 11):
        source.insert(number, CREATED, "login")
    return source


def run(
    wanted: Job, source: FakeSource, state: State, *, upto: int = 10, time: int = NOW + 15, now: int = NOW + 15
) -> list[Captured]:
    """Capture up to a horizon."""
    return [
        one
        for one in capture(wanted, horizon(upto, time=time), source=source, ledger=state, now=now)
        if isinstance(one, Captured)
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
    """A new job begins at the settled horizon, at the beginning, or behind an id; its first slot is whole.

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
    assert next(steps) == Noticed("job.begun", {"start": "now", "captured": 10})
    assert next(steps) is None
    steps.close()
    assert totals(state) == {}
    run(job(start="now"), source, state)

    assert totals(state) == {Key("events.login.count", NOW, 60): 10}


def test_start_only_once(source: FakeSource, state: State) -> None:
    """A job that has begun goes on from captured, whatever start says."""
    run(job(start="now"), source, state, upto=8, time=NOW + 120)
    run(job(start="beginning"), source, state, time=NOW + 120)

    assert totals(state) == {Key("events.login.count", NOW, 60): 2}


def test_start_beyond_the_table(source: FakeSource, state: State) -> None:
    """A start that no row has reached yet is a mistake, told before anything is stored."""
    with pytest.raises(ConfigError, match=r"start = 11 is beyond the largest id of audit_trail, 10"):
        run(job(start=11), source, state)

    assert captured(state) is None


def test_windows(source: FakeSource, state: State) -> None:
    """Each window is recorded by itself, and adds to the same total."""
    captured = run(job(chunk=4), source, state)

    assert [(Window(0, 4), 4), (Window(4, 8), 4), (Window(8, 10), 2)] == [(one.window, one.rows) for one in captured]
    assert totals(state) == {Key("events.login.count", NOW, 60): 10}


def test_hole_in_the_ids(state: State) -> None:
    """A jump of the ids is skipped in one query, not walked through; what lies behind it is counted.

    Mutant: never ask where the table goes on.
    """
    source = FakeSource()
    for number in (1, 10**12, 10**12 + 1):
        source.insert(number, CREATED, "login")
    captured = run(job(chunk=10), source, state, upto=10**12 + 1)

    assert [Window(0, 10), Window(10, 20), Window(20, 10**12 + 1)] == [one.window for one in captured]
    assert totals(state) == {Key("events.login.count", NOW, 60): 3}


def test_nothing_up_to_the_horizon(state: State) -> None:
    """Where all rows up to the horizon are gone, it is reached in one window more."""
    captured = run(job(chunk=10), FakeSource(), state, upto=10**12)

    assert [Window(0, 10), Window(10, 10**12)] == [one.window for one in captured]


def test_stopped_between_windows(source: FakeSource, state: State) -> None:
    """Whoever iterates may stop; the next capture goes on where it ended, and is complete only at the horizon."""
    steps = capture(job(chunk=4), horizon(10, time=NOW), source=source, ledger=state, now=NOW)
    assert next(steps) == Noticed("job.begun", {"start": "beginning", "captured": 0})
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


def test_source_reset(source: FakeSource, state: State) -> None:
    """A table that ends below captured is not read. Mutant: take it for one without news."""
    run(job(), source, state)
    with pytest.raises(SourceReset, match="its largest id is 9, but 10 was captured"):
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
    """Rows without a place are counted once, each under its cause, in the result and in the state."""
    source.insert(11, None, "login")
    source.insert(12, "2001-01-01 00:00:00", "login")
    source.insert(13, "2101-01-01 00:00:00", "login")
    (captured,) = run(job(), source, state, upto=13)

    assert captured.rows == 13
    assert captured.tally.unshown == {Reason(Cause.NO_TIME): 1, Reason(Cause.TOO_OLD): 1, Reason(Cause.FUTURE): 1}
    assert unshown(state) == {"no_time": 1, "too_old": 1, "future": 1}


def test_refused(source: FakeSource, state: State) -> None:
    """A group whose path would be too long for Carbon is counted as refused, once, and harms no other."""
    source.insert(11, CREATED, "x" * 100)
    long = job(template=".".join(["{action}" + "a" * 90] * 6))
    (captured,) = run(long, source, state, upto=11)

    assert captured.rows == 11
    assert captured.tally.unshown == {Reason(Cause.REFUSED): 1}
    assert unshown(state) == {"refused": 1}
    assert list(totals(state).values()) == [10]


def unshown(state: State) -> dict[str, int]:
    """Read the counters."""
    return dict(state._connection.execute("SELECT cause, rows FROM unshown").fetchall())


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

        assert [step.tally.refused for step in steps] == [[], [], [Refusal(self.path, 1, "1.1e+300")]]
        expected = {"events.login.count": 3, self.path: 10**300, "events.login.top": 6 * 10**299}
        assert {key.path: int(value) for key, value in totals(state).items()} == expected

    def test_all_at_once(self, source: FakeSource, state: State) -> None:
        """A first total that would be too much is none."""
        rows = [Row(NOW, ("login",), 1, (1, 9 * 10**299, 1))] * 2
        folded = fold(rows, Span(0, NOW + 60), self.wanted.kinds)
        state.begin(self.wanted, progress(self.wanted))
        moment = Moment(NOW)
        told = add(self.wanted, Window(0, 2), folded, ledger=state, moment=moment, done=Done({}), closes=None)

        assert told.refused == [Refusal(self.path, 1, "1.8e+300")]
        assert {key.path: value for key, value in totals(state).items()} == {
            "events.login.count": 2,
            "events.login.top": 1,
        }

    def test_recounted(self, source: FakeSource, state: State) -> None:
        """A recount tells it likewise, and leaves what stands there."""
        run(self.wanted, source, state, upto=1)
        rows = [Row(NOW, ("login",), 3, (3, 11 * 10**299, 1))]
        folded = fold(rows, Span(0, NOW + 60), self.wanted.kinds)
        told = recounted(
            self.wanted, Span(NOW, NOW + 60), folded, Done({}), window=None, ledger=state, moment=Moment(NOW)
        )

        assert told.refused == [Refusal(self.path, 1, "1.1e+300")]
        assert {key.path: int(value) for key, value in totals(state).items()} == {
            "events.login.count": 3,
            self.path: 4 * 10**299,
            "events.login.top": 1,
        }
