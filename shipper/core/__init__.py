"""The core: decides, and touches nothing. No I/O, no clock, no log, no third-party import."""
