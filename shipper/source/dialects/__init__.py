"""The differences between databases: dialect.py has the form, databases.py the list, each database its files."""
