"""Rounds of the courier: commits, replays, and what it does when Carbon dies."""

from pathlib import Path

import pytest
from builders import ARCHIVE
from dispatch import MINUTE, REPLAY, Desk

from shipper.core.delivery.courier import Delivered
from shipper.core.delivery.outbox import Pending
from shipper.core.errors import DeliveryFailed, StateBusy
from shipper.core.model import Archive
from shipper.state.outbox import StateOutbox
from shipper.state.store import State


class FailingOutbox(StateOutbox):
    """An outbox whose n-th look for pending totals fails, as on a full disk."""

    fuse = 0

    def pending(self, after: int, upto: int | None = None) -> Pending:
        """Fail once, or answer."""
        self.fuse -= 1
        if self.fuse == 0:
            raise StateBusy("read pending totals: disk full")
        return super().pending(after, upto)


def test_nothing_to_do(state: State) -> None:
    """Without changed totals the courier sends nothing, and nothing is due."""
    desk = Desk(state)

    assert desk.step() is None
    assert desk.courier.delay(desk.clock) is None


def test_newest_slots_first_across_jobs(state: State) -> None:
    """The current minute of every job is sent before older minutes of any job."""
    desk = Desk(state, batch=2)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("x", MINUTE - 60): 2, ("x", MINUTE - 120): 3})
    desk.record("b", 0, 5, {("y", MINUTE): 4})

    assert desk.run() == [
        [f"a.x.count 1 {MINUTE}", f"b.y.count 4 {MINUTE}"],
        [f"a.x.count 2 {MINUTE - 60}", f"a.x.count 3 {MINUTE - 120}"],
    ]


def test_newest_round_first(state: State) -> None:
    """Totals recorded while an older round is being sent go before the rest of that round."""
    desk = Desk(state, batch=1)
    desk.record("a", 0, 5, {("x", MINUTE - 60 * n): n + 1 for n in range(3)})
    desk.step()
    desk.record("b", 0, 5, {("y", MINUTE): 4})
    desk.step()

    assert [batch[0].split()[0] for batch in desk.batches] == ["a.x.count", "b.y.count"]


def test_watermark_moves_with_last_batch(state: State) -> None:
    """A job's watermark moves once the last of its totals is confirmed, and not before."""
    desk = Desk(state, batch=1)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 1, ("z", MINUTE): 1})

    seen = [(desk.step(), desk.watermark("a")) for _ in range(3)]

    assert [watermark for _, watermark in seen] == [0, 0, 5]
    assert seen[2][0] == Delivered({"a": 1}, {"a": 5}, is_replay=False)


def test_watermark_waits_for_older_round(state: State) -> None:
    """A finished newer round does not move the watermark past totals that an older round still has."""
    desk = Desk(state, batch=1)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 1})
    desk.step()
    desk.record("a", 5, 9, {("x", MINUTE): 1})
    desk.step()

    assert desk.watermark("a") == 0
    desk.run()
    assert desk.watermark("a") == 9


def test_watermark_of_the_round(state: State) -> None:
    """A commit does not cover rows captured while the batch was on its way. Mutant: commit captured as it is now."""
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.meanwhile = lambda: desk.record("a", 5, 9, {("y", MINUTE): 1})
    desk.step()
    assert desk.watermark("a") == 5
    desk.meanwhile = lambda: None
    desk.run()

    assert desk.watermark("a") == 9


def test_watermark_of_moved_total(state: State) -> None:
    """A total that changes while it waits is sent once, with its newest value, and is then delivered."""
    desk = Desk(state, batch=1)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 1})
    desk.step()
    desk.record("a", 5, 9, {("y", MINUTE): 1})

    assert desk.run() == [[f"a.y.count 2 {MINUTE}"]]
    assert desk.watermark("a") == 9


