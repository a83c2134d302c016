"""Which ids a table has: sets of bits, combined by the database, or lists where ids are sparse."""

import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from shipper.core.errors import QueryRefused
from shipper.core.id_set import BITS, FULL, IdSet, Words, words_of
from shipper.core.model import Ids, Query, Window
from shipper.source.access import Access
from shipper.source.connections.connection import Connections
from shipper.source.limits import MOST_COUNT, whole
from shipper.source.result import utc_bucket
from shipper.source.statements.clauses import bounds
from shipper.source.statements.ids import listed, present, unknown
from shipper.source.tables.grants import shared_id

LISTED = 1000
"""Ids in one statement: with about ten thousand, MySQL reads the entire index instead."""
MOST_BITS = 2**21
"""Ids whose bits are sent in one statement: 256 KB, or twice that where each byte is escaped."""
MANY: Words = {}
"""Answer with too many ids, or with one that is no integer, as 5.5 in SQLite."""
SPARSE_WORDS = 1000
"""Words of an answer from which ids are listed if the words have fewer than two ids each, as ids from a clock do."""


class PresentIds:
    """Reader of the ids that exist."""

    def __init__(self, connections: Connections, access: Access) -> None:
        """Remember nothing yet of any table."""
        self._connections, self._access = connections, access
        self._sparse: dict[tuple[str, str], bool] = {}
        """Whether ids of a table, by table and id column, are so sparse that they are listed."""

    def words_by(
        self, query: Query, rows: Window | Ids, aside: Collection[int] = ()
    ) -> dict[int | None, dict[int, int]]:
        """Return the words of ids in rows without some, by bucket; None is the bucket of rows without a time.

        Raises:
            QueryRefused: two rows have the same id.
        """
        # all jobs that look at the table in this snapshot share the answer
        query = query.ids_by_time
        key = (query, rows, *aside)
        if (known := self._connections.recall(key)) is not None:
            return dict(known)
        # merge words of the grain into words of buckets
        by_bucket: dict[int | None, dict[int, int]] = {}
        for part in without(rows, aside):
            for epoch, word, bits, count in self._present(query, part):
                words = by_bucket.setdefault(None if epoch is None else utc_bucket(int(epoch), query), {})
                words[word] = words.get(word, 0) | self.checked(query, rows, word, bits, count)
        self._connections.remember(key, by_bucket)
        return by_bucket

    def unknown(self, query: Query, ranges: Sequence[tuple[int, int]], counted: IdSet) -> Words | None:
        """Return the ids of ranges that have rows and are not counted; None if these are many.

        The server gets the counted ids and sends none of them back, which takes half the time of all words.
        """
        values: dict[str, int | bytes] = {}
        for number, (after, upto) in enumerate(ranges):
            words, keys = counted.within(after, upto), range((after + 1) // BITS, upto // BITS + 1)
            bits = struct.pack(f"<{len(keys)}Q", *(words.get(key, 0) for key in keys))
            names = (f"{name}_{number}" for name in ("after", "upto", "first", "bits"))
            values |= zip(names, (after, upto, keys[0] * BITS, bits), strict=True)
        key = (query.ids_only, *values.values())
        if (known := self._connections.recall(key)) is None:
            with self._connections.connected(f"look for new ids of {query.table}, {Window(*ranges[0])}") as connection:
                answer = connection.execute(unknown(query, len(ranges)), values | {"rows": LISTED + 1}).all()
                self._connections.check_snapshot(connection, query.table, reads_others=False)
                ids = [int(row[0]) for row in answer]
                are_whole = all(row[0] == one for row, one in zip(answer, ids, strict=True))
                known = words_of(ids) if len(ids) <= LISTED and are_whole else MANY
            self._connections.remember(key, known)
        return None if known is MANY else dict(known)

    def checked(self, query: Query, rows: Window | Ids, word: int, bits: int, count: int) -> int:
        """Return the bits of a word that has a number of rows.

        Raises:
            QueryRefused: two rows have the same id.
        """
        bits &= FULL  # PostgreSQL's integers have a sign
        if bits.bit_count() != count:
            different = f"{count} rows have only {bits.bit_count()} different values of {query.id}"
            raise QueryRefused(
                f"read {query.table}, {brief_of(rows)}: {different}",
                hint=shared_id(self._access, query.table, query.id, word * BITS),
            )
        return bits

    def _present(self, query: Query, rows: Window | Ids) -> Iterable[tuple[int | None, int, int, int]]:
        """Return time, word, bits and number of rows, for each word of ids."""
        key = (query.table, query.id)
        # sparse ids: list them, and learn whether they still are sparse
        if query.time is None and self._sparse.get(key) and isinstance(rows, Window):
            with self._connections.connected(f"list the ids of {query.table}, {rows}") as connection:
                text, number = connection.execute(listed(query), bounds(query, rows)).one()
                self._connections.check_snapshot(connection, query.table, reads_others=False)
                body, _, rest = (text or "").rpartition(";")
                counts = Counter(map(int, body.split(";"))) if body else Counter[int]()
            if not rest and counts.total() == number:  # else the server has cut the text
                self._sparse[key] = len({identity // 64 for identity in counts}) * 2 > len(counts)
                return [(None, identity // 64, 1 << identity % 64, count) for identity, count in counts.items()]
        # dense ids: let the database combine them
        statement = present(query, are_listed=not isinstance(rows, Window))
        with self._connections.connected(f"look for ids of {query.table}, {brief_of(rows)}") as connection:
            answer = connection.execute(statement, bounds(query, rows)).all()
            self._connections.check_snapshot(connection, query.table, reads_others=False)
            words = [
                (None if row[0] is None else int(row[0]), int(row[1]), int(row[2]), whole(row[3], 1, MOST_COUNT))
                for row in answer
            ]
        if len(words) >= SPARSE_WORDS:
            self._sparse[key] = sum(row[3] for row in words) < 2 * len(words)
        return words


def without(rows: Window | Ids, aside: Collection[int]) -> Iterator[Window | Ids]:
    """Yield the parts of a window between some ids, or batches of ids without them."""
    if not isinstance(rows, Window):
        ids = tuple(one for one in rows if one not in aside)
        yield from (ids[start : start + LISTED] for start in range(0, len(ids), LISTED))
        return
    after = rows.after
    for one in [*aside, rows.upto + 1]:
        if after < one - 1:
            yield Window(after, one - 1)
        after = one


def brief_of(rows: Window | Ids) -> str:
    """Return rows for a message."""
    return str(rows) if isinstance(rows, Window) else f"{len(rows)} ids from {rows[0]}"
