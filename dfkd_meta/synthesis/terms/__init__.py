"""Loss terms: each a small frozen object, called with a ``StepState``, returning a scalar."""
