"""dfkd-meta: a metadata standard for data-free knowledge distillation, and its tools."""
