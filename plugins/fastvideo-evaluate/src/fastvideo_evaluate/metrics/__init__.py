"""The contract of metrics, how they are found, and those of this package."""