def test_watermark_without_totals(state: State) -> None:
    """A window without rows needs no delivery, also when it follows a window that waits."""
    desk = Desk(state)
    desk.record("a", 0, 5, {})
    assert desk.watermark("a") == 5
    desk.record("a", 5, 6, {("x", MINUTE): 1})
    desk.record("a", 6, 9, {})
    assert desk.watermark("a") == 5
    desk.run()

    assert desk.watermark("a") == 9


def test_what_carbon_may_lack(state: State) -> None:
    """Carbon may lack what it has not confirmed, and after an exit what is not proven, until that is sent again.

    Mutants: wait for first confirmations only; for the proof.
    """
    desk = Desk(state, batch=1)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 1})
    desk.record("b", 0, 5, {})
    desk.step()
    assert [desk.courier.may_lack(name) for name in "ab"] == [True, False]
    desk.run()
    assert not desk.courier.may_lack("a")
    desk.restart_carbon()
    assert desk.courier.may_lack("a")
    desk.step()
    assert desk.courier.may_lack("a")
    desk.run()

    assert not desk.courier.may_lack("a")


def test_slot_larger_than_batch(state: State) -> None:
    """A slot of many series is sent in several batches, each series once."""
    desk = Desk(state, batch=3)
    desk.record("a", 0, 9, {(f"s{n}", MINUTE): n + 1 for n in range(8)})

    batches = desk.run()

    assert [len(batch) for batch in batches] == [3, 3, 2]
    assert {f"a.s{n}.count {n + 1} {MINUTE}" for n in range(8)} == {line for batch in batches for line in batch}


def test_waiting_is_what_carbon_has_not_confirmed(state: State) -> None:
    """A total waits until its first confirmation; a replay does not make it wait again."""
    desk = Desk(state, batch=1)
    desk.record("a", 0, 5, {("x", MINUTE - 60 * n): n + 1 for n in range(3)})
    desk.carbon.is_up = False
    with pytest.raises(DeliveryFailed):
        desk.step()
    assert desk.courier.waiting() == {"a": 3}
    desk.carbon.is_up = True
    desk.step()
    assert desk.courier.waiting() == {"a": 2}
    desk.run()
    desk.clock += 60
    desk.step()

    assert desk.unproven() == 3
    assert desk.courier.waiting() == {}


def test_history_counts_no_replays(state: State) -> None:
    """The datapoints of a commit are those sent for the first time. Mutant: those of replays, too."""
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 1})
    desk.run()
    desk.clock += 60
    replayed = list(desk.run())
    desk.record("a", 5, 9, {("x", MINUTE): 2})
    desk.run()
    with state.reading("read history") as connection:
        history = connection.execute("SELECT value, datapoints FROM history ORDER BY id").fetchall()

    assert len(replayed[0]) == 2
    assert history == [("5", 2), ("9", 1)]


def test_confirmed_is_below_rounds_that_wait(state: State) -> None:
    """The state learns up to which revision all is confirmed: below a round that still waits. Mutant: the newest."""
    desk = Desk(state, batch=1)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 1, ("z", MINUTE): 1})
    before = state.revision - 1
    desk.step()
    desk.record("b", 0, 7, {("x", MINUTE): 1})
    desk.step()
    confirmed = [int(state.recall("confirmed") or 0)]
    desk.run()
    confirmed.append(int(state.recall("confirmed") or 0))

    assert confirmed == [before, state.revision]


def test_failed_batch_goes_again(state: State) -> None:
    """After a failure the same totals are sent again, with their values at that time."""
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.carbon.kill()
    with pytest.raises(DeliveryFailed):
        desk.step()
    desk.record("a", 5, 6, {("x", MINUTE): 1})
    desk.carbon.start()
    assert desk.watermark("a") == 0

    # twice: the batch whose outcome is unknown may arrive between the two
    assert desk.run() == [[f"a.x.count 2 {MINUTE}"]] * 2
    assert desk.watermark("a") == 6


