"""What to do about an Audit: the remedies, one file a family, and how they are ranked."""
