"""Flow-matching mathematics: conversions, timestep schedules and sampling, few-step rollouts."""
