"""The differences between databases: dialect.py has the form, by_name.py the list, each database its files."""
