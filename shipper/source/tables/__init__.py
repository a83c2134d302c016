"""A table: its catalog, the times it stores, the rights on it, and whether a query can run on it."""
