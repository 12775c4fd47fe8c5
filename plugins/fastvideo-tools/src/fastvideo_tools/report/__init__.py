"""One page about a run, live or finished, from its folder alone."""
