"""What was sent is read back: all of it, or samples beside the replays; what Graphite lacks is told and sent again."""

from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from builders import ARCHIVE
from dispatch import MINUTE, Desk, Graphite
from fakes import FakeCarbon

from shipper.core.delivery.readings import Sampler
from shipper.core.delivery.rounds import Round
from shipper.core.errors import DeliveryFailed
from shipper.core.model import Archive, Changed
from shipper.state.store import State


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """Give an empty state."""
    with State(str(tmp_path / "shipper.db")) as state:
        yield state


def test_read_back(state: State) -> None:
    """What is read back as it was sent is proven without a replay. Mutant: prove what was asked for."""
    desk = Desk(state, batch=3, reads=True)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 2})
    desk.run()
    assert (desk.unproven(), len(desk.graphite.asked)) == (2, 0)
    desk.clock += 5
    desk.carbon.cache["a.y.count"].clear()
    desk.run()

    assert desk.unproven() == 1
    assert len(desk.graphite.asked) == 1


def test_differing_value_goes_again(state: State) -> None:
    """What is not there is sent again a minute later, and read back again. Mutants: call it proven; never again."""
    desk = Desk(state, batch=3, reads=True)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 2})
    desk.run()
    desk.carbon.cache["a.y.count"].clear()
    desk.clock += 5
    assert desk.run() == []
    desk.clock += 60
    assert desk.run() == [[f"a.y.count 2 {MINUTE}"]]
    desk.clock += 5
    desk.run()

    assert desk.unproven() == 0


def test_newer_value_is_not_proven_by_an_older(state: State) -> None:
    """A total that changed since it was sent is not what is read back. Mutant: prove whatever revision it has."""
    desk = Desk(state, batch=3, reads=True)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.run()
    desk.graphite.carbon = FakeCarbon()
    desk.graphite.carbon.cache = {"a.x.count": {MINUTE: 2.0}}
    desk.carbon.is_up = False
    desk.clock += 5
    desk.record("a", 5, 6, {("x", MINUTE): 1})
    with pytest.raises(DeliveryFailed):
        desk.run()

    assert desk.unproven() == 1


def test_unproven_is_told(state: State) -> None:
    """After five tries in vain what cannot be read back is told, once, and tried again hourly."""
    desk = Desk(state, batch=3, reads=True)
    desk.graphite.carbon = FakeCarbon()
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    told: list[str] = []
    sent_at: list[float] = []
    for _ in range(3 * 3600):
        while delivered := desk.step():
            told += [one.path for one in delivered.unproven]
            sent_at += [desk.clock - 1000] * sum(delivered.datapoints.values())
        desk.clock += 1

    assert told == ["a.x.count"]
    assert sent_at == [0, 65, 130, 195, 260, 3865, 7470]
    assert (desk.unproven(), desk.courier.is_alarmed) == (1, True)
    desk.graphite.carbon = desk.carbon
    for _ in range(3700):
        desk.run()
        desk.clock += 1
    assert (desk.unproven(), desk.courier.is_alarmed) == (0, False)


def test_progress_is_no_vain_try(state: State) -> None:
    """As long as more can be read back each time, nothing is told. Mutant: count every try."""
    desk = Desk(state, batch=3, reads=True)
    desk.graphite.carbon = FakeCarbon()
    desk.record("a", 0, 5, {(f"s{n}", MINUTE): 1 for n in range(12)})
    told: list[str] = []
    for _ in range(15 * 60):
        while delivered := desk.step():
            told += [one.path for one in delivered.unproven]
            if delivered.datapoints:  # Carbon makes one more series each minute
                made = len(desk.graphite.carbon.cache)
                desk.graphite.carbon.cache[f"a.s{made}.count"] = {MINUTE: 1.0}
        desk.clock += 1

    assert (told, desk.unproven()) == ([], 0)


def test_graphite_does_not_answer(state: State) -> None:
    """While nobody answers nothing is proven, deliveries go on, and it is asked once a minute."""
    desk = Desk(state, batch=3, reads=True)
    desk.graphite.failures = 3
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    failed_at = []
    for _ in range(300):
        while delivered := desk.step():
            failed_at += [desk.clock - 1000] if delivered.failure else []
        desk.clock += 1

    assert failed_at == [5, 65, 125]
    assert (desk.unproven(), len(desk.graphite.asked)) == (0, 4)


