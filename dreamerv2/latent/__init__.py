"""What the discrete latent of a trained agent holds; the command is `dreamerv2.latents`.

Shape letters: N rows (one agent step each), K latent variables, C classes of each, D deterministic
size, A actions, H W image. Images are float32 in [0, 1]; their distances are in gray levels, of
which there are 255 between black and white.
"""

SECTIONS = ("usage", "sweep", "interpolate", "probe", "information", "fix")
