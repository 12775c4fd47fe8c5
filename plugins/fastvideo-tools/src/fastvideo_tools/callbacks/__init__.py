"""Callbacks that watch a run: its speed, its gradients, where its time goes, and whether it still gets better."""
