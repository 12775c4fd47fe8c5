"""What a run reports: metrics.jsonl, wandb, TensorBoard, and the line or bar on the screen."""
