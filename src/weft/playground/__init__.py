"""The embedded world: small pictures and sounds that weft makes itself, with exact answers."""
