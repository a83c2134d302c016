"""Numbers of an audit."""

import math
from collections import Counter

import pytest

from shipper.core.measures import Kind
from shipper.core.verify.audit import Audit, Outcome, audit_of
from shipper.core.verify.reconcile import Comparison, Difference

STEP = 60
LESS = Difference(600, STEP, "a.count", 15, 5.0, Kind.COUNT)
NONE = Difference(600, STEP, "b.count", 2, None, Kind.COUNT)
MORE = Difference(1200, STEP, "a.count", 5, 7.0, Kind.COUNT)
STRAY = Difference(1800, STEP, "a.count", None, 1.0, Kind.COUNT)
HOURLY = Difference(3600, 3600, "a.count", 10, 9.0, Kind.COUNT)
SUM = Difference(600, STEP, "a.amount", 100, 1.0, Kind.SUM)
ENDLESS = Difference(600, STEP, "a.count", 1, math.inf, Kind.COUNT)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([], (0, 0, 0, None, None)),
        ([LESS], (1, 10, 0, 600, 660)),
        ([LESS, NONE], (1, 12, 0, 600, 660)),  # one slot, two series
        ([LESS, MORE, STRAY], (3, 10, 3, 600, 1860)),
        ([HOURLY], (60, 1, 0, 3600, 7200)),  # in slots of the finest archive
        ([SUM], (1, 0, 0, 600, 660)),  # no rows
        ([ENDLESS], (1, 0, 0, 600, 660)),  # infinitely many rows
    ],
)
def test_numbers(differences: list[Difference], expected: tuple[int | None, ...]) -> None:
    """Slots are counted once; rows of counts are missing or surplus, and do not cancel out.

    Mutants: one sum of both; count sums, too; count a slot for each series.
    """
    audit = audit_of(Comparison([], Counter(), 100, 5, 0, differences), STEP, 7)

    assert (audit.different, audit.missing, audit.surplus, audit.start, audit.end) == expected
    assert (audit.at, audit.requested, audit.compared) == (7, 100, 100)


@pytest.mark.parametrize(
    ("audit", "outcome"),
    [
        (Audit(7, 100, 100), Outcome.EQUAL),
        (Audit(7, 100, 50), Outcome.EQUAL),
        (Audit(7, 100, 49), Outcome.INCOMPLETE),
        (Audit(7, 0, 0), Outcome.INCOMPLETE),
        (Audit(7, 100, 49, 1), Outcome.DIFFERENT),
        (Audit(7, error="no answer"), Outcome.FAILED),
    ],
)
def test_outcome(audit: Audit, outcome: Outcome) -> None:
    """Only an audit that compared at least half is equal. Mutants: leave either condition out."""
    assert audit.outcome is outcome
