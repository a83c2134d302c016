"""What a statement of one's own may give."""

import pytest
from builders import query

from shipper.errors import QueryRefused
from shipper.source.statement import labels_of

ASKED = query(sql="...", time="bucket")


def test_measures_are_what_is_left() -> None:
    """What is neither a label nor the bucket is a measure."""
    assert labels_of(ASKED, ["action", "count", "bucket", "ms"]) == ["count", "ms"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (["bucket", "n"], "has no column 'action'"),
        (["action", "n"], "has no column 'bucket'"),
        (["action", "bucket"], "has no measure"),
        (["action", "bucket", "n", "n"], "the column 'n' cannot be"),
        (["action", "bucket", "COUNT(*)"], "cannot be a measure's name"),
        (["action", "bucket", "a.b"], "cannot be a measure's name"),
    ],
)
def test_refused(columns: list[str], reason: str) -> None:
    """A result that would lose or mix up numbers is refused."""
    with pytest.raises(QueryRefused, match=reason):
        labels_of(ASKED, columns)
