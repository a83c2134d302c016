"""The service: its process, signals, reload and control socket."""
