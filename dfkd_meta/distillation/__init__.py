"""Students, losses and the one training loop; knows nothing of how inputs were made."""
