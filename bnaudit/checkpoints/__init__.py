"""How a checkpoint file becomes weights in a model: read, layout, names, load."""
