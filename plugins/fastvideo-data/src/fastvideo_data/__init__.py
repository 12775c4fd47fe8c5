"""Data on its way from videos and captions to training batches.

`sources` finds raw videos and captions, `media` reads and writes video files, `encoder` says what a family must offer,
`preprocess` writes the parquet data set of `schema`, `plan` orders it, `loader` reads it, and `validation` reads the
prompts that are sampled during training.
"""
