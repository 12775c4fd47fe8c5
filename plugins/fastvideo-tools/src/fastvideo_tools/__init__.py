"""Commands around training, and the pages that they write."""
