"""Readings of all totals, or of samples beside the replays: values that Graphite lacks are reported and sent again."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import pytest
from builders import ARCHIVE
from dispatch import MINUTE, REPLAY, Desk, Graphite
from fakes import FakeCarbon

from shipper.core.delivery.outbox import Changed
from shipper.core.delivery.proofs import Round
from shipper.core.delivery.readings import Sampler
from shipper.core.errors import DeliveryFailed, StateBusy
from shipper.core.model import Archive
from shipper.state.outbox import StateOutbox
from shipper.state.store import State


def test_read_back(state: State) -> None:
    """A total that is read back as it was sent is proven without a replay. Mutant: prove all that were asked for."""
    desk = Desk(state, batch=3, reads=True)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 2})
    desk.run()
    assert (desk.unproven(), len(desk.graphite.requests)) == (2, 0)
    desk.clock += 5
    desk.carbon.cache["a.y.count"].clear()
    desk.run()

    assert desk.unproven() == 1
    assert len(desk.graphite.requests) == 1


def test_totals_of_a_former_leader(state: State) -> None:
    """They are replayed, although others are read back: it may yet send older ones. Mutant: read them back, too."""
    Desk(state).record("a", 0, 5, {("x", MINUTE): 1})
    desk = Desk(state, reads=True, replayed=state.revision)
    desk.run()
    for seconds in REPLAY:
        assert desk.unproven() == 1
        desk.clock += seconds
        assert desk.run() == [[f"a.x.count 1 {MINUTE}"]]
    assert (desk.unproven(), desk.graphite.requests) == (0, [])

    desk.record("a", 5, 6, {("x", MINUTE): 1})
    desk.run()
    desk.clock += 5
    desk.run()
    assert (desk.unproven(), len(desk.graphite.requests)) == (0, 1)


def test_differing_value_is_sent_again(state: State) -> None:
    """A missing value is sent again a minute later, and read back again. Mutants: call it proven; never again."""
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
    """A reading does not prove a total that changed after it was sent. Mutant: prove whatever revision it has."""
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


def test_unproven_is_reported(state: State) -> None:
    """After five failed readings a total is reported, once, and then read hourly."""
    desk = Desk(state, batch=3, reads=True)
    desk.graphite.carbon = FakeCarbon()
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    reported: list[str] = []
    sent_at: list[float] = []
    for _ in range(3 * 3600):
        while delivered := desk.step():
            reported += [one.path for one in delivered.unproven]
            sent_at += [desk.clock - 1000] * sum(delivered.datapoints.values())
        desk.clock += 1

    assert reported == ["a.x.count"]
    assert sent_at == [0, 65, 130, 195, 260, 3865, 7470]
    assert (desk.unproven(), desk.courier.is_alarmed) == (1, True)
    desk.graphite.carbon = desk.carbon
    for _ in range(3700):
        desk.run()
        desk.clock += 1
    assert (desk.unproven(), desk.courier.is_alarmed) == (0, False)


def test_progress_is_no_failed_reading(state: State) -> None:
    """As long as each reading proves more totals, nothing is reported. Mutant: count every reading."""
    desk = Desk(state, batch=3, reads=True)
    desk.graphite.carbon = FakeCarbon()
    desk.record("a", 0, 5, {(f"s{n}", MINUTE): 1 for n in range(12)})
    reported: list[str] = []
    for _ in range(15 * 60):
        while delivered := desk.step():
            reported += [one.path for one in delivered.unproven]
            if delivered.datapoints:  # Carbon creates one more series each minute
                number = len(desk.graphite.carbon.cache)
                desk.graphite.carbon.cache[f"a.s{number}.count"] = {MINUTE: 1.0}
        desk.clock += 1

    assert (reported, desk.unproven()) == ([], 0)


def test_graphite_does_not_answer(state: State) -> None:
    """While Graphite does not answer, nothing is proven, deliveries continue, and it is asked once a minute."""
    desk = Desk(state, batch=3, reads=True)
    desk.graphite.failures = 3
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    failed_at = []
    for _ in range(300):
        while delivered := desk.step():
            failed_at += [desk.clock - 1000] if delivered.failure else []
        desk.clock += 1

    assert failed_at == [5, 65, 125]
    assert (desk.unproven(), len(desk.graphite.requests)) == (0, 4)


@pytest.mark.parametrize("ahead", [60, 3600])
def test_slot_of_the_future_is_read_later(state: State, ahead: int) -> None:
    """A slot of the future is read once its time has come: until then Graphite does not show it.

    Mutant: read it at once; it is then reported, and sent each minute.
    """
    desk = Desk(state, batch=3, reads=True)
    desk.record("a", 0, 5, {("x", MINUTE + ahead): 1})
    reported, sent = 0, 0
    for second in range(ahead + 60):
        desk.graphite.carbon = desk.carbon if second >= ahead else FakeCarbon()
        while delivered := desk.step(now=MINUTE + second):
            reported, sent = reported + len(delivered.unproven), sent + sum(delivered.datapoints.values())
        desk.clock += 1

    assert (reported, sent, desk.unproven()) == (0, 1, 0)


def test_slot_leaves_its_archive_before_it_is_read(state: State) -> None:
    """Totals whose slot leaves its archive during a reading are merged, as before a delivery.

    Mutant: skip them; nothing is known of them any more, and nothing sends them if Carbon dies.
    """
    desk = Desk(state, batch=3, reads=True, archives=TWO)
    desk.record("a", 0, 5, {("x", HOUR): 1, ("x", HOUR + 3600): 2}, now=HOUR + 7200)
    last = HOUR + 86_400 - 601
    while desk.step(now=last):
        pass
    desk.clock += 5
    assert desk.step(now=last) is not None  # the newer slot
    while desk.step(now=last + 1):
        pass

    assert state._connection.execute("SELECT slot, step, changed FROM total WHERE slot = ?", (HOUR,)).fetchall() == [
        (HOUR, 3600, 2)
    ]


class FailingOutbox(StateOutbox):
    """An outbox that cannot prove totals once, as on a full disk."""

    has_failed = False

    def prove_series(self, slot: int, step: int, series: Sequence[int], *, after: int, upto: int) -> None:
        """Fail once, or store."""
        if not self.has_failed:
            self.has_failed = True
            raise StateBusy("prove totals: disk full")
        super().prove_series(slot, step, series, after=after, upto=upto)


def test_state_fails_during_a_reading(state: State) -> None:
    """Totals that the state could not mark as proven are read once more.

    Mutant: continue behind them; nothing proves them any more, and nothing sends them if Carbon dies.
    """
    state.outbox = FailingOutbox(state)
    desk = Desk(state, batch=3, reads=True)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE - 60): 2})
    desk.run()
    desk.clock += 5
    with pytest.raises(StateBusy):
        desk.run()
    assert desk.unproven() == 2
    desk.run()

    assert desk.unproven() == 0


def test_witness_dies_before_it_is_read(state: State) -> None:
    """Totals that a dead Carbon has confirmed are sent again before they are read. Mutant: read them first."""
    desk = Desk(state, batch=3, reads=True)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.run()
    desk.restart_carbon()

    assert desk.run() == [[f"a.x.count 1 {MINUTE}"]] * 2  # the batch that failed may arrive between the two


@pytest.mark.parametrize("unproven", [0, 1901])
def test_all_of_a_large_slot_is_read(state: State, unproven: int) -> None:
    """A slot with more series than one request may have is read page by page. Mutants: the first page only; twice."""
    desk = Desk(state, batch=2000, reads=True)
    desk.carbon.is_full = unproven > 0
    desk.record("a", 0, 5, {(f"s{n}", MINUTE): n for n in range(1, 1902)})
    desk.run()
    desk.clock += 5
    desk.run()

    assert [len(paths) for paths, _ in desk.graphite.requests] == [900, 900, 101]
    assert len({path for paths, _ in desk.graphite.requests for path in paths}) == 1901
    assert desk.unproven() == unproven


def test_graphite_does_not_answer_for_many_rounds(state: State) -> None:
    """While Graphite does not answer, one round a minute asks it, for all rounds. Mutant: each asks, and waits."""
    desk = Desk(state, reads=True)
    for n in range(5):
        desk.record("a", n, n + 1, {("x", MINUTE - 60 * n): 1})
        desk.run()
        desk.clock += 6
    assert len(desk.graphite.requests) == 4
    desk.graphite.failures = 3
    desk.carbon.cache.clear()
    desk.clock += 60
    live(desk, 600)

    assert desk.graphite.failures == 0
    assert desk.unproven() == 0


class Log:
    """Steps of a desk, in seconds since its start."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        """When each datapoint was sent."""
        self.read: list[float] = []
        self.failed: list[float] = []
        self.reported: list[tuple[float, list[str]]] = []


def live(desk: Desk, seconds: int, *, now: int = MINUTE) -> Log:
    """Let a desk work for some time, with at least a step a second."""
    log = Log()
    for _ in range(seconds):
        while delivered := desk.step(now=now):
            at = desk.clock - 1000
            log.sent += [at] * sum(delivered.datapoints.values())
            log.read += [at] * delivered.is_reading
            log.failed += [at] * (delivered.failure is not None)
            log.reported += [(at, [one.path for one in delivered.unproven])] if delivered.unproven else []
        delay = desk.courier.delay(desk.clock)
        assert delay is None or delay > 0  # else the courier's thread would never rest
        desk.clock += 1
    return log


def make_series(state: State) -> None:
    """Mark all series as created, as if a total of each had been proven."""
    state._connection.execute("UPDATE series SET is_made = 1")


def sampling(state: State, **options: object) -> Desk:
    """Return a desk that samples, and whose series a.x and a.y are created."""
    desk = Desk(state, samples=True, **options)  # type: ignore[arg-type] # options of Desk
    desk.record("a", 0, 2, {("x", MINUTE - 600): 1, ("y", MINUTE - 600): 2})
    desk.run()
    make_series(state)
    desk.courier._proofs.schedule.clear()
    state.outbox.prove(after=0, upto=10**9)
    desk.clock += 5
    desk.run()
    assert desk.graphite.requests == []  # nothing is left to read
    desk.clock = 1000.0
    desk.courier._sampler._next = 0.0  # type: ignore[union-attr] # it samples
    return desk


def test_sample_is_equal(state: State) -> None:
    """Five seconds after its confirmation a round is sampled, once; replays still prove it. Mutant: no sample."""
    desk = sampling(state)
    desk.record("a", 2, 5, {("x", MINUTE): 3})
    log = live(desk, 3700)

    assert (log.sent, log.reported) == ([0, 60, 600, 3600], [])
    assert log.read == [5, 65, 605]  # also after replays, but not after the last: it has proven the total
    assert desk.graphite.requests[0] == (["a.x.count"], MINUTE)
    assert (desk.unproven(), desk.courier.is_alarmed) == (0, False)


def test_sample_is_not_read_before_it_is_due(state: State) -> None:
    """A sample is read five seconds after the confirmation, and no sooner."""
    desk = sampling(state)
    desk.record("a", 2, 5, {("x", MINUTE): 3})
    desk.run()
    desk.clock += 4.99
    desk.run()
    assert desk.graphite.requests == []
    assert desk.courier.delay(desk.clock) == pytest.approx(0.01)
    desk.clock += 0.01
    desk.run()

    assert len(desk.graphite.requests) == 1


def test_receiver_stores_nothing(state: State) -> None:
    """Values that are confirmed and not stored are sent again after 15 s, and reported after a minute.

    No replay proves them. Mutants: report at once; never; let replays prove meanwhile; do not send again.
    """
    desk = sampling(state, replay=(10, 20, 30))
    desk.record("a", 2, 5, {("x", MINUTE): 3, ("y", MINUTE): 4})
    desk.carbon.is_full = True
    log = live(desk, 61)

    assert log.read[:3] == [5, 15, 60]
    assert log.sent == [0, 0, 15, 15]
    assert log.reported == [(60, ["a.x.count", "a.y.count"])]
    assert (desk.unproven(), desk.courier.is_alarmed) == (2, True)
    again = live(desk, 4000)
    assert again.sent[::2] == [120, 185, 250, 3855]  # each minute, then hourly
    assert again.reported == [(255, ["a.x.count", "a.y.count"])]


def test_all_arrives_once_it_is_stored_again(state: State) -> None:
    """However long Carbon stores nothing, all totals that it confirmed in that time arrive in the end, and are proven.

    Mutants: let replays prove rounds without a sample; end the alarm with the first value that is there.
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


