"""Plants: physics written by hand with their own integrators, independent of every twin type."""
