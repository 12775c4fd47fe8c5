"""The callback deadline."""
