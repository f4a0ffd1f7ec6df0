"""Training with MXFP4: formats, rotations, the linear layer, the Llama, and what is measured."""
