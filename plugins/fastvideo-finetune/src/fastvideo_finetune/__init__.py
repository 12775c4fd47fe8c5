"""Flow-matching fine-tuning: the method `finetune`."""
