"""Reproductions of papers: one script each, with its goals."""
