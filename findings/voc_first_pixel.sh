#!/usr/bin/env bash
# Where Pascal VOC's first pixel is: two writers disagree, and their files look alike.
#
# Seen with supervision==0.31.2 and datumaro==1.13.12: of one box (10, 20, 60, 80) in pixels from 0, supervision writes
# 11, 21, 60, 80, as the layout's own documentation counts (from 1, the last pixel inside), and datumaro writes
# 10.0, 20.0, 60.0, 80.0. Read by one rule, boxes of the other are off by a pixel; only the decimal point tells.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check supervision==0.31.2 datumaro==1.13.12
cd "$work"
cat > write.py <<'P'
import re
from pathlib import Path

import numpy as np
from PIL import Image

Image.new("RGB", (200, 100)).save("a.jpg")

import supervision as sv

found = sv.Detections(xyxy=np.array([[10.0, 20.0, 60.0, 80.0]]), class_id=np.array([0]))
sv.DetectionDataset(["cat"], ["a.jpg"], {"a.jpg": found}).as_pascal_voc(annotations_directory_path="one")

from datumaro.components.annotation import Bbox
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image as Medium

item = DatasetItem("a", subset="train", media=Medium.from_file("a.jpg"), annotations=[Bbox(10, 20, 50, 60, label=0)])
Dataset.from_iterable([item], categories=["cat"]).export("two", "voc_detection")

said = [re.findall(r"<[xy]m\w+>([\d.]+)<", next(Path(d).rglob("*.xml")).read_text()) for d in ("one", "two")]
print(*said)
assert said == [["11", "21", "60", "80"], ["10.0", "20.0", "60.0", "80.0"]], said
P
"$work/env/bin/python" write.py 2>/dev/null
echo "as described: supervision 0.31.2, datumaro 1.13.12"
