"""What `shipper check` looks at beyond the file: do the ends answer, and would they do what the jobs ask?"""

from collections.abc import Iterator

from shipper.config.load import Config
from shipper.diagnostics.check_graphite import looks_at_carbon, looks_at_graphite, tells_evidence
from shipper.diagnostics.check_source import looks_at_source
from shipper.diagnostics.check_state import looks_at_file, looks_at_state
from shipper.diagnostics.finding import Finding, attempted

__all__ = ["Finding", "findings"]


def findings(config: Config) -> Iterator[Finding]:
    """Look at the file, at the state, at the sources with the queries of their jobs, at Carbon and at Graphite."""
    yield from looks_at_file(config.file)
    yield from attempted(f"state {config.state.path}", looks_at_state(config))
    for name in config.sources:
        yield from attempted(f"source {name}", looks_at_source(config, name))
    yield from attempted("carbon", looks_at_carbon(config))
    yield from attempted("graphite", looks_at_graphite(config))
    yield from tells_evidence(config)
