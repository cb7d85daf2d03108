"""weft's training beside a `transformers` Trainer of the same sizes, on the same files."""
