"""Positions: which gaps are asked for when, how ids grow old, what is given up and what never is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import NOW, begin, horizon, job
from hypothesis import given
from hypothesis import strategies as st

from shipper.core import position as module
from shipper.core.errors import StateCorrupt
from shipper.core.id_set import IdSet, all_of, ids_of, words_of
from shipper.core.ledger import RecordUpdate
from shipper.core.model import Window
from shipper.core.position import MARKS, Mark, Position, new_position
from shipper.state.store import State

HOUR = 3600
LATE = 6 * HOUR


class Looks:
    """Looks at a table of which some ids are missing."""

    def __init__(
        self, *, every: int | None = 60, late: int = LATE, largest: int = 10, missing: tuple[int, ...] = (5,)
    ) -> None:
        """The ids up to the largest are seen to be given out by the first look."""
        self.every, self.late = every, late
        self.now = NOW
        self.position = Position(0, IdSet(0, 0))
        self.asked: set[int] = set()
        self.look(largest, missing)

    def look(self, largest: int = 0, missing: tuple[int, ...] = (), *, makes_old: bool = True) -> set[int]:
        """Look; return which gaps are asked for."""
        largest = largest or self.position.captured
        before, seen = self.position, replace(horizon(largest, time=self.now), makes_old=makes_old)
        at = before.at_look(seen, every=self.every, late=self.late)
        asks = at.gaps_due(before, self.late)
        self.position = at.give_up_old_gaps(self.late)
        if largest > self.position.captured:
            after = self.position.captured
            words = words_of(one for one in range(after + 1, largest + 1) if one not in missing)
            self.position = self.position.with_window(Window(after, largest), words)
        self.asked = {one for start, end in asks.ranges for one in range(start + 1, end + 1)} | {*asks.ids}
        return self.asked

    def looks(self, seconds: int, every: int) -> Iterator[int]:
        """Look every so many seconds for so long; yield at how many it is."""
        for passed in range(every, seconds + 1, every):
            self.now += every
            self.look()
            yield passed


@pytest.mark.parametrize("every", [1, 10, 15, 60])
def test_when_gaps_are_asked_for(every: int) -> None:
    """A gap is asked for at each look up to a minute, then at 4, 16, 64 and 256 minutes, and at last when it is late.

    Mutants: at each look; never again; at 4 minutes and all looks after that; not at the look after the first.
    """
    looks = Looks(every=every)
    asked = [passed for passed in looks.looks(LATE + HOUR, every) if looks.asked]

    assert asked == [*range(every, 61, every), 240, 960, 3840, 15360, LATE]
    assert looks.position.counted.floor == 10


@pytest.mark.parametrize("late", [60, 61, 239, 240, 241, 3600])
def test_late_is_asked_for_at_last(late: int) -> None:
    """Whatever `late` comes to, a gap is asked for when it is that old, and the floor rises with that look.

    Mutants: give up what is older than the last distance; a look too early.
    """
    looks = Looks(every=1, late=late)
    floors = {passed: looks.position.counted.floor for passed in looks.looks(late + 5, 1) if looks.asked}

    assert max(floors) == late
    assert [passed for passed, floor in floors.items() if floor] == [late]


@pytest.mark.parametrize("every", [60, 90, 300, 7200, 5 * HOUR])
def test_seldom_looks(every: int) -> None:
    """However seldom looks are, no distance is left out, and the last one is before the floor rises.

    Mutant: ask only for what has come to an age to the second.
    """
    looks = Looks(every=every)
    asked = [passed for passed in looks.looks(LATE + 6 * HOUR, every) if looks.asked]
    due = [240, 960, 3840, 15360, LATE]

    assert {-(-one // every) * every for one in due} <= {*asked}
    assert asked[-1] == -(-LATE // every) * every
    assert looks.position.counted.floor == 10


def test_one_gap_at_two_ages() -> None:
    """Old and young gaps are due at their own times; one that is due twice is asked for once."""
    looks = Looks(every=60)
    for _ in looks.looks(180, 60):
        pass
    looks.now += 60
    looks.look(20, (15,))
    assert looks.asked == {5}  # four minutes old
    looks.now += 30
    assert looks.look() == {15}  # half a minute old
    looks.now += 60
    assert looks.look() == {15}  # that it was at the look before
    looks.now += 60
    assert looks.look() == set()


@pytest.mark.parametrize(("age", "asked"), [(239, {240, 960}), (240, {420, 1140})])
def test_old_late_row_makes_ids_young(age: int, asked: set[int]) -> None:
    """Behind a row that is four minutes late, gaps are a minute old again; those before it keep their age.

    Mutants: at any age; also the gaps before it; for a new minute at each look.
    """
    looks = Looks(every=1, missing=(3, 5, 7))
    for passed in looks.looks(age, 1):
        assert passed
    looks.position = looks.position.renewed(words_of([5])).with_ids(words_of([5]))
    found = {passed + age: set(looks.asked) for passed in looks.looks(1000, 1) if looks.asked}

    assert {passed for passed, gaps in found.items() if 7 in gaps} == asked
    assert {passed for passed, gaps in found.items() if 3 in gaps} == {240, 960} - {age}
    assert looks.position.renewed(words_of([11])) == looks.position


def test_only_what_was_asked_for_is_given_up() -> None:
    """A look that does not ask gives nothing up, and one that asks up to an id no more than that.

    Mutants: raise the floor with the age; up to captured.
    """
    looks = Looks(every=HOUR, missing=tuple(range(2, 10)))
    before = looks.position
    for _ in range(LATE // HOUR):
        looks.now += HOUR
        looks.position = looks.position.at_look(horizon(10, time=looks.now), every=HOUR, late=LATE)

    assert (looks.position.age_of(5), looks.position.counted.floor) == (LATE, 0)
    assert looks.position.gaps_due(before, LATE, most=7).ranges == [(0, 7)]
    assert looks.position.give_up_old_gaps(LATE, most=7).counted.floor == 7
    assert looks.position.give_up_old_gaps(LATE).counted.floor == 10


@pytest.mark.parametrize(
    ("gone", "every", "age"),
    [
        (0, 60, 0),
        (1, 60, 1),
        (60, 60, 60),
        (120, 60, 120),
        (121, 60, 120),
        (86400, 60, 120),
        (-1, 60, 0),
        (-86400, 60, 0),
        (5, 1, 2),
        (600, 300, 600),
        # cron may look once a day: four looks at least
        (86400, None, LATE // 4),
        (HOUR, None, HOUR),
    ],
)
def test_age_of_a_look(gone: int, every: int | None, age: int) -> None:
    """A look adds two ticks at most, neither downtime nor a clock that jumps, and nothing when it goes back.

    Mutants: all that has passed; one tick; a tick whatever has passed.
    """
    looks = Looks(every=every)
    looks.now += gone
    looks.look()

    assert looks.position.age == age
    assert looks.position.looked == NOW + gone


def test_first_look_makes_nothing_old() -> None:
    """Before the first look there was none from which time could count. Mutant: from 0 on."""
    found = Position(10, IdSet(0, 10)).at_look(horizon(10), every=60, late=LATE)

    assert (found.age, found.looked, found.marks) == (0, NOW, (Mark(0, 10),))


def test_lag_makes_nothing_old() -> None:
    """While a replica falls behind no id grows old, and afterwards not by the time that this took.

    Mutants: count it; count it afterwards.
    """
    looks = Looks(every=60)
    for makes_old in (False, False, True, False):
        looks.now += 60
        looks.look(makes_old=makes_old)

    assert looks.position.age == 60


def test_downtime_keeps_gaps() -> None:
    """After a downtime much longer than `late` a gap is as young as before. Mutant: age by the clock."""
    looks = Looks(every=60)
    looks.now += 100 * LATE
    looks.look()
    assert looks.position.counted.floor == 0
    looks.now += 60
    looks.look()

    assert looks.position.age_of(5) == 180
    assert ids_of(looks.position.counted.missing(words_of([5]))) == [5]


def test_mark_of_the_largest_id() -> None:
    """An id's age runs from the look whose largest id reached it, be it read by then or not.

    Mutants: from the look that read it; a mark a look.
    """
    looks = Looks(every=60)
    looks.now += 60
    before = looks.position
    seen = before.at_look(horizon(90, time=looks.now), every=60, late=LATE)
    again = seen.at_look(horizon(90, time=looks.now + 60), every=60, late=LATE)
    back = again.at_look(horizon(80, time=looks.now + 120), every=60, late=LATE)

    assert again.captured == 10
    assert back.marks == (Mark(0, 10), Mark(60, 90))
    assert [back.age_of(one) for one in (10, 11, 90, 91)] == [180, 120, 120, 0]
    assert [back.id_at(age) for age in (0, 120, 121, 180, 181)] == [90, 90, 10, 10, 0]


@given(st.lists(st.tuples(st.integers(1, 600), st.integers(0, 5)), min_size=101, max_size=400), st.integers(0, 300))
def test_marks_are_few_and_never_older(steps: list[tuple[int, int]], floor: int) -> None:
    """So many marks are kept at most, whatever comes; no id counts as older than it is, or half as old.

    Mutants: leave out the younger of two; keep all.
    """
    known = Position(0, IdSet(0, 0)).at_look(horizon(1), every=600, late=10**7)
    exact, now, largest = [Mark(0, 1)], NOW, 1
    for passed, ids in steps:
        now, largest = now + passed, largest + ids
        known = known.at_look(horizon(largest, time=now), every=600, late=10**7)
        exact += [Mark(known.age, largest)] if largest > exact[-1].id else []
        if len(exact) == 150:
            known = replace(known, counted=IdSet(floor, floor))
        full = replace(known, marks=tuple(exact))
        assert len(known.marks) <= MARKS + 1
        for one in (largest, largest // 2, max(floor, 1), max(floor, 1) + 1):
            if one > known.counted.floor:
                real = full.age_of(one)
                # each time that marks are left out it loses an eighth at most
                assert real / 2 - 1200 <= known.age_of(one) <= real


def test_marks_below_the_floor_go() -> None:
    """Of marks at or below the floor one is enough. Mutant: keep them as long as there is room."""
    marks = tuple(Mark(number * 60, number * 10) for number in range(MARKS + 1))
    known = Position(2000, IdSet(800, 800), 0, MARKS * 60, NOW, marks)
    found = known.at_look(horizon(2000, time=NOW + 60), every=60, late=10**6)

    assert found.marks[0].id <= 800 < found.marks[1].id
    assert found.id_at(0) == 2000


@pytest.mark.parametrize(
    ("words", "counted"),
    [
        (None, IdSet(0, 20)),
        (all_of(10, 20), IdSet(0, 20)),
        (words_of([11, 13]), IdSet(0, 10).added(words_of([11, 13]))),
        ({}, IdSet(0, 10)),
    ],
)
def test_behind_a_window(words: dict[int, int] | None, counted: IdSet) -> None:
    """A window without gaps is a number, another its words. Mutants: all of it; nothing of it."""
    found = Position(10, IdSet(0, 10)).with_window(Window(10, 20), words)

    assert (found.captured, found.counted, found.has_gaps) == (20, counted, counted.solid < 20)


def test_gap_that_is_filled() -> None:
    """A set is a number again when its last gap has been filled, or given up. Mutants: never; with one gap left."""
    found = Position(10, IdSet(0, 4).added(all_of(5, 9)))
    assert found.with_ids(words_of([5])).counted == IdSet(0, 4).added(all_of(4, 9))
    assert found.with_ids(words_of([5, 10])).counted == IdSet(0, 10)
    last = replace(found, counted=found.counted.added(words_of([10])), marks=(Mark(0, 6),), age=LATE)

    assert last.give_up_old_gaps(LATE).counted == IdSet(6, 10)
    assert not last.give_up_old_gaps(LATE).has_gaps


def test_settled_ids_are_counted() -> None:
    """Of ids that the floor has passed the number is kept: those that were counted, and those that a look adds with it.

    Mutants: ids for rows; forget those that came with the last question.
    """
    found = Position(10, IdSet(0, 2).added(words_of([4, 6, 9])), marks=(Mark(0, 7),), age=LATE).give_up_old_gaps(LATE)
    assert (found.counted.floor, found.settled) == (7, 4)
    late = found.with_ids(words_of([3, 5, 8]))

    assert (late.settled, ids_of(late.counted.within(0, 10))) == (6, [8, 9])


def test_set_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that grows too large loses its oldest segments, an eighth of it or so, and no more than that.

    Mutants: never; the newest ones; all; just what is too much.
    """
    ids = [number * 1001 for number in range(1, 5001)]
    known = Position(ids[-1], IdSet(0, 0).added(words_of(ids)), marks=(Mark(0, ids[2000]), Mark(50, ids[-1])), age=90)
    assert known.bounded() is known
    monkeypatch.setattr(module, "MOST_WORDS", 3400)  # an eighth less is in the midst of the third segment
    found = known.bounded()

    assert found.counted.words <= 2975 < found.counted.words + 1024
    floor = found.counted.floor
    assert floor // 64 == ids[2047] // 64
    assert ids_of(found.counted.within(0, ids[-1])) == [one for one in ids if one > floor]
    assert found.settled == 2048
    assert found.age_of(floor + 1) == 40
    assert found.bounded() is found


