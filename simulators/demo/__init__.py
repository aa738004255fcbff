"""The whole loop on one machine: every program started, watched, healed, measured and stopped."""
