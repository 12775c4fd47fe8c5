"""A run on fake ranks: what each of them holds, sends and computes in one iteration, and how long machines would take for it."""
