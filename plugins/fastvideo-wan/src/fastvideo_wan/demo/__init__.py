"""The family's part of `fastvideo-distill demo`."""
