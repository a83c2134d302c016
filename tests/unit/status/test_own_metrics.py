"""Shipper's own metrics: which values are sent, and when."""

from collections.abc import Iterable
from typing import Any

import pytest
from reports import LEADER, NOW, job, report

from shipper.core.errors import DeliveryFailed
from shipper.core.model import Datapoint
from shipper.status.counters import JobCounters
from shipper.status.own_metrics import SelfMetrics
from shipper.status.report import JobReport, JobState, Replication

MINUTE = int(NOW) // 60 * 60


class Carbon:
    """A Carbon that keeps the last value of each path and slot."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, int], Any] = {}
        self.is_up = True

    def deliver(self, datapoints: Iterable[Datapoint]) -> None:
        """Keep datapoints."""
        if not self.is_up:
            raise DeliveryFailed("deliver: refused")
        self.values |= {(path.rpartition(".")[2], slot - MINUTE): value for path, value, slot in datapoints}

    def close(self) -> None:
        """Do nothing."""

    def counted(self, name: str) -> int:
        """Return the sum of a metric."""
        return sum(value for (one, _), value in self.values.items() if one == name)


def process(carbon: Carbon, *jobs: JobReport, sent: Any = None) -> SelfMetrics:
    """Return the own metrics of a process that has just started."""
    receivers: Any = carbon
    return SelfMetrics(
        receivers,
        prefix=None,
        host="web1",
        step=60,
        report=lambda: report(*jobs),
        series=dict[str, int],
        sent=sent or {},
    )


@pytest.mark.parametrize("is_reload", [True, False])
def test_counts_survive_a_new_process(is_reload: bool) -> None:  # noqa: FBT001 - a table
    """Counts add up, although a process, or a changed [graphite], begins in a minute that has counts.

    Mutant: send counts at once; they take the place of those of the process before.
    """
    carbon, before = Carbon(), JobCounters()
    first = process(carbon, job("a", counters=before, late_rows=7))
    first.send(MINUTE)
    before.rows += 100
    first.send(MINUTE + 60)
    after = before if is_reload else JobCounters()
    second = process(carbon, job("a", counters=after, late_rows=7), sent=first.sent if is_reload else None)
    after.rows += 5
    second.send(MINUTE + 90)
    after.rows += 6
    second.send(MINUTE + 120)

    assert (carbon.counted("rows"), carbon.counted("late_rows")) == (111, 0)
    assert carbon.values["up", 60] == 1


def test_counts_of_a_minute_that_failed() -> None:
    """Counts that Carbon did not confirm are in those of the next minute."""
    carbon, counters = Carbon(), JobCounters()
    metrics = process(carbon, job("a", counters=counters))
    metrics.send(MINUTE)
    counters.rows, carbon.is_up = 4, False
    with pytest.raises(DeliveryFailed):
        metrics.send(MINUTE + 60)
    carbon.is_up = True
    metrics.send(MINUTE + 120)

    assert carbon.counted("rows") == 4


def test_job_that_is_gone() -> None:
    """A job that left the configuration is never late: no alert can watch it. Mutant: show the age of its last look."""
    carbon = Carbon()
    process(carbon, job("a", JobState.GONE, counters=None)).send(MINUTE)

    assert ("complete_until_age", 0) not in carbon.values
    assert carbon.values["unproven", 0] == 0


def test_leader() -> None:
    """A leader sends its term, the time of a commit, and the slots sent again since the last minute; others nothing.

    Mutants: send them for a state in a file; send the slots since it leads each minute.
    """
    carbon = Carbon()
    facts: dict[str, Any] = {}
    metrics = process(carbon, job("a", counters=None))
    metrics._report = lambda: report(job("a"), **facts)
    metrics.send(MINUTE)
    assert not {"leader", "term", "push_ms", "late_slots"} & {name for name, _ in carbon.values}
    for minute, slots in enumerate((3, 3, 5), 1):
        facts |= {"leader": LEADER, "replication": Replication(0.0044, slots)}
        metrics.send(MINUTE + 60 * minute)

    assert [carbon.values[name, 120] for name in ("leader", "term", "push_ms")] == [1, 7, 4]
    assert [carbon.values["late_slots", 60 * minute] for minute in (1, 2, 3)] == [3, 0, 2]
