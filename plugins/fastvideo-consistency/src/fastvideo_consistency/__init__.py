"""Consistency distillation and consistency training: the method `consistency`."""
