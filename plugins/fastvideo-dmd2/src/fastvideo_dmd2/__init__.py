"""Distribution matching distillation: the method `dmd2`."""
