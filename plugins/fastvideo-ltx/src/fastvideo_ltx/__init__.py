"""The LTX family (LTX-Video 0.9.x and LTX-2) for fastvideo-core."""
