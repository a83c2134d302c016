"""Totals counted again, where something changed instead of appearing."""
