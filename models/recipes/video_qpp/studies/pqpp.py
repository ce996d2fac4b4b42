"""The recipe on all seven targets of PQPP, beside that benchmark's fine-tuned BERT.

`video-qpp@2` serves two of them. A head is fitted on train and validation, and the test is read
once. The published figures are of Poesina and others, PQPP (CVPR 2025, arXiv 2406.04746), table of
pre-retrieval and pre-generation predictors.

Example:
    python -m recipes.video_qpp.studies.pqpp --data ../shared/data
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from assay_models.families.qpp.features import read_features
from assay_models.families.qpp.heads import read_head
from assay_models.families.qpp.query_text import normalise
from recipes.video_qpp.data import embed_queries, read_queries
from recipes.video_qpp.fit import choose_blend, choose_penalty, fit_head, prepare_queries
from recipes.video_qpp.metrics import TargetColumn, correlation_rows
from recipes.video_qpp.train import load_encoder, print_table_head

PQPP_TARGETS = {
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
    """Fit on train and validation, print the cross-validation table, then the test's table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    encoder = load_encoder()
    train, tested = read_queries(arguments.data, "coco", list(PQPP_TARGETS))
    embeddings = embed_queries(encoder, train.texts, arguments.cache)
    known = prepare_queries(train.texts, embeddings, train.targets)
    report = print_table_head(list(PQPP_TARGETS), train.targets)
    penalty = choose_penalty(known, report)
    parts = fit_head(known, penalty, choose_blend(known, penalty, report))
    tensors = {f"coco.{part}": array for part, array in parts.items()}
    head = read_head(
        tensors, "coco", width=embeddings.shape[1], outputs=len(PQPP_TARGETS), device="cpu"
    )
    features = [read_features(normalise(text)) for text in tested.texts]
    raws = np.array(head.raws(embed_queries(encoder, tested.texts, arguments.cache), features))
    for index, (name, *published) in enumerate(PQPP_TARGETS.values()):
        column = TargetColumn(
            dataset="",
            target=name,
            texts=tested.texts,
            true=tested.targets[:, index],
            predicted=raws[:, index],
        )
        for row, of_bert in zip(correlation_rows(column), published, strict=True):
            interval = f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
            print(f"{row.metric:40}{interval}  fine-tuned BERT {of_bert:.3f}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.video_qpp.studies.pqpp",
        description="The recipe on all seven targets of PQPP.",
        epilog="example: python -m recipes.video_qpp.studies.pqpp --data ../shared/data",
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds vqpp/")
    parser.add_argument(
        "--cache", type=Path, default=Path("work/video_qpp"), help="where embeddings are kept"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads (1)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
