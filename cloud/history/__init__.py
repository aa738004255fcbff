"""Where readings, estimates and events are kept: one seam, one conformance suite, one file per store."""
