"""The parts of the service at work."""
