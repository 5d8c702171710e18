"""How data go through a model, and what is collected on the way."""
