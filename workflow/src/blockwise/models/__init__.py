"""What a backbone is made of: its files, where they come from, its tokenizer and template."""
