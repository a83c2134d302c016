"""The demo: an audit trail in SQLite that grows, a real Carbon, and the service between them."""
