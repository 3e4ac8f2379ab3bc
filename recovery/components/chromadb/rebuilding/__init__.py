"""Building the vector index of a collection anew, beside the one that is damaged.

Here is everything but the strategy itself: what a collection must hold, where its vectors can still
be read, the new index, and the one transaction that puts it in place. What reads damaged files or
runs Chroma is a child process.
"""
