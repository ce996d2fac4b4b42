"""The recipe on all seven targets of PQPP, beside that benchmark's fine-tuned BERT.

`video-qpp@2` serves two of them. A head is fitted on train and validation, and the test is read
once. The published figures are of Poesina and others, PQPP (CVPR 2025, arXiv 2406.04746), table of
pre-retrieval and pre-generation predictors.

Example:
    python -m recipes.video_qpp.pqpp --data ../shared/data
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from assay_models.families.qpp.features import normalise, read_features
from assay_models.families.qpp.heads import head_of
from recipes.video_qpp.data import embed_queries, read_queries
from recipes.video_qpp.figures import Column, correlation_rows
from recipes.video_qpp.fit import choose_penalty, choose_shares, fit_head, know
from recipes.video_qpp.train import load_encoder, table_of

PUBLISHED = {
    "retrieval_avg_rr": ("reciprocal rank, mean", 0.2629, 0.182),
    "clip_rr": ("reciprocal rank, CLIP", 0.218, 0.1574),
    "blip2_rr": ("reciprocal rank, BLIP-2", 0.2109, 0.157),
    "retrieval_avg_pk": ("precision@10, mean", 0.5078, 0.3182),
    "clip_pk": ("precision@10, CLIP", 0.441, 0.2726),
    "blip2_pk": ("precision@10, BLIP-2", 0.4993, 0.3176),
    "avg_generative_score": ("generation", 0.568, 0.416),
}
"""For each column of the data its name, and Pearson's r and Kendall's tau of fine-tuned BERT."""


def main() -> None:
    """Fit on train and validation, print what cross-validation said, then the test's table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    encoder = load_encoder()
    learnt, tested = read_queries(arguments.data, "coco", list(PUBLISHED))
    embeddings = embed_queries(encoder, learnt.texts, arguments.cache)
    known = know(learnt.texts, embeddings, learnt.targets)
    report = table_of(list(PUBLISHED), learnt.targets)
    penalty = choose_penalty(known, report)
    parts = fit_head(known, penalty, choose_shares(known, penalty, report))
    tensors = {f"coco.{part}": array for part, array in parts.items()}
    head = head_of(tensors, "coco", embeddings.shape[1], len(PUBLISHED), "cpu")
    features = [read_features(normalise(text)) for text in tested.texts]
    raws = np.array(head.raws(embed_queries(encoder, tested.texts, arguments.cache), features))
    for place, (name, *published) in enumerate(PUBLISHED.values()):
        column = Column("", name, tested.texts, tested.targets[:, place], raws[:, place])
        for row, of_bert in zip(correlation_rows(column), published, strict=True):
            figure = f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
            print(f"{row.metric:40}{figure}  fine-tuned BERT {of_bert:.3f}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.video_qpp.pqpp",
        description="The recipe on all seven targets of PQPP.",
        epilog="example: python -m recipes.video_qpp.pqpp --data ../shared/data",
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds vqpp/")
    parser.add_argument(
        "--cache", type=Path, default=Path("work/video_qpp"), help="where embeddings are kept"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads (1)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
