"""Connections to a database: a pool, its snapshots, and whose turn it is."""