def test_witness_dies_before_it_is_read(state: State) -> None:
    """What was confirmed by a Carbon that has died is sent again before it is read. Mutant: read all the same."""
    desk = Desk(state, batch=3, reads=True)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.run()
    desk.restart_carbon()

    assert desk.run() == [[f"a.x.count 1 {MINUTE}"]] * 2  # the batch that failed may still arrive between


@pytest.mark.parametrize("unproven", [0, 1901])
def test_all_of_a_large_slot_is_read(state: State, unproven: int) -> None:
    """A slot of more series than one request may ask for is read page by page. Mutants: the first page only; twice."""
    desk = Desk(state, batch=2000, reads=True)
    desk.carbon.is_full = unproven > 0
    desk.record("a", 0, 5, {(f"s{n}", MINUTE): n for n in range(1, 1902)})
    desk.run()
    desk.clock += 5
    desk.run()

    assert [len(paths) for paths, _ in desk.graphite.asked] == [900, 900, 101]
    assert len({path for paths, _ in desk.graphite.asked for path in paths}) == 1901
    assert desk.unproven() == unproven


def test_nobody_answers_for_many_rounds(state: State) -> None:
    """While nobody answers one round in a minute asks, for all of them. Mutant: each asks, and waits."""
    desk = Desk(state, reads=True)
    for n in range(5):
        desk.record("a", n, n + 1, {("x", MINUTE - 60 * n): 1})
        desk.run()
        desk.clock += 6
    assert len(desk.graphite.asked) == 4
    desk.graphite.failures = 3
    desk.carbon.cache.clear()
    desk.clock += 60
    live(desk, 600)

    assert desk.graphite.failures == 0
    assert desk.unproven() == 0


class WorkerStats:
    """What came in some time."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        """When each line went, as seconds since the desk's beginning."""
        self.read: list[float] = []
        self.failed: list[float] = []
        self.told: list[tuple[float, list[str]]] = []


def live(desk: Desk, seconds: int, *, now: int = MINUTE) -> WorkerStats:
    """Let a desk work for some time, a step a second or more."""
    lived = WorkerStats()
    for _ in range(seconds):
        while delivered := desk.step(now=now):
            at = desk.clock - 1000
            lived.sent += [at] * sum(delivered.datapoints.values())
            lived.read += [at] * delivered.is_reading
            lived.failed += [at] * (delivered.failure is not None)
            lived.told += [(at, [one.path for one in delivered.unproven])] if delivered.unproven else []
        delay = desk.courier.delay(desk.clock)
        assert delay is None or delay > 0  # else the courier's thread would never rest
        desk.clock += 1
    return lived


def make_series(state: State) -> None:
    """Have all series made, as if a total of each had been proven."""
    state._connection.execute("UPDATE series SET is_made = 1")


def sampling(state: State, **options: object) -> Desk:
    """Give a desk that samples, and whose series a.x and a.y are made."""
    desk = Desk(state, samples=True, **options)  # type: ignore[arg-type] # those of Desk
    desk.record("a", 0, 2, {("x", MINUTE - 600): 1, ("y", MINUTE - 600): 2})
    desk.run()
    make_series(state)
    desk.courier._proofs.schedule.clear()
    state.outbox.prove(after=0, upto=10**9)
    desk.clock += 5
    desk.run()
    assert desk.graphite.asked == []  # there is nothing left that could be read
    desk.clock = 1000.0
    desk.courier._sampler._next = 0.0  # type: ignore[union-attr] # it samples
    return desk


def test_sample_is_equal(state: State) -> None:
    """Five seconds after a round was confirmed a sample is read once; replays prove it as ever. Mutant: no sample."""
    desk = sampling(state)
    desk.record("a", 2, 5, {("x", MINUTE): 3})
    lived = live(desk, 3700)

    assert (lived.sent, lived.told) == ([0, 60, 600, 3600], [])
    assert lived.read == [5, 65, 605]  # also of a replay, but of the last, which has proven it
    assert desk.graphite.asked[0] == (["a.x.count"], MINUTE)
    assert (desk.unproven(), desk.courier.is_alarmed) == (0, False)


