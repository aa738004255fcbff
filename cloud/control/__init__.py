"""Controllers on estimated states (pure)."""
