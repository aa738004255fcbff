"""The registry of twin types and twins."""
