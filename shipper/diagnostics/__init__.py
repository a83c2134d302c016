"""Diagnostics: commands that inspect and change nothing."""
