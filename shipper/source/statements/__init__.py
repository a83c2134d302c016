"""A job's query as SQL statements on ranges of ids."""
