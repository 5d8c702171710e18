"""Checkpoint files and models: read, layout, names, load; patch and restore for the way back."""
