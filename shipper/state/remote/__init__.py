"""The state in PostgreSQL, for several machines of which one works."""
