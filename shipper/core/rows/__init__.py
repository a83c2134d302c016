"""From rows to totals: reading a table by ids, and what is new."""
