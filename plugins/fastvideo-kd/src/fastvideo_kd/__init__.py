"""Knowledge distillation: the method `kd`, and the command `trajectories` that writes what it learns from."""
