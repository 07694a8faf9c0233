"""The rules that need more than one field, one module for each part of the sidecar."""
