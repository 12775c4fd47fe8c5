"""What accompanies a run without being part of the algorithm: EMA weights, gradient norms, third-party callbacks."""
