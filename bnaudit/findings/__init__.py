"""What bnaudit concludes from an Audit."""
