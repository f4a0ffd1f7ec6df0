"""What a model is, read from its files: the configuration's entry of a backbone."""
