"""Films of trained agents at play."""

PANELS = ("screen", "input", "recon", "openloop", "dream", "latent", "policy")
DECODED = ("recon", "openloop", "dream")  # panels that show what the decoder predicts
