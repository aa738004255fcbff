"""The twin-type language: schema, expressions, unit check, compilation to arrays and functions (pure)."""
