"""Health, metrics and the status page over HTTP, rendered from a report."""
