"""Configuration: from TOML to a Config."""
