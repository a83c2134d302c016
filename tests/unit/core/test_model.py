"""Digests of a job: a new key cannot be forgotten by them."""

from dataclasses import fields, replace
from typing import Any

import pytest
from builders import job

from shipper.core.measures import Kind, Measure
from shipper.core.model import (
    NO_MEANING,
    SAME_PATHS,
    Archive,
    Condition,
    Job,
    Names,
    Query,
    TimeForm,
    definition_digest,
    path_digest,
    time_digest,
)

OTHER: dict[str, Any] = {
    "name": "other",
    "source": "other",
    "every": 300,
    "start": 7,
    "chunk": 7,
    "template": "other.{action}.{measure}",
    "archives": (Archive(60, 600),),
    "null_as": "other",
    "empty_as": "other",
    "cron": "@daily",
    "cron_zone": "Europe/Berlin",
    "zeros": 60,
    "groups": (("login",),),
    "lookback": 60,
    "max_age": 60,
    "max_groups": 7,
    "title": "other",
    "keep": 60,
    "late": 60,
    "table": "other",
    "id": "other",
    "time": "other",
    "bucket": 300,
    "where": (Condition("action", "in", ("login",)),),
    "where_sql": "1 = 1",
    "by": ("action", "outcome"),
    "by_sql": (("action", "LOWER(action)"),),
    "names": (Names("action", (("1", "login"),)),),
    "measures": (Measure("ms", Kind.SUM, "duration_ms"),),
    "sql": "SELECT 1",
    "time_zone": "Europe/Berlin",
    "time_unit": "ms",
    "time_sql": "created_at",
    "time_form": TimeForm.TEXT,
}
"""Another value for each field of Job and Query, except `query`."""
TIMES = {"time", "time_zone", "time_unit", "time_sql"}
PATHS = {"template", "by", "by_sql", "names", "null_as", "empty_as", "sql", *TIMES}
"""Fields that decide which path a row adds to, and at which time."""


def changed(key: str) -> Job:
    """Return the job of builders with another value of one field."""
    before = job()
    if key in {field.name for field in fields(Query)}:
        return replace(before, query=replace(before.query, **{key: OTHER[key]}))
    return replace(before, **{key: OTHER[key]})


def test_digests_know_every_field() -> None:
    """Every field of Job and Query is decided upon: it has no meaning, keeps the paths, or changes them."""
    every = {field.name for kind in (Job, Query) for field in fields(kind)} - {"query"}

    assert every == NO_MEANING | SAME_PATHS | PATHS
    assert len(every) == len(NO_MEANING) + len(SAME_PATHS) + len(PATHS)
    assert len(every) == len(fields(Job)) - 1 + len(fields(Query))  # no name is a field of both


@pytest.mark.parametrize("key", OTHER)
def test_digests_of_another_value(key: str) -> None:
    """A digest changes with the fields that it is for, and with no others.

    Mutant: measures leave the definition where no sql is given.
    """
    before, after = job(), changed(key)

    assert (definition_digest(before) == definition_digest(after)) == (key in NO_MEANING)
    assert (path_digest(before) == path_digest(after)) == (key in NO_MEANING | SAME_PATHS)
    assert (time_digest(before) == time_digest(after)) == (key not in {*TIMES, "sql"})


def test_digest_of_sql_measures() -> None:
    """The measures of a statement are not part of its digest: they are known once the database has explained it."""
    before = job(sql="SELECT 1")
    after = replace(before, query=replace(before.query, measures=OTHER["measures"]))

    assert definition_digest(before) == definition_digest(after)
