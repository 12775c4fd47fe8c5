"""From a parquet data set to batches: its files, their order, the rows of each batch."""
