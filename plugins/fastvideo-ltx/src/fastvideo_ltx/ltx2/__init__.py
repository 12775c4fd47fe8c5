"""LTX-2: video and sound in two streams of one network."""
