"""The share of English texts that are detected as another language, on the NLI data.

python -m benchmarks.claim_languages --data ../shared/data
"""

import argparse
import gzip
import json
from pathlib import Path

from assay_models.languages import Languages

FILES = ("dev", "diag_breaking_nli", "diag_binary_and_small", "diag_anli_dev")


def main() -> None:
    """Print the share of refused texts, among hypotheses and among premises."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of data")
    folder = parser.parse_args().data / "nli"
    rows = []
    for name in FILES:
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows += [json.loads(line) for line in lines]
    english = Languages(("en",))
    for field in ("hypothesis", "premise"):
        texts = {row[field] for row in rows}
        refused = sum(not english.can_read(text) for text in texts)
        print(f"{field}: {refused} of {len(texts):,} refused ({refused / len(texts):.4%})")


if __name__ == "__main__":
    main()
