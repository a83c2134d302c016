"""Messages of PostgreSQL's protocol, counted before libpq keeps them."""

import pytest

from shipper.source.dialects.postgresql_driver import MOST_MESSAGES, MOST_TEXT_BYTES, _Messages
from shipper.source.limits import MOST_ROWS, MOST_VALUES, AnswerTooLarge

ROW, END = b"D\0\0\0\x0a\0\1\xff\xff\xff\xff", b"C\0\0\0\x0dSELECT 1\0"
COLUMNS = 64
DESCRIPTION, WIDE_ROW = b"T\0\0\0\6\0\x40", b"D\0\0\1\6\0\x40" + COLUMNS * b"\xff\xff\xff\xff"


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


@pytest.mark.parametrize("block", [3, 64, 65_536])
def test_values(block: int) -> None:
    """Rows have at most so many values, which libpq keeps with 16 bytes each. Mutant: take all rows for one column."""
    messages = _Messages()
    data = DESCRIPTION + WIDE_ROW * (MOST_VALUES // COLUMNS)
    for first in range(0, len(data), block):
        messages.count(data[first : first + block])
    with pytest.raises(AnswerTooLarge, match="64 columns"):
        messages.count(WIDE_ROW)


@pytest.mark.parametrize("kind", [b"E", b"N"])
def test_texts(kind: bytes) -> None:
    """An error or notice that is too large is rejected by its header. Mutants: one kind only; no limit."""
    _Messages().count(kind + MOST_TEXT_BYTES.to_bytes(4, "big") + b"SE")
    with pytest.raises(AnswerTooLarge):
        _Messages().count(kind + (MOST_TEXT_BYTES + 1).to_bytes(4, "big") + b"SE")