def test_replays_continue_after_an_alarm(state: State) -> None:
    """Once no value is missing, rounds are sampled and replayed again. Mutant: read all totals forever."""
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
    """Only the missing series is sent again and reported; readings prove all others. Mutant: prove none of them."""
    desk = sampling(state)
    desk.record("a", 2, 5, {("x", MINUTE): 3, ("y", MINUTE): 4})
    desk.meanwhile = lambda: desk.carbon.cache.pop("a.y.count", None)
    log = live(desk, 300)

    assert log.reported[:1] == [(60, ["a.y.count"])]
    assert desk.unproven() == 1
    desk.meanwhile = lambda: None
    live(desk, 3700)
    assert (desk.unproven(), desk.courier.is_alarmed) == (0, False)


def test_lost_once_is_no_alarm(state: State) -> None:
    """A value that arrives with its second delivery is not reported; replays prove it. Mutant: report at the second."""
    desk = sampling(state)
    desk.record("a", 2, 5, {("x", MINUTE): 3})
    desk.run()
    desk.carbon.cache.clear()
    log = live(desk, 3800)

    assert (log.sent, log.reported) == ([15, 75, 615, 3615], [])
    assert desk.unproven() == 0


@pytest.mark.parametrize(("seconds", "samples"), [(9, 1), (10, 2)])
def test_samples_are_rare(state: State, seconds: int, samples: int) -> None:
    """Ten seconds pass between two samples. Mutant: a sample of each round."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE): 1})
    live(desk, seconds)
    desk.record("a", 3, 4, {("x", MINUTE - 60): 1})
    live(desk, 20)

    assert len(desk.graphite.requests) == samples


@pytest.mark.parametrize(("series", "reported"), [(1, 360), (50, 360), (51, 420)])
def test_new_series_may_take_time(state: State, series: int, reported: int) -> None:
    """New series are reported five minutes after the time that Carbon needs to create them.

    Mutants: as soon as others; never.
    """
    desk = Desk(state, samples=True)
    desk.carbon.is_full = True
    desk.record("a", 0, 9, {(f"s{n}", MINUTE): 1 for n in range(series)})
    log = live(desk, 600)

    assert [at for at, _ in log.reported][:1] == [reported]
    assert log.read[:4] == [5, 15, 60, 120]
    assert 75 in log.sent  # replays continue: Carbon needs them to create the series


def test_new_series_are_not_chosen(state: State) -> None:
    """A sample has series that Carbon has created, if the slot has one. Mutant: any series."""
    desk = sampling(state)
    desk.record("a", 2, 9, {("x", MINUTE): 1} | {(f"new{n}", MINUTE): 1 for n in range(30)})
    live(desk, 6)

    assert desk.graphite.requests == [(["a.x.count"], MINUTE)]


def test_changed_value_is_compared_as_it_was_sent_last(state: State) -> None:
    """A total that was sent again since the sample was taken does not differ. Mutants: as it was then; leave it out."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE): 1})
    desk.run()
    desk.clock += 4
    desk.record("a", 3, 4, {("x", MINUTE): 1})
    desk.run()
    desk.clock += 1
    desk.run()

    assert desk.graphite.requests == [(["a.x.count"], MINUTE)]
    assert desk.courier.delay(desk.clock) == 59  # its first replay


