"""What `fastvideo-distill doctor` looks at: this machine, what is installed, and what is known not to work together."""
