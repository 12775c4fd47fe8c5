"""Networks on devices: blocks, shards, and weights that are loaded after sharding."""
