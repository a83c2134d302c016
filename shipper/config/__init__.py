"""From TOML to a Config."""
