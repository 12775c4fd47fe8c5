"""The command `evaluate`: which models (`models`), their videos (`sampling`, `videos`), and what these are worth (`results`)."""
