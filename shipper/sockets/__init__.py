"""Sockets at which the service listens: its control socket and the status page."""
