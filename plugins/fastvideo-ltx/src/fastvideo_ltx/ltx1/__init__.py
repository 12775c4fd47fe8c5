"""LTX-Video 0.9.x: video only, T5 text, one stream."""
