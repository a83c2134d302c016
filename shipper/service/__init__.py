"""The process: the daemon, its signals, its control socket."""
