"""The verbs: each composes the folders below it into one job."""
