"""The rules, a file for each group of related ones. Every module here is read by `catalogue`."""
