"""The method averaged."""
