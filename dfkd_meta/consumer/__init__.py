"""Use cases of people without the data: the only place where synthesis meets distillation."""
