"""An Audit made visible: terminal, plots, files."""
