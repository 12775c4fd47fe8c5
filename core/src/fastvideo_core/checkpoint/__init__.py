"""Checkpoints of a run: complete or absent, exact to the bit, and never a way to run code."""
