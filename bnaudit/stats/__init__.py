"""Pure maths on tensors: no module, no file, no screen."""
