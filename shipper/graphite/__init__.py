"""Carbon and graphite-web."""
