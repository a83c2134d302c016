"""Mutants: mistakes that lose or double rows; each of them must make a unit test of the core fail.

The table names that test beside the mistake. Mutants of single functions are noted in the docstrings of their tests.
"""

import re
from collections.abc import Iterator
from multiprocessing.pool import AsyncResult
from pathlib import Path

import pytest
from fresh import fresh_processes
from mutating import Ended, Mutant, run

MUTANTS = {
    "commit before deliver": Mutant(
        "core/delivery/courier.py",
        "        if batch:\n            try:\n",
        "        self._outbox.commit(current.captured, {})\n        if batch:\n            try:\n",
        "core/delivery/test_courier.py::test_watermark_moves_with_last_batch",
    ),
    "forget what a total was": Mutant(
        "core/rows/totals.py",
        "self._totals(parts, before)",
        "self._totals(parts, {})",
        "core/rows/test_seek.py::test_rows_are_passed",
    ),
    "add instead of replace": Mutant(
        "core/rows/totals.py",
        "self.recording.take(parts.keys())\n        totals = self._totals(parts, {})",
        "totals = self._totals(parts, self.recording.take(parts.keys()))",
        "core/rows/test_seek.py::test_put_off",
    ),
    "count a bucket again of which a part was pruned": Mutant(
        "core/repair/recount.py",
        "if start < (pruned := ",
        "if False and (pruned := ",
        "core/test_changes.py::test_bucket_longer_than_what_is_pruned_together",
    ),
    "let a recount swallow a late row that is too late": Mutant(
        "core/repair/recount.py",
        "if start < (pruned := ",
        "if False and (pruned := ",
        "core/test_changes.py::test_late_row_while_a_recount_is_limited",
    ),
    "merge what pruning left of a day": Mutant(
        "state/outbox.py",
        "(:start IS NULL OR series IN",
        "(:start IS NULL OR NULL IN",
        "core/test_archives_change.py::test_last_step_gets_longer_while_an_hour_waits",
    ),
    "reject rows until the first longer bucket ends": Mutant(
        "core/capture.py",
        "if progress.since <= progress.begins and floor(first, length) <= progress.begins:",
        "if False:",
        "core/test_capture.py::test_bucket_longer_within_the_first",
    ),
    "forget the buckets of rejected rows with their names": Mutant(
        "state/store.py",
        "if digest != progress.time_digest:",
        "if True:",
        "core/test_changes.py::test_rejected_rows_of_former_names",
    ),
    "count ids of before the start as settled": Mutant(
        "core/repair/lookback.py",
        "decided = position.counted.missing(union_of(union_of(cycle.in_span, cycle.new_before), never))",
        "decided = union_of(union_of(cycle.in_span, cycle.new_before), never)",
        "core/repair/test_lookback.py::test_start_behind_an_id_and_another_definition",
    ),
    "look back from a clock that was ahead": Mutant(
        "core/repair/lookback.py",
        "        horizon.time,\n        low=",
        "        max(horizon.time, progress.complete_until),\n        low=",
        "core/repair/test_lookback.py::test_row_that_changes_after_clocks_were_ahead",
    ),
    "let low pass rows when a clock is set back": Mutant(
        "core/repair/lookback.py",
        "low=passed if horizon.time >= progress.complete_until else",
        "low=passed if True else",
        "core/repair/test_lookback.py::test_clock_that_was_set_back",
    ),
    "zero for unread time": Mutant(
        "core/rows/zero_fill.py",
        "Span(first, floor(until, length))",
        "Span(first, floor(now, length))",
        "core/test_changes.py::test_no_zero_for_unread_time",
    ),
    "fine points past retention": Mutant(
        "core/retention.py",
        "return now - slot >= archives[index].duration - EDGE_SECONDS",
        "return False",
        "core/test_retention.py::test_slots_of_an_hour_leave_together",
    ),
    "coarse points before their time": Mutant(
        "core/retention.py",
        "return index == 0 or bucket",
        "return True or bucket",
        "core/test_retention.py::test_hour_is_due_once_all_of_it_has_left",
    ),
    "take one confirmation for a proof": Mutant(
        "core/delivery/proofs.py",
        "if stage == len(self._replay):",
        "if True:",
        "core/delivery/test_courier.py::test_waiting_is_what_carbon_has_not_confirmed",
    ),
    "do not watch Carbon": Mutant(
        "core/delivery/courier.py",
        "if self._sink.has_died():",
        "if False:",
        "core/delivery/test_courier.py::test_killed_carbon_gets_all_again",
    ),
    "let replays prove values that are not stored": Mutant(
        "core/delivery/proofs.py",
        "return not self.is_held or replay.stage == INVALIDATED",
        "return True",
        "core/delivery/test_courier.py::test_relay_that_hangs",
    ),
    "read back only values that differ": Mutant(
        "core/delivery/courier.py",
        "            self._proofs.alarm(clock)",
        "            pass",
        "core/delivery/test_readings.py::test_receiver_stores_nothing",
    ),
    "record at any captured id": Mutant(
        "state/recording.py",
        "WHERE job = :job AND captured = :after",
        "WHERE job = :job AND :after IS NOT NULL",
        "state/test_store.py::test_window_that_does_not_follow",
    ),
    "zeros have ids": Mutant(
        "state/recording.py",
        'none = (str(self._upto), "0")',
        "none = (str(self._after), str(self._upto))",
        "core/repair/test_backfill.py::test_ticks",
    ),
    "continue behind captured": Mutant(
        "core/repair/reset.py",
        "    ledger.distrust(job.name)",
        "    return",
        "core/repair/test_reset.py::test_plan",
    ),
    "reset a job that is not held": Mutant(
        "core/repair/reset.py",
        "and not is_held and 0 < first <= captured",
        "and False",
        "core/repair/test_reset.py::test_would_double",
    ),
    "recount slots of the table before": Mutant(
        "state/store.py",
        "since = MAX(since, :since, -- slots that are ahead have rows of the old table, too\n"
        "            COALESCE((SELECT MAX(slot + step) FROM slot WHERE slot.job = :job), 0)),",
        "since = since,",
        "core/test_late.py::test_changed_after_it_was_emptied",
    ),
    "look back at the table before": Mutant(
        "core/repair/lookback.py",
        "bucket = max(progress.since, lookback_from(",
        "bucket = max(0, lookback_from(",
        "core/repair/test_lookback.py::test_every_end_is_counted_once",
    ),
    "do not look for late rows": Mutant(
        "core/capture.py",
        "        if words:\n            yield from check",
        "        if 0:\n            yield from check",
        "core/test_capture.py::test_captured_at_once",
    ),
    "give up gaps at once": Mutant(
        "core/position.py",
        "floor = min(self.id_at(late), self.captured",
        "floor = min(self.captured, self.captured",
        "core/test_position.py::test_when_gaps_are_asked_for",
    ),
    "let downtime make ids old": Mutant(
        "core/position.py",
        "min(max(0, horizon.time - self.looked), most)",
        "max(0, horizon.time - self.looked)",
        "core/test_position.py::test_age_of_a_look",
    ),
    "let a replica make ids old": Mutant(
        "core/position.py",
        "if self.looked and horizon.makes_old",
        "if self.looked",
        "core/test_position.py::test_lag_makes_nothing_old",
    ),
    "count late rows without their ids": Mutant(
        "core/capture.py",
        "RecordUpdate(position.with_ids(words), ",
        "RecordUpdate(position, ",
        "core/test_capture.py::test_captured_at_once",
    ),
    "count a window without its ids": Mutant(
        "core/position.py",
        "self.counted.extended(after, upto) if words is None",
        "self.counted if words is None",
        "core/test_position.py::test_behind_a_window",
    ),
    "record with an old position": Mutant(
        "state/positions.py",
        'WHERE job = ? AND version = ?"""',
        'WHERE job = ? AND ? IS NOT NULL"""',
        "core/repair/test_backfill.py::test_backfill_beside_an_older_position",
    ),
    "read counts outside the snapshot": Mutant(
        "core/rows/look.py",
        "words, rows = self.source.words(query, window), self.source.read(query, window)",
        "words = self.source.words(query, window)\n        rows = self.source.read(query, window)",
        "core/rows/test_look.py::test_snapshot_where_ids_are_missing",
    ),
    "read ahead beside a late row": Mutant(
        "core/rows/look.py",
        "if answer is None or before.counted.missing(",
        "if answer is None or 0 and before.counted.missing(",
        "core/rows/test_look.py::test_late_row_ahead",
    ),
    "check a table before it is read ahead": Mutant(
        "core/capture.py",
        "look.read_ahead(job, progress.captured, position)\n    yield from check(job, progress, position, "
        "look=look, ledger=ledger)\n",
        "pass\n    yield from check(job, progress, position, look=look, ledger=ledger)\n    "
        "look.read_ahead(job, progress.captured, position)\n",
        "core/test_capture.py::test_table_replaced_behind_a_reading",
    ),
    "assume that ids are unique": Mutant(
        "core/rows/look.py",
        "not self.has_gaps and self.source.is_unique(query)",
        "not self.has_gaps",
        "core/rows/test_look.py::test_ids_not_proven_unique",
    ),
    "subtract purged rows": Mutant(
        "core/repair/recount.py",
        "gone += [Window(lost[0] - 1, lost[-1])] if lost else []",
        "gone += []",
        "core/repair/test_gate.py::test_slots_of_a_backfill",
    ),
    "subtract rows purged long ago": Mutant(
        "core/repair/recount.py",
        "gone.append(Window(after, upto))",
        "pass",
        "core/repair/test_gate.py::test_settled_as_long_as_its_slots",
    ),
    "subtract purged rows of a job with lookback": Mutant(
        "core/repair/recount.py",
        "min(end, lookback_from(job, progress))",
        "0",
        "core/repair/test_gate.py::test_lookback_slots",
    ),
    "ask for young gaps only while looks are close": Mutant(
        "core/position.py",
        "spans = [(self.id_at(EAGER_SECONDS + passed), ",
        "spans = [(self.id_at(EAGER_SECONDS), ",
        "core/test_position.py::test_when_gaps_are_asked_for",
    ),
    "give up gaps that were not asked for": Mutant(
        "core/position.py",
        "floor = min(self.id_at(late), self.captured if most is None else most)",
        "floor = self.id_at(late)",
        "core/test_position.py::test_only_what_was_asked_for_is_given_up",
    ),
    "give up blocks of ids that are in use": Mutant(
        "core/capture.py",
        "(position.renewed(words) if words else position)",
        "position",
        "core/test_late.py::test_ids_of_an_old_block",
    ),
    "forget rows that came with the last question": Mutant(
        "core/position.py",
        "settled = size_of(clipped(words, 0, self.counted.floor)) if words",
        "settled = 0 if words",
        "core/test_position.py::test_settled_ids_are_counted",
    ),
    "keep ids below the floor": Mutant(
        "core/id_set.py",
        "kept += _packed(clipped(segment.unpacked, floor, end), (floor + 1) // BITS)",
        "kept += _packed(segment.unpacked, segment.start)",
        "core/test_id_set.py::test_raised",
    ),
    "take a gap for counted ids": Mutant(
        "core/id_set.py",
        "if self.solid == after and not self.segments:",
        "if not self.segments:",
        "core/test_id_set.py::test_extended_behind_a_gap",
    ),
    "store a segment once": Mutant(
        "state/positions.py",
        "if (one.start, one.packed) not in known))",
        "if one.start not in {start for start, _ in known}))",
        "core/test_late.py::test_two_jobs_pass_a_row_at_different_times",
    ),
    "start with rows in flight as counted": Mutant(
        "core/rows/start.py",
        "floor_id = 0 if oldest is None else oldest - 1",
        "floor_id = upto",
        "core/rows/test_seek.py::test_rows_in_flight_come_later",
    ),
    "wait for rows below a given start id": Mutant(
        "core/rows/start.py",
        'is_floor=job.start != "now")',
        "is_floor=False)",
        "core/test_late.py::test_start_is_a_floor",
    ),
    "add rows from before the job": Mutant(
        "state/recording.py",
        "return time < self._begins or any(",
        "return any(",
        "core/test_capture.py::test_rows_of_before_the_job",
    ),
    "add late rows of another table": Mutant(
        "core/capture.py",
        "ledger=self._ledger, adds=True)",
        "ledger=self._ledger)",
        "core/test_late.py::test_late_row_of_a_table_that_went_back",
    ),
    "follow the clock back": Mutant(
        "core/capture.py",
        "self._bucket = max(progress.not_before, floor(self._horizon.time, job.query.bucket))",
        "self._bucket = floor(self._horizon.time, job.query.bucket)",
        "core/test_late.py::test_clock_back_without_a_time",
    ),
    "forget which rows came late": Mutant(
        "core/capture.py",
        "done = done._replace(late=LateIds(self._bucket, words))",
        "pass",
        "core/test_late.py::test_late_rows_without_a_time",
    ),
    "read late rows by the range of their ids": Mutant(
        "core/rows/slots.py",
        "for one in (*elsewhere, *new) if",
        "for one in new if",
        "core/repair/test_backfill.py::test_late_rows_of_ticks",
    ),
    "lose new rows of a recount": Mutant(
        "core/repair/recount.py",
        "        position.with_ids(again.new),",
        "        position,",
        "core/test_changes.py::test_row_that_comes_with_the_recount",
    ),
    "take ids outside a recount for counted": Mutant(
        "core/rows/slots.py",
        "within = span if job.query.sql is None else None",
        "within = None",
        "core/repair/test_backfill.py::test_late_row_beside_a_backfill",
    ),
    "recount outside a snapshot": Mutant(
        "core/repair/recount.py",
        "        with source.snapshot(query):\n            new = uncounted(",
        "        if True:\n            new = uncounted(",
        "core/test_changes.py::test_row_that_comes_amid_a_recount",
    ),
    "subtract rows ahead of the clock": Mutant(
        "core/repair/recount.py",
        "end = ahead.start if ahead else ALWAYS.end",
        "end = ALWAYS.end",
        "core/test_changes.py::test_recount_while_clocks_are_back",
    ),
    "end a bucket with the slot of its total": Mutant(
        "core/repair/recount.py",
        "left = max(ceil(slot.slot + 1, math.lcm(slot.step, progress.multiple)) for",
        "left = max(slot.slot + slot.step for",
        "core/test_changes.py::test_shorter_buckets_after_a_purge",
    ),
    "cut a bucket of the former definition": Mutant(
        "core/capture.py",
        "uncut_from(max(first, progress.since), length, progress.bucket)",
        "ceil(max(first, progress.since), length)",
        "core/test_changes.py::test_bucket_is_no_multiple",
    ),
    "take a longer bucket for a short one": Mutant(
        "core/repair/recount.py",
        "math.lcm(slot.step, progress.multiple)",
        "math.lcm(slot.step, progress.bucket)",
        "core/repair/test_indivisible.py::test_longer_bucket_of_which_a_row_is_gone",
    ),
    "take a future row for one without a slot": Mutant(
        "state/store.py",
        "bucket >= :start AND bucket < :end)), (",
        "bucket < 0)), (",
        "core/test_changes.py::test_row_of_the_future_whose_time_comes_with_a_recount",
    ),
    "leave rows completed before the span as new": Mutant(
        "core/repair/lookback.py",
        "union_of(cycle.in_span, cycle.new_before)",
        "cycle.in_span",
        "core/repair/test_lookback.py::test_completed_before_the_span",
    ),
    "skip incomplete rows": Mutant(
        "core/repair/lookback.py",
        "young = [one for one in ids_of(cycle.open) if one > oldest][:1]",
        "young: list[int] = []",
        "core/repair/test_lookback.py::test_open_row_that_was_seen",
    ),
    "wait for incomplete rows as for late ones": Mutant(
        "core/repair/lookback.py",
        "before, late = ledger.position(job.name), max(job.late, job.max_age)",
        "before, late = ledger.position(job.name), job.late",
        "core/repair/test_lookback.py::test_gap_that_is_older_than_late",
    ),
    "take one complete window for all": Mutant(
        "core/rows/look.py",
        "self._complete != (self.source.connection_number, window)",
        "self._complete is None",
        "core/rows/test_look.py::test_whole_window_of_some",
    ),
    "keep positions of a rolled-back transaction": Mutant(
        "state/database.py",
        "        self._positions.clear()\n",
        "",
        "state/test_store.py::test_gathered_cannot_be_committed",
    ),
    "rename without counted ids": Mutant(
        "state/housekeeping.py",
        "AND columns.name = 'job'",
        "AND columns.name = 'job' AND tables.name <> 'counted'",
        "state/test_housekeeping.py::test_rename_with_unproven_totals",
    ),
    "never count rows without an id": Mutant(
        "core/rows/totals.py",
        "if more := rows - self.recording.rejected(reason):",
        "if more := 0:",
        "core/rows/test_without_id.py::test_rows_without_id_are_counted",
    ),
    "deliver totals that are not durable": Mutant(
        "state/outbox.py",
        "self._file.reading_durable(",
        "self._file.reading(",
        "state/test_store.py::test_gathered_is_durable_before_it_is_noted",
    ),
    "keep recounted slots pruned": Mutant(
        "core/rows/totals.py",
        "recording.unprune(span)",
        "pass",
        "core/repair/test_backfill.py::test_what_was_pruned_is_counted_again",
    ),
    "continue within a slot": Mutant(
        "core/rows/start.py",
        "Target(upto, place and place[0], 0)",
        "Target(upto, None, 0)",
        "core/rows/test_seek.py::test_rows_are_passed",
    ),
    "zeros for skipped slots": Mutant(
        "state/store.py",
        "zero_filled_until = MAX(zero_filled_until, :not_before, COALESCE(:slot, 0)),",
        "\n",
        "core/rows/test_seek.py::test_ticks",
    ),
    "recount slots that pruning cuts": Mutant(
        "core/repair/backfill.py",
        "        start = floor(start, unit)\n",
        "        pass\n",
        "core/repair/test_backfill.py::test_what_was_pruned_together_is_counted_together",
    ),
    "prove a series that is not created": Mutant(
        "core/delivery/proofs.py",
        "minutes_to_create(new_series) - 1",
        "0 * new_series",
        "core/delivery/test_courier.py::test_new_series_are_sent_until_they_are_created",
    ),
    "compare incomplete slots": Mutant(
        "core/verify/reconcile.py",
        "last = min(max(first, latest), end)",
        "last = max(first, end)",
        "core/verify/test_reach.py::test_reach",
    ),
    "count cut slots as compared": Mutant(
        "core/verify/reconcile.py",
        "least = min(least, length)",
        "least = max(least, length)",
        "core/verify/test_reach.py::test_longer_steps_in_graphite",
    ),
    "call half mostly left out": Mutant(
        "core/verify/reconcile.py",
        "2 * self.compared < self.requested",
        "2 * self.compared <= self.requested",
        "core/verify/test_reach.py::test_less_than_half",
    ),
    "compare the slot of the oldest row": Mutant(
        "core/verify/reconcile.py",
        "slot <= purged_upto",
        "slot < purged_upto",
        "core/verify/test_reach.py::test_slot_of_the_oldest_row",
    ),
    "recount the slot of the oldest row": Mutant(
        "core/repair/backfill.py",
        "start <= purged_until:",
        "start < purged_until:",
        "core/repair/test_backfill.py::test_first_slot",
    ),
    "clear totals outside the span": Mutant(
        "core/repair/backfill.py",
        " if key.slot in span]",
        "]",
        "core/repair/test_backfill.py::test_cleared_bars_outside",
    ),
    "zeros beyond the zero-filled buckets": Mutant(
        "core/repair/backfill.py",
        "Span(span.start, min(span.end, progress.zero_filled_until)) if",
        "span if",
        "core/repair/test_backfill.py::test_late_rows_of_ticks",
    ),
    "prune deferred totals": Mutant(
        "state/housekeeping.py",
        "AND changed > 0 LIMIT 1",
        "AND changed = 1 LIMIT 1",
        "state/test_housekeeping.py::test_prune_keeps_unproven",
    ),
    "deferred totals to another Carbon": Mutant(
        "state/outbox.py",
        'revision = ? WHERE changed <> 2"\n',
        'revision = ? WHERE changed <> 9"\n',
        "state/test_housekeeping.py::test_another_carbon",
    ),
    "series of another Carbon": Mutant(
        "state/outbox.py",
        '"UPDATE series SET is_made = 0"',
        '"SELECT 1"',
        "state/test_housekeeping.py::test_another_carbon",
    ),
    "no margin at the end of an archive": Mutant(
        "core/retention.py",
        "newest = now - archive.duration - EDGE_SECONDS",
        "newest = now - archive.duration",
        "core/test_retention.py::test_parts",
    ),
    "take distinct values for divisible": Mutant(
        "core/measures.py",
        "has_zero=True, is_divisible=False",
        "has_zero=True, is_divisible=True",
        "core/repair/test_indivisible.py::test_windows_are_not_added_up",
    ),
    "forget which slots lack rows": Mutant(
        "core/rows/totals.py",
        "self.recording.lack(*place, cell.rows)",
        "pass",
        "core/repair/test_indivisible.py::test_windows_are_not_added_up",
    ),
    "recount distinct values of rows that are gone": Mutant(
        "core/repair/indivisible.py",
        "is_complete = not (yield from",
        "is_complete = True or (yield from",
        "core/repair/test_indivisible.py::test_rows_that_are_gone",
    ),
    "no recount when a bucket is over": Mutant(
        "core/repair/indivisible.py",
        "return is_over or not",
        "return not",
        "core/repair/test_indivisible.py::test_open_slot_every_sixtieth",
    ),
    "a minimum with lookback": Mutant(
        "config/rules.py",
        "not all(kind.has_zero for",
        "not all(kind.has_zero or kind == 'min' for",
        "config/test_limits.py::test_limit",
    ),
    # rules of a lease, in the order of what they protect: the state, then Carbon
    "push nothing": Mutant(
        "state/database.py",
        "database.push(list(rows.values()))",
        "pass",
        "state/test_state_databases.py::test_commits_are_mirrored",
    ),
    "mirror no deleted rows": Mutant(
        "state/remote/mirror.py",
        '("DELETE", old), ',
        "",
        "state/test_state_databases.py::test_commits_are_mirrored",
    ),
    "lead on with another state than the database": Mutant(
        "state/database.py",
        "            self._is_ahead = True\n            self._lose_lease(error)\n",
        "",
        "state/test_state_databases.py::test_push_fails",
    ),
    "load the rows of a newer program": Mutant(
        "state/remote/working_copy.py",
        "if version > len(VERSIONS):",
        "if False:",
        "state/test_state_databases.py::test_newer_rows_are_refused",
    ),
    "trust a lease from the answer": Mutant(
        "core/lease.py",
        "asked_at + self.seconds",
        "asked_at + 2 * self.seconds",
        "core/test_lease.py::test_lease_counts_from_the_question",
    ),
    "count a lease from the answer": Mutant(
        "state/remote/database.py",
        'asked_at = clock()\n            values = {"term": self.term, "writes": self._writes, "configuration": '
        "self.configuration}\n            beaten, slots, numbers = row_of(self._led().execute(_BEAT, values))\n",
        'values = {"term": self.term, "writes": self._writes, "configuration": '
        "self.configuration}\n            beaten, slots, numbers = row_of(self._led().execute(_BEAT, values))\n"
        "            asked_at = clock()\n",
        "state/test_isolated_server.py::test_lease_counts_from_the_question",
    ),
    "stop the clock of a lease in suspend": Mutant(
        "state/remote/database.py",
        "time.CLOCK_BOOTTIME",
        "time.CLOCK_MONOTONIC",
        "state/test_isolated_server.py::test_lease_counts_from_the_question",
    ),
    "renew a lease without a write": Mutant(
        "state/remote/database.py",
        "UPDATE lease SET beat = clock_timestamp(), writes = writes + 1, configuration = %(configuration)s\n"
        "        WHERE term = %(term)s AND writes = %(writes)s RETURNING 1)",
        "SELECT 1 FROM lease WHERE term = %(term)s)",
        "state/test_isolated_server.py::test_lease_is_not_renewed",
    ),
    "renew a lease that no other server knows": Mutant(
        "state/remote/database.py",
        '"synchronous_commit": "on"',
        '"synchronous_commit": "off"',
        "state/test_isolated_server.py::test_lease_is_not_renewed",
    ),
    "renew a lease by a cancelled wait": Mutant(
        "state/remote/database.py",
        "        self._require_replicated()\n        self.lease.renew(asked_at)",
        "        self.lease.renew(asked_at)",
        "state/test_isolated_server.py::test_lease_is_not_renewed",
    ),
    "lead on after a lost lease": Mutant(
        "runtime/leadership.py",
        "if self._database.is_lost or self._fence.was_late:",
        "if self._fence.was_late:",
        "runtime/test_leadership.py::test_lost_lease_ends_the_process",
    ),
    "lead on after a late delivery": Mutant(
        "runtime/leadership.py",
        "if self._database.is_lost or self._fence.was_late:",
        "if self._database.is_lost:",
        "runtime/test_leadership.py::test_late_delivery_ends_the_process",
    ),
    "lead on after a long stop in the load": Mutant(
        "state/remote/working_copy.py",
        "    database.beat()  #",
        "    pass  #",
        "state/test_state_databases.py::test_stopped_while_loading",
    ),
    "convert the state without renewing the lease": Mutant(
        "state/database.py",
        "opening.enter_context(renewing(database))",
        "pass",
        "state/test_state_databases.py::test_migration_longer_than_the_lease",
    ),
    "end before the delivery at hand": Mutant(
        "graphite/receivers.py",
        "self._sending.acquire()",
        "pass",
        "graphite/test_fence.py::test_close_waits_for_the_delivery",
    ),
    "send without a lease": Mutant(
        "graphite/receivers.py",
        "if self.was_late or left < LEAST_SHARE * self._lease.seconds:",
        "if False:",
        "graphite/test_fence.py::test_nothing_begins_without_a_lease",
    ),
    "send for longer than the lease": Mutant(
        "graphite/receivers.py",
        "current.timeout = min(self._timeouts[current], left)",
        "current.timeout = self._timeouts[current]",
        "graphite/test_fence.py::test_nothing_begins_without_a_lease",
    ),
    "do not notice a late delivery": Mutant(
        "graphite/receivers.py",
        "self.was_late |= not self._lease.left(self._clock())",
        "pass",
        "graphite/test_fence.py::test_delivery_that_outlasts_the_lease",
    ),
    "do not tell what was sent late": Mutant(
        "state/remote/working_copy.py",
        "FROM total WHERE changed = 1",
        "FROM total WHERE changed > 2",
        "core/test_two_machines.py::test_late_batch",
    ),
    "do not send again what another sent late": Mutant(
        "state/outbox.py",
        "WHERE changed <> 2 AND (slot, step) IN (",
        "WHERE changed = 1 AND (slot, step) IN (",
        "core/test_two_machines.py::test_late_batch",
    ),
    "read back after a take-over": Mutant(
        "core/delivery/proofs.py",
        "self._reads_back and current.after >= self._replayed",
        "self._reads_back",
        "core/delivery/test_readings.py::test_totals_of_a_former_leader",
    ),
}


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest) -> Iterator[dict[str, AsyncResult[Ended]]]:
    """Run the test of each chosen mutant, two at a time."""
    chosen = [item.name.partition("[")[2][:-1] for item in request.session.items if item.path == Path(__file__)]
    mutants = {name: MUTANTS[name] for name in chosen if name}
    with fresh_processes(2) as processes:
        yield {name: processes.apply_async(run, (one, [one.killer])) for name, one in mutants.items()}


@pytest.mark.timeout(600)  # other mutants may run first
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(name: str, ended: dict[str, AsyncResult[Ended]]) -> None:
    """Each mistake makes its test fail."""
    exit_code, output = ended[name].get()

    assert exit_code == pytest.ExitCode.TESTS_FAILED, f"not killed by {MUTANTS[name].killer}:\n{output[-2000:]}"
    is_broken = re.search("NameError|UnboundLocalError", output)
    assert not is_broken, "the mutant fails everywhere, and proves nothing: fix it"


def test_killers_pass_without_a_mutant() -> None:
    """Without a mistake the same tests pass."""
    with fresh_processes(1) as processes:
        exit_code, output = processes.apply(run, (None, sorted({one.killer for one in MUTANTS.values()})))

    assert exit_code == pytest.ExitCode.OK, output[-2000:]
