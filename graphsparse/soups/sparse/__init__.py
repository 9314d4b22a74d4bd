"""Soups of tickets, which stay as sparse as their ingredients."""
