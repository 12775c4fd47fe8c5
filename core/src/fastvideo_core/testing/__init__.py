"""What tests of plug-ins need: a toy family, so that a method can be tested with no model family installed."""