def test_sample_is_not_of_values_before_they_are_due(state: State) -> None:
    """It is read five seconds after the confirmation, and no sooner."""
    desk = sampling(state)
    desk.record("a", 2, 5, {("x", MINUTE): 3})
    desk.run()
    desk.clock += 4.99
    desk.run()
    assert desk.graphite.asked == []
    assert desk.courier.delay(desk.clock) == pytest.approx(0.01)
    desk.clock += 0.01
    desk.run()

    assert len(desk.graphite.asked) == 1


def test_receiver_stores_nothing(state: State) -> None:
    """What is confirmed and not stored is sent again after 15 seconds, and told after a minute; no replay proves it.

    Mutants: tell at once; never; let replays prove meanwhile; do not send it again.
    """
    desk = sampling(state, replay=(10, 20, 30))
    desk.record("a", 2, 5, {("x", MINUTE): 3, ("y", MINUTE): 4})
    desk.carbon.is_full = True
    lived = live(desk, 61)

    assert lived.read[:3] == [5, 15, 60]
    assert lived.sent == [0, 0, 15, 15]
    assert lived.told == [(60, ["a.x.count", "a.y.count"])]
    assert (desk.unproven(), desk.courier.is_alarmed) == (2, True)
    again = live(desk, 4000)
    assert again.sent[::2] == [120, 185, 250, 3855]  # each minute, then hourly
    assert again.told == [(255, ["a.x.count", "a.y.count"])]


def test_all_arrives_once_it_is_stored_again(state: State) -> None:
    """However long nothing is stored, what is confirmed in that time is all there in the end, and proven.

    Mutants: let replays prove what no sample was taken of; end the alarm with the first value that is there.
    """
    desk = sampling(state)
    desk.carbon.is_full = True
    recorded = 3
    for minute in range(120):
        desk.record("a", 2 + minute, 3 + minute, {("x" if minute % 2 else "y", MINUTE - 60 * minute): minute + 1})
        recorded += minute + 1
        live(desk, 60)
    assert desk.unproven() == 120
    assert desk.courier.is_alarmed
    assert desk.courier.schedule() == []  # the next process sends all of it again
    desk.carbon.is_full = False
    live(desk, 2 * 3600)

    assert sum(sum(slots.values()) for slots in desk.carbon.sums().values()) == recorded
    assert (desk.unproven(), desk.courier.is_alarmed) == (0, False)


def test_replays_go_on_after_an_alarm(state: State) -> None:
    """Once all is there that was lacking, rounds are sampled and replayed again. Mutant: read all for ever."""
    desk = sampling(state)
    desk.carbon.is_full = True
    desk.record("a", 2, 5, {("x", MINUTE): 3})
    live(desk, 70)
    desk.carbon.is_full = False
    live(desk, 200)
    assert (desk.unproven(), desk.courier.is_alarmed) == (0, False)
    desk.clock = 1000.0
    desk.courier._sampler._next = 0.0  # type: ignore[union-attr] # it samples
    desk.record("a", 5, 6, {("y", MINUTE): 3})

    assert live(desk, 3700).sent == [0, 60, 600, 3600]


def test_one_series_is_lost(state: State) -> None:
    """What is lacking alone is sent again and told; all else is proven by reading. Mutant: prove none of it."""
    desk = sampling(state)
    desk.record("a", 2, 5, {("x", MINUTE): 3, ("y", MINUTE): 4})
    desk.meanwhile = lambda: desk.carbon.cache.pop("a.y.count", None)
    lived = live(desk, 300)

    assert lived.told[:1] == [(60, ["a.y.count"])]
    assert desk.unproven() == 1
    desk.meanwhile = lambda: None
    live(desk, 3700)
    assert (desk.unproven(), desk.courier.is_alarmed) == (0, False)


def test_lost_once_is_no_alarm(state: State) -> None:
    """A value that its second delivery brings is proven by replays, and nobody is told. Mutant: tell at the second."""
    desk = sampling(state)
    desk.record("a", 2, 5, {("x", MINUTE): 3})
    desk.run()
    desk.carbon.cache.clear()
    lived = live(desk, 3800)

    assert (lived.sent, lived.told) == ([15, 75, 615, 3615], [])
    assert desk.unproven() == 0


