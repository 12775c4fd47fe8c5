"""Continuous-time consistency with distribution matching: the method `rcm`."""
