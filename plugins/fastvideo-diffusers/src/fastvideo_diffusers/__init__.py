"""What every model family on a diffusers pipeline shares."""
