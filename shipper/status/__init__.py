"""Reports of the service about its health and its work."""