def test_begins() -> None:
    """A job begins with what is there as counted; what is not may still come. Mutants: all; nothing."""
    found = new_position(10, 2, [words_of([3, 4]), words_of([6, 7, 8, 9, 10])])
    assert ids_of(found.counted.missing(all_of(0, 12))) == [5, 11, 12]
    assert new_position(10, 0, [all_of(0, 10)]) == Position(10, IdSet(0, 10))

    assert new_position(10, 10, ()) == Position(10, IdSet(10, 10))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """Give a state with a job at 10."""
    with State(str(tmp_path / "shipper.db")) as state:
        begin(state, job(), 10)
        yield state


def record(state: State, position: Position, window: Window | None = None) -> None:
    """Record a position, with a window or without."""
    with state.recording("events", window) as recording:
        recording.write(RecordUpdate(position))


def test_older_position_is_refused(state: State) -> None:
    """A record that began with an older position is refused, though captured stands where it stood.

    Mutants: look at captured alone; raise the version for windows only.
    """
    before = state.position("events")
    record(state, before.with_ids({}))
    with pytest.raises(StateCorrupt, match="the position has changed meanwhile"):
        record(state, before.with_ids({}))

    assert state.position("events") == replace(before, version=before.version + 1)


def test_position_outlives_the_process(state: State) -> None:
    """What was recorded is there after a restart, segment by segment; what was only noted is not.

    Mutants: write no marks; segments that changed only in part; keep those that went.
    """
    words = words_of([11, 13, *range(200, 300), 10**6, 2**63 + 5, 2**64 - 1])
    marks = (Mark(0, 10), Mark(60, 10**6))
    first = replace(state.position("events"), age=60, looked=NOW, marks=marks)
    record(state, first.with_window(Window(10, 2**64 - 1), words), Window(10, 2**64 - 1))
    recorded = state.position("events")
    state.note_look("events", replace(recorded, age=61))
    assert state.position("events").age == 61
    state.forget_cached()
    assert state.position("events") == recorded
    record(state, recorded.with_ids(words_of([12])))
    state.forget_cached()
    recorded = state.position("events")
    assert ids_of(recorded.counted.missing(words_of([11, 12, 13, 14]))) == [14]
    second = replace(recorded, marks=(*marks, Mark(LATE, 2**64 - 1)), age=LATE + 60).give_up_old_gaps(LATE)
    record(state, second)
    state.forget_cached()

    assert state.position("events") == replace(second, version=recorded.version + 1, settled=0)
    assert [(one.after, one.upto, one.rows) for one in state.settled("events")] == [(0, 10**6, 10 + 104)]


def test_refused_record_changes_nothing(state: State) -> None:
    """What is in memory changes after a commit only. Mutant: as soon as it is written."""
    before = state.position("events")
    with pytest.raises(RuntimeError), state.recording("events", Window(10, 12)) as recording:
        recording.write(RecordUpdate(before.with_window(Window(10, 12), None)))
        raise RuntimeError

    assert state.position("events") == before
    record(state, before.with_window(Window(10, 12), None), Window(10, 12))
    assert state.position("events").captured == 12