def test_replays_then_proven(state: State) -> None:
    """A total is sent again 1 min, 10 min and 1 h after its first confirmation, and is proven after the last.

    Mutant: prove at once.
    """
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.run()
    sent = []
    for seconds in range(0, 3700, 10):
        desk.clock = 1000.0 + seconds
        if desk.run():
            sent.append(seconds)
            assert desk.unproven() == (0 if seconds == 3600 else 1)

    assert sent == [60, 600, 3600]
    assert desk.courier.delay(desk.clock) is None


def test_replay_sends_current_value_once(state: State) -> None:
    """A total that has changed since is not replayed for its old round."""
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 1})
    desk.run()
    desk.clock += 30
    desk.record("a", 5, 9, {("x", MINUTE): 1})
    assert desk.run() == [[f"a.x.count 2 {MINUTE}"]]
    desk.clock += 31

    assert desk.run() == [[f"a.y.count 1 {MINUTE}"]]


def test_neighbours_replayed_together(state: State) -> None:
    """Rounds that follow each other closely share one replay, with all of their totals."""
    desk = Desk(state)
    for n in range(50):
        desk.record("a", n, n + 1, {(f"s{n}", MINUTE): 1})
        desk.run()
        desk.clock += 0.05
    assert len(desk.courier._proofs.schedule) == 1
    desk.clock += 60

    assert [len(batch) for batch in desk.run()] == [50]


def test_killed_carbon_gets_all_again(state: State) -> None:
    """When Carbon dies, confirmed totals that are not proven are sent again as soon as a new Carbon runs.

    Mutant: do not look at the witness.
    """
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.run()
    desk.restart_carbon()

    assert desk.run() == [[f"a.x.count 1 {MINUTE}"]] * 2  # the batch that failed may arrive between the two
    assert desk.courier.restarts == 1


def test_idle_connections_are_closed(state: State) -> None:
    """A receiver that closes idle connections causes no replays, and all totals are proven on time.

    Mutant: take the end of a connection for the end of Carbon.
    """
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.run()
    sent = []
    for seconds in range(0, 3700, 10):
        desk.clock = 1000.0 + seconds
        if seconds % 120 == 0:
            desk.carbon.close_idle()
        sent += [seconds] * len(desk.run())

    assert (sent, desk.courier.restarts, desk.unproven()) == ([60, 600, 3600], 0, 0)


def test_kill_after_each_replay(state: State) -> None:
    """Only replays to a Carbon that has stayed alive since the first confirmation prove totals.

    Mutants: keep the stage of an invalidated replay; keep the time of the first confirmation.
    """
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.run()
    for seconds in REPLAY:  # each time it dies within its flush time
        desk.clock += seconds
        desk.run()
        desk.restart_carbon()

    assert desk.unproven() == 1
    desk.run()
    assert desk.carbon.sums() == {"a.x.count": {MINUTE: 1}}
    for seconds in (3600, 3600, 3600, 3600):
        desk.carbon.flush()
        desk.clock += seconds
        desk.run()
    desk.carbon.kill()
    assert desk.unproven() == 0
    assert desk.carbon.sums() == {"a.x.count": {MINUTE: 1}}


def test_failure_in_midst_of_round(state: State) -> None:
    """A failure invalidates earlier batches of the same round: they are sent again once the round is finished.

    Mutant: invalidate finished rounds only.
    """
    desk = Desk(state, batch=1)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 1})
    desk.step()
    desk.carbon.kill()
    with pytest.raises(DeliveryFailed):
        desk.step()
    desk.carbon.start()

    desk.run()
    assert desk.carbon.sums() == {"a.x.count": {MINUTE: 1}, "a.y.count": {MINUTE: 1}}


