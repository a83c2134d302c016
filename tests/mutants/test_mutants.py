"""Mutants: mistakes that lose or double rows; each of them must make a test of the core fail.

Mutants of single functions are noted in the docstrings of their tests.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SUITES = (
    *("core/test_late", "core/delivery", "core/test_capture", "core/rows", "core/test_retention", "core/test_changes"),
    *("state", "core/test_names", "core/repair", "core/test_position", "core/test_id_set", "core/verify"),
    "config/test_limits",
    *("core/test_floors", "core/test_machine", "core/test_mending"),  # last, because they take long
)


class Mutant(NamedTuple):
    """A text in the code, and its replacement."""

    file: str
    before: str
    after: str


MUTANTS = {
    "commit before deliver": Mutant(
        "core/delivery/courier.py",
        "        if batch:\n            try:\n",
        "        self._outbox.commit(current.captured, {})\n        if batch:\n            try:\n",
    ),
    "forget what a total was": Mutant("core/rows/totals.py", "self._totals(parts, before)", "self._totals(parts, {})"),
    "add instead of replace": Mutant(
        "core/rows/totals.py",
        "self.recording.take(parts.keys())\n        totals = self._totals(parts, {})",
        "totals = self._totals(parts, self.recording.take(parts.keys()))",
    ),
    "zero for unread time": Mutant(
        "core/rows/zero_fill.py", "Span(first, floor(until, length))", "Span(first, floor(now, length))"
    ),
    "fine points past retention": Mutant(
        "core/retention.py", "return now - slot >= archives[index].duration - EDGE_SECONDS", "return False"
    ),
    "coarse points before their time": Mutant(
        "core/retention.py", "return index == 0 or bucket", "return True or bucket"
    ),
    "take one confirmation for a proof": Mutant(
        "core/delivery/proofs.py", "if stage == len(self._replay):", "if True:"
    ),
    "do not watch Carbon": Mutant("core/delivery/courier.py", "if self._sink.has_died():", "if False:"),
    "let replays prove values that are not stored": Mutant(
        "core/delivery/proofs.py", "return not self.is_held or replay.stage == INVALIDATED", "return True"
    ),
    "read back only values that differ": Mutant(
        "core/delivery/courier.py", "            self._proofs.alarm(clock)", "            pass"
    ),
    "record at any captured id": Mutant(
        "state/recording.py", "WHERE job = :job AND captured = :after", "WHERE job = :job AND :after IS NOT NULL"
    ),
    "zeros have ids": Mutant(
        "state/recording.py", 'none = (str(self._upto), "0")', "none = (str(self._after), str(self._upto))"
    ),
    "continue behind captured": Mutant("core/repair/reset.py", "    ledger.distrust(job.name)", "    return"),
    "reset a job that is not held": Mutant(
        "core/repair/reset.py", "and not is_held and 0 < first <= captured", "and False"
    ),
    "recount slots of the table before": Mutant("state/store.py", "since = MAX(since, :since),", "since = since,"),
    "look back at the table before": Mutant(
        "core/repair/lookback.py", "max(progress.since, lookback_from(", "max(0, lookback_from("
    ),
    "do not look for late rows": Mutant(
        "core/capture.py",
        "        if words:\n            yield from check",
        "        if 0:\n            yield from check",
    ),
    "give up gaps at once": Mutant(
        "core/position.py", "floor = min(self.id_at(late), self.captured", "floor = min(self.captured, self.captured"
    ),
    "let downtime make ids old": Mutant(
        "core/position.py", "min(max(0, horizon.time - self.looked), most)", "max(0, horizon.time - self.looked)"
    ),
    "let a replica make ids old": Mutant("core/position.py", "if self.looked and horizon.makes_old", "if self.looked"),
    "count late rows without their ids": Mutant(
        "core/capture.py", "RecordUpdate(position.with_ids(words), ", "RecordUpdate(position, "
    ),
    "count a window without its ids": Mutant(
        "core/position.py", "self.counted.extended(after, upto) if words is None", "self.counted if words is None"
    ),
    "record with an old position": Mutant(
        "state/positions.py", 'WHERE job = ? AND version = ?"""', 'WHERE job = ? AND ? IS NOT NULL"""'
    ),
    "read counts outside the snapshot": Mutant(
        "core/rows/look.py",
        "words, rows = self.source.words(query, window), self.source.read(query, window)",
        "words = self.source.words(query, window)\n        rows = self.source.read(query, window)",
    ),
    "assume that ids are unique": Mutant(
        "core/rows/look.py", "not self.has_gaps and self.source.is_unique(query)", "not self.has_gaps"
    ),
    "subtract purged rows": Mutant(
        "core/repair/recount.py", "gone += [Window(lost[0] - 1, lost[-1])] if lost else []", "gone += []"
    ),
    "subtract rows purged long ago": Mutant("core/repair/recount.py", "gone.append(Window(after, upto))", "pass"),
    "subtract purged rows of a job with lookback": Mutant(
        "core/repair/recount.py", "min(end, lookback_from(job, progress))", "0"
    ),
    "ask for young gaps only while looks are close": Mutant(
        "core/position.py", "spans = [(self.id_at(EAGER_SECONDS + passed), ", "spans = [(self.id_at(EAGER_SECONDS), "
    ),
    "give up gaps that were not asked for": Mutant(
        "core/position.py",
        "floor = min(self.id_at(late), self.captured if most is None else most)",
        "floor = self.id_at(late)",
    ),
    "forget rows that came with the last question": Mutant(
        "core/position.py", "settled = size_of(clipped(words, 0, self.counted.floor)) if words", "settled = 0 if words"
    ),
    "keep ids below the floor": Mutant(
        "core/id_set.py",
        "kept += _packed(clipped(segment.unpacked, floor, end), (floor + 1) // BITS)",
        "kept += _packed(segment.unpacked, segment.start)",
    ),
    "take a gap for counted ids": Mutant(
        "core/id_set.py", "if self.solid == after and not self.segments:", "if not self.segments:"
    ),
    "store a segment once": Mutant(
        "state/positions.py",
        "if (one.start, one.packed) not in stored))",
        "if one.start not in {start for start, _ in stored}))",
    ),
    "start with rows in flight as counted": Mutant(
        "core/rows/start.py", "floor_id = 0 if oldest is None else oldest - 1", "floor_id = upto"
    ),
    "wait for rows below a given start id": Mutant(
        "core/rows/start.py", 'is_floor=job.start != "now")', "is_floor=False)"
    ),
    "add rows from before the job": Mutant("state/recording.py", "return time < self._begins or any(", "return any("),
    "add late rows of another table": Mutant(
        "core/capture.py", "ledger=self._ledger, adds=True)", "ledger=self._ledger)"
    ),
    "follow the clock back": Mutant(
        "core/capture.py",
        "return max(progress.not_before, floor(horizon.time, job.query.bucket))",
        "return floor(horizon.time, job.query.bucket)",
    ),
    "forget which rows came late": Mutant(
        "core/capture.py", "done = done._replace(late=LateIds(self._bucket, words))", "pass"
    ),
    "read late rows by the range of their ids": Mutant(
        "core/rows/slots.py", "for one in (*elsewhere, *new) if", "for one in new if"
    ),
    "lose new rows of a recount": Mutant(
        "core/repair/recount.py", "        position.with_ids(again.new),", "        position,"
    ),
    "take ids outside a recount for counted": Mutant(
        "core/repair/recount.py",
        "return position.counted.missing(source.words(query, window, span))",
        "return position.counted.missing(source.words(query, window))",
    ),
    "recount outside a snapshot": Mutant(
        "core/repair/recount.py",
        "        with source.snapshot(query):\n            may_have_new = ",
        "        if True:\n            may_have_new = ",
    ),
    "subtract rows ahead of the clock": Mutant(
        "core/repair/recount.py", "end = ahead.start if ahead else ALWAYS.end", "end = ALWAYS.end"
    ),
    "end a bucket with the slot of its total": Mutant(
        "core/repair/recount.py",
        "left = max(slot.slot + max(slot.step, progress.bucket) for",
        "left = max(slot.slot + slot.step for",
    ),
    "take a future row for one without a slot": Mutant(
        "state/store.py", "bucket >= :start AND bucket < :end)), (", "bucket < 0)), ("
    ),
    "leave rows completed before the span as new": Mutant(
        "core/repair/lookback.py",
        "decided = union_of(union_of(cycle.in_span, cycle.new_before), never)",
        "decided = union_of(cycle.in_span, never)",
    ),
    "skip incomplete rows": Mutant(
        "core/repair/lookback.py",
        "young = [one for one in ids_of(cycle.open) if one > oldest][:1]",
        "young: list[int] = []",
    ),
    "wait for incomplete rows as for late ones": Mutant(
        "core/repair/lookback.py",
        "before, late = ledger.position(job.name), max(job.late, job.max_age)",
        "before, late = ledger.position(job.name), job.late",
    ),
    "take one complete window for all": Mutant(
        "core/rows/look.py", "self._complete != (self.source.connection_number, window)", "self._complete is None"
    ),
    "keep positions of a rolled-back transaction": Mutant("state/database.py", "        self._positions.clear()\n", ""),
    "rename without counted ids": Mutant(
        "state/housekeeping.py", "AND columns.name = 'job'", "AND columns.name = 'job' AND tables.name <> 'counted'"
    ),
    "never count rows without an id": Mutant(
        "core/rows/totals.py", "if more := rows - self.recording.rejected(reason):", "if more := 0:"
    ),
    "deliver totals that are not durable": Mutant("state/outbox.py", "self._file.make_durable()  #", "pass  #"),
    "keep recounted slots pruned": Mutant("core/rows/totals.py", "recording.unprune(span)", "pass"),
    "continue within a slot": Mutant(
        "core/rows/start.py", "Target(upto, place and place[0], 0)", "Target(upto, None, 0)"
    ),
    "zeros for skipped slots": Mutant(
        "state/store.py", "zero_filled_until = MAX(zero_filled_until, :not_before, COALESCE(:slot, 0)),", "\n"
    ),
    "recount slots that pruning cuts": Mutant(
        "core/repair/backfill.py", "        start = floor(start, unit)\n", "        pass\n"
    ),
    "prove a series that is not created": Mutant(
        "core/delivery/proofs.py", "minutes_to_create(new_series) - 1", "0 * new_series"
    ),
    "compare incomplete slots": Mutant(
        "core/verify/reconcile.py", "last = min(max(first, latest), end)", "last = max(first, end)"
    ),
    "count cut slots as compared": Mutant(
        "core/verify/reconcile.py", "least = min(least, length)", "least = max(least, length)"
    ),
    "call half mostly left out": Mutant(
        "core/verify/reconcile.py", "2 * self.compared < self.requested", "2 * self.compared <= self.requested"
    ),
    "compare the slot of the oldest row": Mutant(
        "core/verify/reconcile.py", "slot <= purged_upto", "slot < purged_upto"
    ),
    "recount the slot of the oldest row": Mutant(
        "core/repair/backfill.py", "start <= purged_until:", "start < purged_until:"
    ),
    "clear totals outside the span": Mutant("core/repair/backfill.py", " if key.slot in span]", "]"),
    "zeros beyond the zero-filled buckets": Mutant(
        "core/repair/backfill.py", "Span(span.start, min(span.end, progress.zero_filled_until)) if", "span if"
    ),
    "prune deferred totals": Mutant("state/housekeeping.py", "AND changed > 0 LIMIT 1", "AND changed = 1 LIMIT 1"),
    "deferred totals to another Carbon": Mutant("state/outbox.py", "WHERE changed <> 2", "WHERE changed <> 9"),
    "series of another Carbon": Mutant("state/outbox.py", '"UPDATE series SET is_made = 0"', '"SELECT 1"'),
    "no margin at the end of an archive": Mutant(
        "core/retention.py", "newest = now - archive.duration - EDGE_SECONDS", "newest = now - archive.duration"
    ),
    "take distinct values for divisible": Mutant(
        "core/measures.py", "has_zero=True, is_divisible=False", "has_zero=True, is_divisible=True"
    ),
    "forget which slots lack rows": Mutant("core/rows/totals.py", "self.recording.lack(*place, cell.rows)", "pass"),
    "recount distinct values of rows that are gone": Mutant(
        "core/repair/indivisible.py", "is_complete = not (yield from", "is_complete = True or (yield from"
    ),
    "no recount when a bucket is over": Mutant("core/repair/indivisible.py", "return is_over or not", "return not"),
    "a minimum with lookback": Mutant(
        "config/rules.py", "not all(kind.has_zero for", "not all(kind.has_zero or kind == 'min' for"
    ),
}


@pytest.fixture(scope="module")
def ended(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """Run the suites on each chosen mutant, two at a time."""
    chosen = [item.name.partition("[")[2][:-1] for item in request.session.items if item.path == Path(__file__)]
    with ThreadPoolExecutor(2) as executor:
        yield {name: executor.submit(_run, MUTANTS[name], tmp_path_factory.mktemp("mutant")) for name in chosen}


@pytest.mark.timeout(600)  # other mutants may run first
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(name: str, ended: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    """Each mistake makes a test fail."""
    process = ended[name].result()

    assert process.returncode == pytest.ExitCode.TESTS_FAILED, process.stdout[-2000:]
    is_broken = re.search("NameError|UnboundLocalError", process.stdout)
    assert not is_broken, "the mutant fails everywhere, and proves nothing: fix it"


def _run(mutant: Mutant, folder: Path) -> subprocess.CompletedProcess[str]:
    """Make the mistake in a copy of the code, and run the suites there."""
    for name in ("shipper", "tests", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    place = folder / "shipper" / mutant.file
    text = place.read_text()
    assert text.count(mutant.before) == 1, "the code has changed: fix the mutant"
    place.write_text(text.replace(mutant.before, mutant.after))
    suites = [next((folder / "tests/unit").glob(f"{suite}*")).relative_to(folder) for suite in SUITES]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *suites],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "HYPOTHESIS_PROFILE": "mutants"},
        capture_output=True,
        text=True,
        check=False,
    )
