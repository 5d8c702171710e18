"""From an Audit, and what it changed against a baseline, to the verdict of the gate. No torch."""
