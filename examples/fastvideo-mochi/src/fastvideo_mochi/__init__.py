"""The model family mochi."""
