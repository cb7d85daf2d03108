"""An OpenAI-compatible server of a weft model."""
