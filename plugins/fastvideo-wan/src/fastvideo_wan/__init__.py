"""The Wan family (Wan 2.1 text-to-video) for fastvideo-core."""
