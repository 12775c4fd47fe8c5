"""LoRA adapters, names of parameters, and the rows of a sharded parameter."""