def test_changed_value_is_not_delivered_yet(state: State) -> None:
    """A total that has changed and waits for Carbon is not read. Mutant: compare it as it is in the state."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE): 1, ("y", MINUTE): 1})
    desk.run()
    desk.clock += 5
    desk.record("a", 3, 4, {("x", MINUTE): 1})
    delivered = desk.courier.step(now=MINUTE, clock=desk.clock, opens_round=False)

    assert delivered is not None
    assert delivered.is_reading
    assert desk.graphite.requests == [(["a.y.count"], MINUTE)]
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
    """A slot of the future, or one about to leave the finest archive, is not read. Mutants: either is."""
    desk = Desk(state, samples=True, archives=TWO)
    desk.record("a", 0, 3, {("x", slot): 1}, now=slot)
    desk.step(now=slot)
    assert len(desk.batches) == 1
    desk.clock += 5
    desk.step(now=now)

    assert len(desk.graphite.requests) == asks


def test_coarse_slots_are_no_sample(state: State) -> None:
    """Coarse slots are not sampled: they read too low while Carbon's cache has newer points of their minutes.

    Mutants: sample it; lose a turn.
    """
    desk = Desk(state, samples=True, archives=TWO)
    for n in range(3):
        desk.record("a", n, n + 1, {("x", HOUR - 5 * 86400 + 60): 1})
        desk.record("b", n, n + 1, {("x", MINUTE): 1})
        assert len(live(desk, 10).sent) == 2

    assert desk.graphite.requests == [(["b.x.count"], MINUTE)] * 3


def test_newest_slot_of_a_job(state: State) -> None:
    """A sample is of the newest slot of a round. Mutant: the oldest."""
    desk = sampling(state)
    desk.record("a", 2, 9, {("x", MINUTE - 60 * n): 1 for n in range(9)})
    live(desk, 6)

    assert desk.graphite.requests == [(["a.x.count"], MINUTE)]


def test_jobs_take_turns(state: State) -> None:
    """The newest slots of jobs are sampled in turn, also with longer buckets. Mutant: the round's newest slot."""
    desk = sampling(state)
    for n in range(4):
        desk.record("a", 2 + n, 3 + n, {("x", MINUTE): 1})
        desk.record("b", n, n + 1, {("z", MINUTE - 1800): 1})
        live(desk, 10)

    assert [slot for _, slot in desk.graphite.requests[-4:]] == [MINUTE, MINUTE - 1800] * 2


