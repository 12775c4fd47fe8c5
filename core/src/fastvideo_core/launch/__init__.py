"""Processes: started, joined, stopped by signals, told apart on the console."""
