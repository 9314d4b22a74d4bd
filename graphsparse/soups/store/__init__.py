"""Ingredients as plain files: what is in them, who works on them, and what went wrong."""
