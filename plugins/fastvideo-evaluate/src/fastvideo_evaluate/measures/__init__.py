"""What can be measured of videos and latents: pure functions of arrays and tensors."""
