"""Files that others made, damaged in seeded ways: whatever is wrong with one is a message of ours."""
