"""Tests of training use the tiny models of the tests of models, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))  # tiny.py
