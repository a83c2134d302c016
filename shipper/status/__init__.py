"""How the service reports about itself."""
