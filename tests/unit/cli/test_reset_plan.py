"""The plan of `shipper reset`: which answer fits the table."""

import pytest

from shipper.cli.change import _reset_plan

FACTS = {
    "job": "events",
    "table": "audit_trail",
    "first": 1,
    "first_time": 1_000,
    "largest": 9,
    "largest_time": 8_000,
    "captured": 12,
    "complete_until": 7_000,
    "is_held": True,
    "reason": "its largest id fell to 9; id 12 was captured",
    "known": 8,
    "known_again": 0,
    "choices": (),
}


@pytest.mark.parametrize(
    ("changed", "is_shown"),
    [
        ({}, True),
        ({"first_time": 7_001}, False),  # written after the last tick: the table was emptied
        ({"first_time": None}, False),
        ({"complete_until": None}, False),
        ({"known_again": 3}, False),  # a stronger sign is shown instead
        ({"is_held": False}, False),
    ],
)
def test_sign_of_a_restore(changed: dict[str, object], *, is_shown: bool) -> None:
    """A first row from before "complete until" is a sign of a restore, also if none of the newest rows came back.

    Mutants: leave out one of the conditions.
    """
    risk = "if the table was restored, --emptied and --replaced count its rows twice"
    line = f'  its first row is older than "complete until": {risk}'

    assert (line in _reset_plan(FACTS | changed)) == is_shown