class Slot:
    """An outbox of one slot."""

    def __init__(self, series: int) -> None:
        self._totals = [Changed(n, "a", f"a.s{n}.count", 1, is_made=True) for n in range(1, series + 1)]

    def changed(self, slot: int, step: int, *, after: int, upto: int, beyond: int, limit: int) -> list[Changed]:
        """Return some of its totals."""
        return [total for total in self._totals if total.series > beyond][:limit]


@pytest.mark.parametrize("series", [1, 20, 21, 60, 900, 1900])
def test_series_take_turns(series: int) -> None:
    """A sample has at most 20 values, others each time, until each was read. Mutants: the first 20; the first 900."""
    carbon = FakeCarbon()
    carbon.cache = {f"a.s{n}.count": {MINUTE: 1.0} for n in range(1, series + 1)}
    graphite = Graphite(carbon)
    sampler = Sampler(Slot(series), graphite, (ARCHIVE,))  # type: ignore[arg-type] # only `changed` is called
    for n in range(400):
        sampler.take(Round(0, 9, deque(), slots=[MINUTE]), 10.0 * n, new_series=0)
        sampler.read(upto=9, now=MINUTE, clock=10.0 * n + 5)
    read = {path for paths, _ in graphite.requests for path in paths}

    assert max(len(paths) for paths, _ in graphite.requests) <= 20
    assert (len(graphite.requests), len(read)) == (400, series)


