"""From run.yaml to a run that can be trained: read, examined, built. Here config, registry, family and method meet."""
