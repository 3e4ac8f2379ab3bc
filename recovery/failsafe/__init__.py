"""A host helps itself while the control plane is away, within limits kept on its own disk."""
