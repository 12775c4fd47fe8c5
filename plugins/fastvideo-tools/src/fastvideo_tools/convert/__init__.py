"""Runs of other trainers as a run.yaml; depends on `config` and `errors` alone."""
