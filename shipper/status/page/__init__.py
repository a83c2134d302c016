"""Health, metrics and the status page over HTTP, made of nothing but a report."""
