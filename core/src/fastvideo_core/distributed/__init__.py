"""This process's place among the run's processes, and the device it computes on."""
