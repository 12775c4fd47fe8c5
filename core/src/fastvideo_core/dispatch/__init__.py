"""Where config, registry, family and method meet."""
