"""From a section to jobs: one for each of its sources, with its query and the template of its paths."""

from dataclasses import fields
from typing import Any

from shipper.config.keys import File, GraphiteSection, JobSection, SourceSection
from shipper.config.rules import BUCKET, SOURCE, has_time, sources_of
from shipper.core.measures import Measure
from shipper.core.model import Condition, Job, Names, Query
from shipper.core.paths import MEASURE, label


def jobs_of(name: str, section: JobSection, parsed: File) -> list[Job]:
    """Return a job for each source of a section."""
    sources = sources_of(section, parsed)
    return [_job(name if len(sources) == 1 else f"{name}@{source}", section, source, parsed) for source in sources]


def _job(name: str, section: JobSection, source: str, parsed: File) -> Job:
    own = {
        "name": name,
        "source": source,
        "query": _query(section),
        "every": None if section.cron else section.every,
        "template": _template(section, source, parsed.graphite),
        "archives": parsed.graphite.retentions,
        "groups": tuple(tuple(label(value) for value in group) for group in section.groups),
        "max_groups": parsed.limits.series,
        "keep": parsed.state.keep,
        "late": parsed.source.get(source, SourceSection()).late,  # rules.py reports a source that is missing
    }
    return Job(**_copied(section, Job) | own)


def _query(section: JobSection) -> Query:
    own = {
        "time": _time_of(section),
        "where": tuple(
            Condition(column, operator, values)  # type: ignore[arg-type] # Tests accepts no other
            for column, tests in section.where.items()
            for operator, values in tests
        ),
        "by": tuple(section.by),
        "by_sql": tuple(sorted(section.by_sql.items())),
        "names": tuple(
            Names(column, sql=names)
            if isinstance(names, str)
            else Names(column, tuple((label(value), label(name)) for value, name in sorted(names.items())))
            for column, names in sorted(section.names.items())
        ),
        "measures": tuple(Measure(name, kind, column) for name, (kind, column) in section.measure.items()),
        "sql": None if section.sql is None else section.sql.strip().removesuffix(";"),
    }
    return Query(**_copied(section, Query) | own)


def _time_of(section: JobSection) -> str | None:
    """Return the column of a job's time; of an expression and of custom sql the name of the result."""
    if section.sql is not None:
        return BUCKET if has_time(section) else None
    return section.time if section.time_sql is None else "time_sql"


def _copied(section: JobSection, kind: type[Job | Query]) -> dict[str, Any]:
    """Return the keys of a section that are fields of a Job or Query under the same name."""
    names = {field.name for field in fields(kind)} & JobSection.model_fields.keys()
    return {name: getattr(section, name) for name in names}


def paths_of(job: Job) -> set[str]:
    """Return the template of each measure; the measures of custom sql are not known yet."""
    measures = [] if job.query.sql else job.query.measures
    return {job.template.replace(f"{{{MEASURE}}}", measure.name) for measure in measures} or {job.template}


def _template(section: JobSection, source: str, graphite: GraphiteSection) -> str:
    """Return prefix, name and tags as one template; carbon sorts tags by their names."""
    name = f"{graphite.prefix}.{section.name}" if graphite.prefix else section.name
    tags = "".join(f";{key}={value}" for key, value in sorted((graphite.tags | section.tags).items()))
    return (name + tags).replace(f"{{{SOURCE}}}", source)