def test_another_relay_confirms(state: State) -> None:
    """A relay takes over in the last batch of the last replay: what the one before had confirmed is not proven.

    Mutant: ask for deaths only before a batch.
    """
    desk = Desk(state, batch=2)
    desk.record("a", 0, 5, {(action, MINUTE): 1 for action in "xyz"})
    for seconds in (0, *REPLAY[:-1]):
        desk.clock = 1000.0 + seconds
        desk.run()
    desk.clock = 1000.0 + REPLAY[-1]
    desk.step()
    desk.meanwhile = desk.carbon.switch
    desk.step()
    desk.meanwhile = lambda: None

    assert desk.unproven() == 3
    assert len(desk.run()) == 2


def test_relay_that_hangs(state: State) -> None:
    """While a relay hangs, which may write old values later, nothing is proven; once it continues, all goes again.

    Mutant: replay meanwhile.
    """
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.run()
    desk.carbon.may_write_old_values = True
    desk.clock += 86_400
    assert desk.run() == []
    assert (desk.unproven(), desk.courier.delay(desk.clock)) == (1, None)
    desk.carbon.may_write_old_values = False
    desk.carbon.switch()

    assert len(desk.run()) == 1
    assert desk.unproven() == 1


def test_restart_sends_unproven(state: State) -> None:
    """A new courier without a schedule sends all totals that are not proven."""
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.run()

    assert Desk(state).run() == [[f"a.x.count 1 {MINUTE}"]]


def test_steady_traffic_is_replayed(state: State) -> None:
    """A round every second delays no replay. Mutant: merge neighbours without an end."""
    desk = Desk(state, replay=(60,))
    for n in range(200):
        desk.record("a", n, n + 1, {("x", MINUTE - 60 * n): 1})
        desk.run()
        desk.clock += 1

    assert desk.unproven() <= 60 + 5  # a replay is late by the neighbours it waits for
    assert len(desk.courier._proofs.schedule) <= 60 / 5 + 1


def test_outage_keeps_one_round(state: State) -> None:
    """However long Carbon is down, one round waits, and sends each total that was captured meanwhile once."""
    desk = Desk(state)
    desk.carbon.kill()
    for n in range(50):
        desk.record("a", n, n + 1, {("x", MINUTE): 1, (f"s{n}", MINUTE): 1})
        with pytest.raises(DeliveryFailed):
            desk.step()
    assert len(desk.courier._rounds) == 1
    desk.carbon.start()

    assert [len(batch) for batch in desk.run()] == [51, 51]
    assert desk.watermark("a") == 50


def rejected(state: State) -> dict[str, int]:
    """Read the counters of rejected rows."""
    return dict(state._connection.execute("SELECT reason, rows FROM rejected").fetchall())


def test_too_old_for_all_archives(state: State) -> None:
    """A total that is too old for all archives is given up and counted as rejected. Mutant: send it anyway."""
    desk = Desk(state)
    later = MINUTE + ARCHIVE.duration
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("x", later): 2})
    desk.step(now=later)
    desk.step(now=later)

    assert desk.batches == [[f"a.x.count 2 {later}"]]
    assert rejected(state) == {"too_old": 1}
    assert desk.courier.given_up == {"a": 1}
    assert desk.watermark("a") == 5


def test_grown_too_old_while_it_waited(state: State) -> None:
    """Age is checked when a batch is sent, not only when its round was opened. Mutant: check it at the opening only."""
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.carbon.kill()
    with pytest.raises(DeliveryFailed):
        desk.step()
    desk.carbon.start()
    for _ in range(3):
        desk.step(now=MINUTE + ARCHIVE.duration)

    assert desk.batches == []
    assert rejected(state) == {"too_old": 1}
    assert desk.watermark("a") == 5


