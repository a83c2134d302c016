"""Deliveries in the log."""

import pytest
import structlog
from builders import job

from shipper.core.delivery.courier import Delivered
from shipper.core.rows.table import Event
from shipper.log.results import DeliveryLog, log_event


def test_one_line_a_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that moves a watermark is logged, with the batches before it; others are summed up for a minute.

    Mutants: a line for each batch; forget the batches before; never log what moves no watermark.
    """
    clock, log = [1000.0], DeliveryLog()
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with structlog.testing.capture_logs() as logs:
        for datapoints, watermarks in (
            (5, {}),
            (7, {}),
            (1, {}),
            (3, {"a": 9}),
            (2, {"a": 10}),
            (4, {}),
            (0, {"b": 1}),
        ):
            log.add(Delivered({"a": datapoints}, watermarks, is_replay=False), seconds=0.5)
        clock[0] += 60
        log.add(Delivered({"a": 6}, {}, is_replay=False), seconds=0.5)
        log.add(Delivered({}, {"b": 2}, is_replay=False), seconds=0.5)

    names = ("event", "datapoints", "watermarks", "seconds")
    assert [tuple(one[name] for name in names) for one in logs] == [
        ("delivery.finished", 5, "", 0.5),
        ("delivery.finished", 11, "a:9", 1.5),
        ("delivery.finished", 2, "a:10", 0.5),
        ("delivery.finished", 4, "b:1", 1.0),
        ("delivery.finished", 6, "", 0.5),
    ]


@pytest.mark.parametrize(
    ("event", "hint"),
    [
        (Event("late.shortened", {"late": 75}, "warning"), "asks for each of them for 75 s only"),
        (Event("source.rotated", {"captured": 15, "first": 21}, "warning"), "ids between 15 and 21 were perhaps not"),
    ],
)
def test_hint_has_the_numbers_of_its_event(event: Event, hint: str) -> None:
    """A hint names what the line is about. Mutant: the names of the fields."""
    with structlog.testing.capture_logs() as logs:
        log_event(job(), event)

    assert hint in logs[0]["hint"]
