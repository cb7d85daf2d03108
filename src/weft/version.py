"""The version of weft, said here alone: pyproject.toml reads it, under whatever name it is installed."""

VERSION = "0.1.0"