def test_failing_graphite_delays_no_delivery(state: State) -> None:
    """A Graphite that does not answer is asked less and less often, and replays prove the totals of its samples.

    Mutants: ask again with the next round; hold replays forever.
    """
    desk = sampling(state)
    desk.graphite.failures = 7
    failed: list[float] = []
    for n in range(400):
        desk.record("a", 2 + n, 3 + n, {("x", MINUTE - 60 * n): 1})
        log = live(desk, 10)
        failed += log.failed
        assert desk.watermark("a") == 3 + n
        assert log.sent[0] == 10 * n

    assert failed == [5, 75, 205, 455, 945, 1555, 2165]
    assert desk.graphite.failures == 0


def test_graphite_fails_while_something_differs(state: State) -> None:
    """A value that differed once is proven by replays if the second reading fails. Mutant: hold replays."""
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
    """A sample is dropped when Carbon dies: its totals are sent again. Mutant: read it anyway."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE): 1})
    desk.run()
    desk.clock += 5
    desk.restart_carbon()
    delivered = desk.step()

    assert delivered is not None
    assert (delivered.datapoints, desk.graphite.requests) == ({"a": 1}, [])


def test_no_sample_by_an_untrusted_clock(state: State) -> None:
    """A sample is dropped while the clocks are not trusted: any archive may answer. Mutant: read it anyway."""
    desk = sampling(state)
    desk.record("a", 2, 3, {("x", MINUTE): 1})
    desk.run()
    desk.clock += 5

    assert desk.step(is_trusted=False) is None
    assert desk.graphite.requests == []
    assert desk.courier.delay(desk.clock) is None  # nor is anything proven


def test_differing_value_has_changed(state: State) -> None:
    """A value that differed, has changed since and waits for delivery is not read. Mutant: read its neighbour."""
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

    assert len(desk.graphite.requests) == 1
    assert not desk.courier._proofs.is_held


def test_failures_in_a_row(state: State) -> None:
    """The pause after a failure is short again after an answer of Graphite. Mutant: count all failures."""
    desk = sampling(state)
    failed = []
    for n in range(100):
        desk.graphite.failures = 1 if len(desk.graphite.requests) % 2 == 0 else 0  # every other time
        desk.record("a", 2 + n, 3 + n, {("x", MINUTE - 60 * n): 1})
        failed += live(desk, 10).failed

    assert {after - before for before, after in pairwise(failed)} == {80}  # a minute, a sample, ten seconds


def test_only_the_round_of_a_sample_is_sent_again(state: State) -> None:
    """Only the round of a value that differs at the second reading is sent again. Mutants: all; neighbours."""
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


def test_alarm_ends_when_all_is_read(state: State) -> None:
    """The alarm lasts until all values were read and are there. Mutant: until the first one is."""
    desk = sampling(state)
    for n in range(3):  # the second one is lost
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


def test_alarm_lasts_for_later_rounds(state: State) -> None:
    """A later round that is there in part prolongs the alarm; one that was not read yet is replayed after its end.

    Mutants: end the alarm with the first round that is there; read rounds of the alarm after its end.
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
    log = live(desk, 70)

    assert (desk.unproven(), desk.courier.is_alarmed) == (1, False)
    assert log.sent[-1] == pytest.approx(137 + 60, abs=1)  # the first replay
