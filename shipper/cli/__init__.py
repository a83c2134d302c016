"""The commands: arguments, output, exit codes."""

import gc

# A start creates a hundred thousand objects that stay; collecting them repeatedly takes a sixth of its time.
gc.set_threshold(150_000, 20, 20)
