"""Use cases of those who own the data: train a teacher, export its sidecar, publish both."""
