"""Changes that operators make to jobs."""
