"""Weights in files and in networks: safetensors, adapters, names, shards."""
