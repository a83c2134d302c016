"""The lease: how long this process may send."""

from shipper.core.lease import Lease


def test_lease_counts_from_the_question() -> None:
    """An answer that came late renews no longer than one that came at once. Mutant: count from the answer."""
    lease = Lease(10)
    assert lease.left(0) == 0
    lease.renew(100)
    assert [lease.left(now) for now in (100, 104, 110, 200)] == [10, 6, 0, 0]
    lease.renew(95)  # of a question that was asked before
    assert lease.left(104) == 6


def test_end() -> None:
    """Nothing is left of a lease that has ended."""
    lease = Lease(10)
    lease.renew(100)
    lease.end()
    assert lease.left(100) == 0
