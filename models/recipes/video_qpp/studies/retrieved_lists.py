"""Features of retrieved lists for the learnt post-retrieval predictors, in one safetensors file.

| tensor | shape | content |
|---|---|---|
| `queries` | (n, d) | text embeddings of the queries, float32, of length 1 |
| `videos` | (n, k, d) | embeddings of the best k videos of each, best first, float32, of length 1 |
| `relevant` | (n, k) | 1 for the video that was searched, else 0, uint8; at most one a row |
| `targets` | (n, 2) | reciprocal rank and recall at 10 of the whole retrieval, float32 |
| `split` | (n,) | 0 train, 1 validation, 2 test, uint8 |

Published: CLIP ViT-B/32, d = 512, k = 25; a video's embedding is the mean of its frames', of length
1. The file's metadata may have `origin`: the origin of the features. `generated` are from no
system.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

TENSORS = ("queries", "videos", "relevant", "targets", "split")
SPLITS = ("train", "validation", "test")
GENERATED = "generated"
RECALL_CUTOFF = 10


@dataclass(frozen=True, slots=True)
class RetrievedLists:
    """Retrieved lists of one split; shapes as in the module's table."""

    queries: Tensor
    videos: Tensor
    relevant: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.queries)


def read_lists(path: Path) -> tuple[dict[str, RetrievedLists], str]:
    """Read the lists by split, and their origin.

    Raises:
        SystemExit: the file is not as the module's table says; the text names the tensor.
    """
    with safe_open(path, framework="pt") as file:
        missing = set(TENSORS) - set(file.keys())
        if missing:
            raise SystemExit(f"{path}: no tensor {', '.join(sorted(missing))}")
        tensors = {name: file.get_tensor(name) for name in TENSORS}
        origin = (file.metadata() or {}).get("origin", "not stated")
    _check_tensors(path, tensors)
    lists = {}
    for number, name in enumerate(SPLITS):
        rows = tensors["split"] == number
        if not rows.any():
            raise SystemExit(f"{path}: `split` has no {number} ({name})")
        fields = {tensor: tensors[tensor][rows].float() for tensor in TENSORS if tensor != "split"}
        lists[name] = RetrievedLists(**fields)
    return lists, origin


def generate_lists(path: Path, *, queries: int, depth: int, width: int, seed: int = 0) -> None:
    """Write lists of an invented system.

    Videos are scattered around each query, the nearer the better ranked; the searched one is among
    them or is missed.
    """
    torch.manual_seed(seed)
    embeddings = normalize(torch.randn(queries, width), dim=1)
    spread = 0.2 + 1.5 * torch.rand(queries, 1, 1)
    videos = normalize(embeddings[:, None] + spread * torch.randn(queries, depth, width), dim=2)
    order = (videos @ embeddings[:, :, None])[..., 0].argsort(dim=1, descending=True)
    videos = videos.gather(1, order[..., None].expand_as(videos))
    # Hard queries are those whose videos are scattered: their rank is further down, or none.
    rank = (torch.rand(queries) * depth * spread[:, 0, 0] * 1.5).long()
    relevant = (torch.arange(depth) == rank[:, None]).to(torch.uint8)
    is_found = rank < depth
    reciprocal_rank = is_found / (1 + rank.float())
    targets = torch.stack([reciprocal_rank, (rank < RECALL_CUTOFF).float()], dim=1)
    split = torch.tensor([0, 0, 0, 1, 2], dtype=torch.uint8).repeat(queries // 5 + 1)[:queries]
    tensors = dict(zip(TENSORS, (embeddings, videos, relevant, targets, split), strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"origin": GENERATED})


def _check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    queries, width = tensors["queries"].shape
    depth = tensors["videos"].shape[1]
    shapes = {
        "videos": (queries, depth, width),
        "relevant": (queries, depth),
        "targets": (queries, 2),
        "split": (queries,),
    }
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise SystemExit(f"{path}: `{name}` is {tuple(tensors[name].shape)}, must be {shape}")
    for name in ("queries", "videos"):
        lengths = tensors[name].float().norm(dim=-1)
        if not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3):
            raise SystemExit(f"{path}: `{name}` must have rows of length 1")
