"""Jobs that could write the same metric path."""

import pytest

from shipper.config.collisions import collisions, shared_nodes


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a.count", "a.count", True),
        ("a.count", "b.count", False),
        ("a.count", "a.b.count", False),
        ("a.{x}.count", "a.b.count", True),
        ("a.{x}.count", "a.{y}.count", True),
        ("a.{x}", "b.{x}", False),
        ("login_{x}", "order_{x}", False),
        ("login_{x}", "log{x}", True),
        ("{x}_a", "{x}_b", False),
        ("{x}_ab", "{x}_b", False),
        ("{x}_ab", "{x}b", True),
        ("login_{x}", "login_", False),
        ("login_{x}", "login_a", True),
        ("a;dc=eu", "a;dc=us", False),
        ("a;dc={x}", "a;dc=us", True),
        ("a;dc=eu", "a", False),
        ("a;dc=eu", "a;env=eu", False),
    ],
)
def test_may_collide(one: str, other: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    """Two templates may collide if every node could be equal."""
    for first, second in ((one, other), (other, one)):
        jobs = [("different", "quite.different"), ("first", first), ("second", second)]
        problems = [problem.message for problem in collisions(jobs, None)]

        assert problems == (['jobs "first" and "second" could write the same metric path'] if expected else [])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("logins@app", "logins_app", True),
        ("logins@app", "logins@eu", False),
        ("logins-app", "logins_app", False),
        ("l" * 100 + "@app", "l" * 100 + "@eu", True),
    ],
)
def test_own_metrics_have_separate_paths(first: str, second: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """The own metrics of two jobs never share a path: one job's alerts would watch the other.

    Mutant: compare names before they become nodes.
    """
    assert len(list(shared_nodes([("one", first), ("two", second)]))) == expected
