"""The Wan family (Wan 2.1 and Wan 2.2, from text and from images) for fastvideo-core."""