@pytest.mark.parametrize("is_trusted", [False, True])
def test_slot_far_ahead_waits_for_its_time(state: State, *, is_trusted: bool) -> None:
    """A slot that the wrong clock of a source puts ahead is not stored over one that the archive still shows.

    Mutants: send it at once; merge it; forget it.
    """
    desk = Desk(state)
    desk.record("a", 0, 5, {("x", MINUTE + 600): 1, ("x", MINUTE + 660): 2})
    for _ in range(3):
        desk.step(is_trusted=is_trusted)
    assert desk.batches == [[f"a.x.count 1 {MINUTE + 600}"]]
    assert (desk.watermark("a"), rejected(state)) == (0, {})
    desk.clock += 30
    for _ in range(3):
        desk.step(now=MINUTE + 660)

    assert desk.batches[1:] == [[f"a.x.count 2 {MINUTE + 660}"]]
    assert desk.watermark("a") == 5


TWO = (Archive(60, 86400), Archive(3600, 30 * 86400))
HOUR = MINUTE - MINUTE % 3600


def test_merged_at_the_edge(state: State) -> None:
    """Minutes that leave the finest archive before they were sent become one sum, sent once the entire hour has left.

    Mutants: send them as they are; release at the edge itself; forget the proven minutes of the hour.
    """
    desk = Desk(state, archives=TWO, replay=(0,))
    desk.record("a", 0, 5, {("x", HOUR + 60): 1}, now=HOUR + 120)
    desk.run()
    desk.record("a", 5, 9, {("x", HOUR + 120): 2, ("x", HOUR + 180): 4}, now=HOUR + 240)
    desk.carbon.kill()
    with pytest.raises(DeliveryFailed):
        desk.step(now=HOUR + 240)
    desk.carbon.start()
    seen = []
    for age in (86400 - 600, 86400 + 3600 + 599, 86400 + 3600 + 600):
        desk.batches.clear()
        desk.clock += 60
        for _ in range(3):
            desk.step(now=HOUR + age)
        seen.append((desk.batches.copy(), desk.watermark("a")))

    assert seen == [([], 5), ([], 5), ([[f"a.x.count 7 {HOUR}"]] * 2, 9)]  # with its replay


def test_late_row_joins_the_coarse_slot(state: State) -> None:
    """A row for an hour that has left the finest archive is added to the sum of the hour's proven minutes.

    Mutant: its own count only.
    """
    desk = Desk(state, archives=TWO, replay=(0,))
    desk.record("a", 0, 5, {("x", HOUR + 60): 1, ("x", HOUR + 120): 2}, now=HOUR + 180)
    desk.run()
    later = HOUR + 86400 + 3600 + 600
    desk.record("a", 5, 6, {("x", HOUR + 60): 5}, now=later)
    desk.batches.clear()
    for _ in range(3):
        desk.step(now=later)

    assert desk.batches == [[f"a.x.count 8 {HOUR}"]] * 2  # and once more, as its replay


@pytest.mark.parametrize("step", [600, 7200])
def test_archive_goes_while_totals_are_deferred(state: State, step: int) -> None:
    """Totals that wait for an archive are sent to the one that takes its place when `retentions` change.

    Mutant: release only steps of the present archives; the total then waits for ever, and nothing reports it.
    """
    before = Desk(state, archives=(TWO[0], Archive(step, 10 * 86400), Archive(86400, 365 * 86400)), replay=(0,))
    before.record("a", 0, 5, {("x", HOUR): 7}, now=HOUR + 86400)
    assert before.run() == []
    desk = Desk(state, archives=TWO, replay=(0,))
    for _ in range(4):
        desk.step(now=HOUR + 3 * 86400)
        desk.clock += 60

    assert desk.batches == [[f"a.x.count 7 {HOUR - HOUR % step}"]] * 2  # with its replay
    assert desk.watermark("a") == 5


