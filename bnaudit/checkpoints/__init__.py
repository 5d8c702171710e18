"""How a checkpoint file becomes weights in a model: read, layout (nesting, prefixes), names, load."""
