"""What a training is made of beyond its weights, as plain data: enough to continue it as if nothing had happened."""
