"""All that differs between databases, in one file for each."""