@pytest.mark.parametrize(("seconds", "samples"), [(9, 1), (10, 2)])
def test_samples_are_rare(state: State, seconds: int, samples: int) -> None:
    """Between two samples are ten seconds. Mutant: a sample of each round."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE): 1})
    live(desk, seconds)
    desk.record("a", 3, 4, {("x", MINUTE - 60): 1})
    live(desk, 20)

    assert len(desk.graphite.asked) == samples


@pytest.mark.parametrize(("series", "told"), [(1, 360), (50, 360), (51, 420)])
def test_new_series_may_take_time(state: State, series: int, told: int) -> None:
    """Series that were never proven are told after the minutes in which Carbon makes all of them, and five.

    Mutants: as soon as others; never.
    """
    desk = Desk(state, samples=True)
    desk.carbon.is_full = True
    desk.record("a", 0, 9, {(f"s{n}", MINUTE): 1 for n in range(series)})
    lived = live(desk, 600)

    assert [at for at, _ in lived.told][:1] == [told]
    assert lived.read[:4] == [5, 15, 60, 120]
    assert 75 in lived.sent  # replays go on: Carbon needs them to make the series


def test_new_series_are_not_chosen(state: State) -> None:
    """A sample is of series that are made, as long as a slot has one. Mutant: of any."""
    desk = sampling(state)
    desk.record("a", 2, 9, {("x", MINUTE): 1} | {(f"new{n}", MINUTE): 1 for n in range(30)})
    live(desk, 6)

    assert desk.graphite.asked == [(["a.x.count"], MINUTE)]


def test_changed_value_is_compared_as_it_was_sent_last(state: State) -> None:
    """A total that changed since the sample was taken is no difference. Mutants: as it was then; leave it out."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE): 1})
    desk.run()
    desk.clock += 4
    desk.record("a", 3, 4, {("x", MINUTE): 1})
    desk.run()
    desk.clock += 1
    desk.run()

    assert desk.graphite.asked == [(["a.x.count"], MINUTE)]
    assert desk.courier.delay(desk.clock) == 59  # its first replay


def test_changed_value_is_not_delivered_yet(state: State) -> None:
    """A total that has changed, and waits for Carbon, is not what Graphite holds. Mutant: as it is in the state."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE): 1, ("y", MINUTE): 1})
    desk.run()
    desk.clock += 5
    desk.record("a", 3, 4, {("x", MINUTE): 1})
    found = desk.courier.step(now=MINUTE, clock=desk.clock, opens_round=False)

    assert found is not None
    assert found.is_reading
    assert desk.graphite.asked == [(["a.y.count"], MINUTE)]
    assert desk.courier.delay(desk.clock) == 55


TWO = (Archive(60, 86400), Archive(3600, 30 * 86400))
HOUR = MINUTE - MINUTE % 3600


@pytest.mark.parametrize(
    ("slot", "now", "asks"),
    [
        (MINUTE, MINUTE, 1),
        (MINUTE + 60, MINUTE + 59, 0),  # Graphite shows it when its time has come
        (HOUR + 60, HOUR + 86400 - 600 - 1, 1),
        (HOUR + 60, HOUR + 86400 - 600, 0),  # its hour leaves the finest archive now
    ],
)
def test_slots_that_cannot_be_read(state: State, slot: int, now: int, asks: int) -> None:
    """A slot of the future, or one about to leave the finest archive, is no sample. Mutants: either is."""
    desk = Desk(state, samples=True, archives=TWO)
    desk.record("a", 0, 3, {("x", slot): 1}, now=slot)
    desk.step(now=slot)
    assert len(desk.batches) == 1
    desk.clock += 5
    desk.step(now=now)

    assert len(desk.graphite.asked) == asks


def test_coarse_slots_are_no_sample(state: State) -> None:
    """A coarse slot reads too low while Carbon writes a newer point below it. Mutants: sample it; lose a turn."""
    desk = Desk(state, samples=True, archives=TWO)
    for n in range(3):
        desk.record("a", n, n + 1, {("x", HOUR - 5 * 86400 + 60): 1})
        desk.record("b", n, n + 1, {("x", MINUTE): 1})
        assert len(live(desk, 10).sent) == 2

    assert desk.graphite.asked == [(["b.x.count"], MINUTE)] * 3


def test_newest_slot_of_a_job(state: State) -> None:
    """Of a round of many slots the newest is a sample. Mutant: the oldest."""
    desk = sampling(state)
    desk.record("a", 2, 9, {("x", MINUTE - 60 * n): 1 for n in range(9)})
    live(desk, 6)

    assert desk.graphite.asked == [(["a.x.count"], MINUTE)]


def test_jobs_take_turns(state: State) -> None:
    """Jobs with buckets of other lengths have their newest slots sampled in turn. Mutant: the round's newest slot."""
    desk = sampling(state)
    for n in range(4):
        desk.record("a", 2 + n, 3 + n, {("x", MINUTE): 1})
        desk.record("b", n, n + 1, {("z", MINUTE - 1800): 1})
        live(desk, 10)

    assert [slot for _, slot in desk.graphite.asked[-4:]] == [MINUTE, MINUTE - 1800] * 2


