"""Where inputs come from: free pixels, or the outputs of a generator."""
