"""The log: one line for each event, and how captures and deliveries are summed up in it."""