class Slot:
    """An outbox of one slot."""

    def __init__(self, series: int) -> None:
        self._totals = [Changed(n, "a", f"a.s{n}.count", 1, is_made=True) for n in range(1, series + 1)]

    def changed(self, slot: int, step: int, *, after: int, upto: int, beyond: int, limit: int) -> list[Changed]:
        """Return its totals."""
        return [total for total in self._totals if total.series > beyond][:limit]


@pytest.mark.parametrize("series", [1, 20, 21, 60, 900, 1900])
def test_series_take_turns(series: int) -> None:
    """At most 20 values are read, others each time, until each had its turn. Mutants: the first 20; the first 900."""
    carbon = FakeCarbon()
    carbon.cache = {f"a.s{n}.count": {MINUTE: 1.0} for n in range(1, series + 1)}
    graphite = Graphite(carbon)
    sampler = Sampler(Slot(series), graphite, (ARCHIVE,))  # type: ignore[arg-type] # it is asked for totals only
    for n in range(400):
        sampler.take(Round(0, 9, deque(), slots=[MINUTE]), 10.0 * n, new_series=0)
        sampler.read(upto=9, now=MINUTE, clock=10.0 * n + 5)
    seen = {path for paths, _ in graphite.asked for path in paths}

    assert max(len(paths) for paths, _ in graphite.asked) <= 20
    assert (len(graphite.asked), len(seen)) == (400, series)


def test_failing_graphite_costs_deliveries_nothing(state: State) -> None:
    """A Graphite that does not answer is asked less and less often, and what it was asked for is proven by replays.

    Mutants: ask again with the next round; hold replays for ever.
    """
    desk = sampling(state)
    desk.graphite.failures = 7
    lived = WorkerStats()
    for n in range(400):
        desk.record("a", 2 + n, 3 + n, {("x", MINUTE - 60 * n): 1})
        found = live(desk, 10)
        lived.failed += found.failed
        assert desk.watermark("a") == 3 + n
        assert found.sent[0] == 10 * n

    assert lived.failed == [5, 75, 205, 455, 945, 1555, 2165]
    assert desk.graphite.failures == 0


def test_graphite_fails_while_something_differs(state: State) -> None:
    """What differed at the first look is proven by replays where nobody answers the second. Mutant: hold it."""
    desk = sampling(state, replay=(10, 20))
    desk.record("a", 2, 3, {("x", MINUTE): 1})
    desk.run()
    desk.carbon.cache.clear()
    desk.clock += 5
    desk.run()
    desk.graphite.failures = 1
    live(desk, 30)

    assert desk.unproven() == 0


