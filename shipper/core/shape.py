"""What a job counts and under which names, as digests: has the configuration changed its meaning?"""

from functools import lru_cache
from hashlib import sha256

from shipper.core.model import Job

JOBS = 10_000  # are remembered


@lru_cache(JOBS)
def shape_of(job: Job) -> str:
    """Return a digest of everything that decides what a total is the total of."""
    query = job.query
    measures = query.measures if query.sql is None else ()  # of a statement they are known once it was explained
    asked = (query.bucket, query.where, query.where_sql, measures, job.revisit)
    return _digest((*asked, *_places(job)))


@lru_cache(JOBS)
def places_of(job: Job) -> str:
    """Return a digest of everything that decides which path a row adds to, and at which time."""
    return _digest(_places(job))


def _places(job: Job) -> tuple[object, ...]:
    query = job.query
    return job.template, query.by, job.null_as, job.empty_as, query.time, query.zone, query.sql


def _digest(value: object) -> str:
    # repr: plain strings, numbers and tuples, the same in every process
    return sha256(repr(value).encode()).hexdigest()
