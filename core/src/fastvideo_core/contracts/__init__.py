"""What a plug-in author reads: roles, adapters, methods, families, batches, random streams, validators."""
