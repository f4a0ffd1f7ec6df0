"""Configuration: typed models are the source; the JSON Schema is generated from them."""
