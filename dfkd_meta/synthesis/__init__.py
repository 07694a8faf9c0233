"""Training-like inputs from a teacher and its sidecar: one engine, and recipes for it."""