def test_sample_of_a_carbon_that_has_died(state: State) -> None:
    """What is sent again because Carbon has died is no difference. Mutant: read it all the same."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE): 1})
    desk.run()
    desk.clock += 5
    desk.restart_carbon()
    found = desk.step()

    assert found is not None
    assert (found.datapoints, desk.graphite.asked) == ({"a": 1}, [])


def test_no_sample_by_an_untrusted_clock(state: State) -> None:
    """Which archive answers is not known while the clocks are not trusted. Mutant: read all the same."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE): 1})
    desk.run()
    desk.clock += 5

    assert desk.step(is_trusted=False) is None
    assert desk.graphite.asked == []
    assert (desk.courier.delay(desk.clock) or 0) > 1


def test_differing_value_has_changed(state: State) -> None:
    """What differed and has changed since, to be delivered soon, is no difference. Mutant: take a neighbour."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE): 1, ("y", MINUTE): 1})
    desk.run()
    desk.carbon.cache["a.x.count"].clear()
    desk.clock += 5
    desk.run()
    assert desk.courier._proofs.is_held
    desk.clock += 10
    desk.record("a", 3, 4, {("x", MINUTE): 1})
    desk.courier.step(now=MINUTE, clock=desk.clock, opens_round=False)

    assert len(desk.graphite.asked) == 1
    assert not desk.courier._proofs.is_held


def test_failures_in_a_row(state: State) -> None:
    """The pause after a failure is short again once Graphite has answered. Mutant: count all failures."""
    desk = sampling(state)
    failed = []
    for n in range(100):
        desk.graphite.failures = 1 if len(desk.graphite.asked) % 2 == 0 else 0  # each second time
        desk.record("a", 2 + n, 3 + n, {("x", MINUTE - 60 * n): 1})
        failed += live(desk, 10).failed

    assert {after - before for before, after in pairwise(failed)} == {80}  # a minute, a sample, ten seconds


def test_only_the_round_of_a_sample_is_sent_again(state: State) -> None:
    """What differs at the second look is sent again with its round, and no other round is. Mutants: all; neighbours."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE - 60): 1})
    live(desk, 16)
    desk.record("a", 3, 4, {("x", MINUTE): 1})
    desk.run()
    desk.carbon.cache.clear()
    live(desk, 6)
    desk.record("a", 4, 5, {("x", MINUTE - 120): 1})
    live(desk, 9)
    desk.batches.clear()
    live(desk, 2)

    assert desk.batches == [[f"a.x.count 1 {MINUTE}"]]


def test_alarm_ends_when_all_was_read(state: State) -> None:
    """Values that are there end no alarm as long as others were not read. Mutant: the first one does."""
    desk = sampling(state)
    for n in range(3):  # in the midst the one that is lost
        desk.record("a", 2 + n, 3 + n, {("x" if n == 1 else "y", MINUTE - 60 * n): 1})
        desk.meanwhile = lambda: desk.carbon.cache.pop("a.x.count", None)
        live(desk, 16)
    seen = [desk.courier.is_alarmed]
    for _ in range(60):
        while desk.step():
            seen.append(desk.courier.is_alarmed)
        desk.clock += 1

    assert seen == sorted(seen)  # first not, then always
    assert seen[-1]


def test_alarm_goes_on_for_what_came_later(state: State) -> None:
    """A later round that is there in part holds the alarm, too; one that was not read yet is replayed after its end.

    Mutants: end the alarm with the first round that is there; read what was delivered in an alarm after its end.
    """
    desk = sampling(state)
    desk.carbon.is_full = True
    desk.record("a", 2, 3, {("x", MINUTE): 1})
    live(desk, 70)
    desk.carbon.is_full = False
    desk.record("a", 3, 4, {("x", MINUTE - 60): 1, ("y", MINUTE - 60): 1})
    desk.meanwhile = lambda: desk.carbon.cache["a.y.count"].clear() if desk.clock < 1080 else None
    live(desk, 57)
    assert desk.carbon.sums()["a.x.count"][MINUTE] == 1
    assert (desk.unproven(), desk.courier.is_alarmed) == (1, True)
    live(desk, 10)
    desk.record("a", 4, 5, {("x", MINUTE - 120): 1})
    desk.run()
    assert desk.courier.is_alarmed
    lived = live(desk, 70)

    assert (desk.unproven(), desk.courier.is_alarmed) == (1, False)
    assert lived.sent[-1] == pytest.approx(137 + 60, abs=1)  # the first replay
