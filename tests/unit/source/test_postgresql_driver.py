"""Messages of PostgreSQL's protocol, counted before libpq keeps them."""

import pytest

from shipper.source.dialects.postgresql_driver import MOST_MESSAGES, _Messages
from shipper.source.limits import MOST_ROWS, AnswerTooLarge

ROW, END = b"D\0\0\0\x0a\0\1\xff\xff\xff\xff", b"C\0\0\0\x0dSELECT 1\0"


@pytest.mark.parametrize(("message", "most"), [(ROW, MOST_ROWS), (END, MOST_MESSAGES)], ids=["rows", "others"])
@pytest.mark.parametrize("block", [3, 64, 65_536])
def test_limits(message: bytes, most: int, block: int) -> None:
    """So many messages are taken, in blocks of any size, and one more is not; the next answer starts at 0.

    Mutants: no limit of rows; headers that two blocks share are lost; `begin` keeps the number.
    """
    messages = _Messages()
    for _ in range(2):
        messages.begin()
        data = message * most
        for first in range(0, len(data), block):
            messages.count(data[first : first + block])
    with pytest.raises(AnswerTooLarge):
        messages.count(message)
