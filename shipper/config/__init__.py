"""Configuration: from TOML to a Config."""

import os

# pydantic would look for plugins in the metadata of all installed packages, and let them see each value
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
