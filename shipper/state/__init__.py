"""The state: a SQLite file."""
