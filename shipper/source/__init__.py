"""Databases that rows are counted in: connections, snapshots, statements, results."""
