"""The databases that rows are counted in."""
