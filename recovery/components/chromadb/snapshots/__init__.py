"""Snapshots of a Chroma directory: taken, verified, kept, found, restored."""