def test_untrusted_clock_holds_back(state: State) -> None:
    """While the clocks are not trusted, totals are not merged, given up or sent coarse; afterwards all are sent."""
    desk = Desk(state, archives=TWO, replay=(0,))
    desk.record("a", 0, 5, {("x", HOUR + 60): 1, ("x", HOUR + 7200): 2}, now=HOUR + 7260)
    for _ in range(3):
        desk.step(now=HOUR + 40 * 86400, is_trusted=False)
    assert desk.batches == []
    assert desk.watermark("a") == 0
    desk.clock += 60
    for _ in range(3):
        desk.step(now=HOUR + 7260)

    assert desk.batches == [[f"a.x.count 2 {HOUR + 7200}", f"a.x.count 1 {HOUR + 60}"]] * 2  # with its replay
    assert desk.watermark("a") == 5


def test_replay_fails_to_begin(tmp_path: Path) -> None:
    """A replay is still due after the state failed when it was to begin. Mutant: remove it first."""
    with State(str(tmp_path / "shipper.db")) as state:
        state.outbox = outbox = FailingOutbox(state)
        desk = Desk(state)
        desk.record("a", 0, 5, {("x", MINUTE): 1})
        desk.run()
        desk.clock += 60
        outbox.fuse = 2
        with pytest.raises(StateBusy):
            desk.step()

        assert desk.run() == [[f"a.x.count 1 {MINUTE}"]]


def test_round_fails_to_grow(tmp_path: Path) -> None:
    """A waiting round still waits after the state failed when it was to grow. Mutant: take it off the stack first."""
    with State(str(tmp_path / "shipper.db")) as state:
        state.outbox = outbox = FailingOutbox(state)
        desk = Desk(state)
        desk.record("a", 0, 5, {("x", MINUTE): 1})
        desk.carbon.kill()
        with pytest.raises(DeliveryFailed):
            desk.step()
        desk.carbon.start()
        desk.record("a", 5, 6, {("y", MINUTE): 1})
        outbox.fuse = 2
        with pytest.raises(StateBusy):
            desk.step()

        assert [f"a.x.count 1 {MINUTE}", f"a.y.count 1 {MINUTE}"] == desk.run()[0]


def test_next_process_continues_the_proofs(state: State) -> None:
    """After an orderly end the next courier sends nothing again before it is due, and finishes the proofs."""
    first = Desk(state)
    first.record("a", 0, 5, {("x", MINUTE): 1})
    first.run()
    second = Desk(state, schedule=first.courier.schedule())
    assert second.run() == []
    second.record("a", 5, 6, {("x", MINUTE + 60): 1})
    assert second.run() == [[f"a.x.count 1 {MINUTE + 60}"]]
    second.clock += 60
    assert sum(map(len, second.run())) == 2
    for seconds in (600, 3600):
        second.clock += seconds
        second.run()

    assert second.unproven() == 0


def test_new_series_are_sent_until_they_are_created(state: State) -> None:
    """Carbon creates 50 series a minute: 300 new ones are sent each minute until all can be there, then replayed.

    Mutants: replay three times only; repeat series that were created long ago.
    """
    desk = Desk(state, batch=1000)
    desk.record("a", 0, 5, {(f"s{n}", MINUTE): 1 for n in range(300)})
    made: set[str] = set()
    sent_at = []
    for _ in range(75 * 60):
        for lines in desk.run():
            sent_at.append(desk.clock - 1000)
            new = [line.split()[0] for line in lines if line.split()[0] not in made]
            made.update(new[:50])
        desk.clock += 1

    assert sent_at == [60.0 * n for n in range(7)] + [300 + 600, 300 + 3600]
    assert (len(made), desk.unproven()) == (300, 0)
    desk.record("a", 5, 6, {(f"s{n}", MINUTE + 60): 1 for n in range(300)})
    desk.run()
    assert [replay.repeats for replay in desk.courier._proofs.schedule] == [0]


def test_new_series_while_clocks_differ(state: State) -> None:
    """They are sent each minute until Carbon can have created all, also while nothing is proven. Mutant: hold this."""
    desk = Desk(state, batch=1000)
    desk.record("a", 0, 5, {(f"s{n}", MINUTE): 1 for n in range(300)})
    sent_at = []
    for _ in range(75 * 60):
        desk.batches.clear()
        while desk.step(is_trusted=False):
            pass
        sent_at += [desk.clock - 1000] * len(desk.batches)
        desk.clock += 1

    assert (sent_at, desk.unproven()) == ([60.0 * n for n in range(6)], 300)


