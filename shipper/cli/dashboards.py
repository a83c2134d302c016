"""Dashboards derived from the jobs, for Graphite and for Grafana, and one for the service itself."""

from collections.abc import Sequence

from shipper.config.load import Config
from shipper.core.model import Job
from shipper.graphite.dashboards.panels import Dashboard, own_panels, panels_of


def dashboards(config: Config, jobs: Sequence[Job] = ()) -> list[Dashboard]:
    """Return that of all jobs and that of the service; of chosen jobs only theirs, under a name of its own."""
    prefix = config.graphite.prefix
    name = f"shipper-{prefix.replace('.', '-')}" if prefix else "shipper"
    step = config.graphite.retentions[0].step
    made = [panel for job in jobs or config.jobs.values() for panel in panels_of(job, step)]
    if jobs:
        names = [job.name.replace("@", "-") for job in jobs]
        return [Dashboard("-".join([name, *names]), ", ".join(job.name for job in jobs), made)]
    title = f"{prefix}: counted by shipper" if prefix else "Counted by shipper"
    own = Dashboard(f"{name}-self", f"shipper itself, for {prefix}" if prefix else "shipper itself", own_panels(prefix))
    return [Dashboard(f"{name}-jobs", title, made), own]
