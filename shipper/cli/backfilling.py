"""How a backfill is told, whoever asked for it."""

from collections.abc import Mapping
from typing import Any

from shipper.cli.confirm import Told
from shipper.cli.times import shown


def _backfill_plan(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{facts['job']}: counts again, in whole slots, and replaces in Graphite:"]
    lines += [f"  {shown(start)} up to {shown(end)}" for start, end in facts["spans"]]
    first, last = facts["spans"][0][0], facts["spans"][-1][1]
    if any(start < first or end > last for start, end in facts["asked"]):
        lines += ["  what else was asked for stays as it is: it is to come, too old for Graphite, or may be purged"]
    if facts["ids"] is not None:
        lines += [f"  looks for its rows among {facts['ids']} ids"]
    if facts["resumes_at"] is not None:
        lines += [f"  goes on at {shown(facts['resumes_at'])}, where it was ended"]
    return lines


def _backfilled(result: Mapping[str, Any]) -> str:
    return f"{result['job']}: {result['rows']} rows, {result['datapoints']} datapoints in {result['seconds']} s"


BACKFILL = Told(_backfill_plan, _backfilled)
