"""From videos and captions to a parquet data set."""
