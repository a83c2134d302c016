"""Dashboards derived from the jobs."""