def test_no_schedule_while_a_round_waits(state: State) -> None:
    """An end while a round waits leaves no schedule: the next process sends all totals that are not proven.

    Mutant: keep the schedule, so that the next process begins behind the totals that wait.
    """
    desk = Desk(state, batch=1)
    desk.record("a", 0, 5, {("x", MINUTE): 1})
    desk.run()
    assert len(desk.courier.schedule()) == 1
    desk.record("a", 5, 9, {("y", MINUTE): 1, ("z", MINUTE): 1})
    desk.step()
    assert desk.courier.schedule() == []
    second = Desk(state, schedule=desk.courier.schedule())

    assert [len(batch) for batch in second.run()] == [3]


def test_has_delivered(state: State) -> None:
    """Totals are delivered once Carbon has confirmed all of them, not when their round is opened."""
    desk = Desk(state, batch=1)
    desk.record("a", 0, 5, {("x", MINUTE): 1, ("y", MINUTE): 1})
    revision = state.revision
    assert not desk.courier.has_delivered(revision)
    desk.step()
    assert not desk.courier.has_delivered(revision)
    desk.run()
    assert desk.courier.has_delivered(revision)
    desk.clock += 60
    desk.step()  # a replay is under way
    assert desk.courier.has_delivered(revision)
    desk.record("a", 5, 6, {("x", MINUTE): 1})

    assert desk.courier.has_delivered(revision)
    assert not desk.courier.has_delivered(state.revision)


def test_history_has_the_datapoints(state: State) -> None:
    """The history has each commit with the datapoints of its job since the commit before, of all batches."""
    desk = Desk(state, batch=2)
    desk.record("a", 0, 5, {("x", MINUTE - 60 * n): 1 for n in range(3)})
    desk.record("b", 0, 7, {("y", MINUTE): 1})
    desk.run()
    desk.record("a", 5, 6, {("x", MINUTE): 1})
    desk.run()
    commits = state._connection.execute("SELECT job, value, datapoints FROM history ORDER BY id").fetchall()

    assert commits == [("b", "7", 1), ("a", "5", 3), ("a", "6", 1)]


def test_untrusted_clock_releases_nothing(state: State) -> None:
    """Deferred totals are released only while the clocks are trusted.

    Mutant: release by any clock.
    """
    desk = Desk(state, archives=TWO)
    desk.record("a", 0, 5, {("x", HOUR + 60): 1}, now=HOUR + 86400)
    late = HOUR + 86400 + 3600 + 600
    for is_trusted, batches in ((False, []), (True, [[f"a.x.count 1 {HOUR}"]])):
        desk.clock += 1  # then the total is released at once
        for _ in range(3):
            desk.step(now=late, is_trusted=is_trusted)
        assert desk.batches == batches


def test_untrusted_clock_sends_nothing_coarse(state: State) -> None:
    """Totals of a coarser archive wait while the clocks are not trusted: by Carbon's clock they may be younger.

    Mutant: send it.
    """
    desk = Desk(state, archives=TWO)
    old = HOUR - 5 * 86400
    desk.record("a", 0, 5, {("x", old): 1, ("x", HOUR): 2}, now=HOUR + 60)
    for _ in range(3):
        desk.step(now=HOUR + 60, is_trusted=False)
    assert desk.batches == [[f"a.x.count 2 {HOUR}"]]
    assert desk.watermark("a") == 0
    desk.clock += 30
    for _ in range(3):
        desk.step(now=HOUR + 60)

    assert desk.batches[1:] == [[f"a.x.count 1 {old}"]]
    assert desk.watermark("a") == 5
