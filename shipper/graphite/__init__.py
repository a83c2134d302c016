"""Clients of Carbon and graphite-web, and dashboards."""
