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


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({}, "not counted, unless you then run `shipper backfill events --from TIME`"),
        ({"first_time": None}, "not counted, unless you then run `shipper backfill events --from TIME`"),
        ({"first_time": None, "largest_time": None}, "never counted"),  # only a job with `time` can be backfilled
    ],
)
def test_skipped_rows_of_a_restore(times: dict[str, None], expected: str) -> None:
    """The plan names the command that counts skipped rows, as the handbook does. Mutant: "never counted" for all."""
    choice = {"what": "restored", "is_rejected": False, "captured": 20, "ids": 0, "skipped": 8, "unaccounted": 0}

    skipped = f"  ids 13 to 20 are skipped: their rows are {expected}"
    assert skipped in _reset_plan(FACTS | times | {"largest": 20, "choices": [choice]})
