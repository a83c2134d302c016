"""Dashboards generated from the jobs."""
