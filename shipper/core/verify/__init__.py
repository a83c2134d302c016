"""Comparison of Graphite with the source."""
