"""What a plug-in author reads, in this order.

roles (which networks), batch, adapter (what a method may ask of a family), method, family; then validator, rng, tracker,
noise_ranges, few_steps where they are needed. flow_adapter and hidden_states are helpers for families, adapter_check is what core
asks of adapters, demo the part of the command `demo`. Callbacks have their contract in callbacks/hooks.py, commands
in registry/specs.py, encoders for `preprocess` in fastvideo_data.encoder.
"""
