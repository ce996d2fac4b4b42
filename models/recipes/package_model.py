"""Make a folder that can be served: a released model with newly trained files in its place.

The card gets the digests of the new files. Its figures, example, calibration and temperature are
still those of the released model; a server refuses it while the example's score is another.
"""

import argparse
import shutil
from pathlib import Path

from assay_models.repository import ModelRepository, digest_of, embedded_root

EXAMPLE = "example: python -m recipes.package_model --model nli@2 --trained work/nli --out models"


def package_model(model: str, trained: Path, out: Path) -> Path:
    """Copy a released model's folder below `out` and replace its trained files.

    Args:
        model: `name@version` of an embedded model.
        trained: a folder with the trained files, by their paths on the card.
        out: a folder of models; the new one is `out/<name>/<version>`.

    Returns:
        The new folder.

    Raises:
        SystemExit: `trained` has none of the card's files.
    """
    entry = ModelRepository([embedded_root()]).find(model)
    digests = entry.card.weights.own_files
    replaced = [name for name in digests if (trained / name).is_file()]
    if not replaced:
        raise SystemExit(f"{trained} has none of {', '.join(digests)}: train first")
    folder = out / entry.card.name / str(entry.card.version)
    ignored = shutil.ignore_patterns("README.md")
    shutil.copytree(entry.folder, folder, ignore=ignored, dirs_exist_ok=True)
    card = (entry.folder / "card.toml").read_text(encoding="utf-8")
    for name in replaced:
        shutil.copyfile(trained / name, folder / name)
        card = card.replace(digests[name], digest_of(folder / name))
    (folder / "card.toml").write_text(card, encoding="utf-8")
    return folder


def main() -> None:
    """Parse the command line and package the model."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.package_model",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="an embedded model, as name@version")
    parser.add_argument("--trained", type=Path, required=True, help="folder of the trained files")
    parser.add_argument("--out", type=Path, required=True, help="folder of models to write into")
    arguments = parser.parse_args()
    folder = package_model(arguments.model, arguments.trained, arguments.out)
    print(f"{folder}: set its example's score, then serve it with ASSAY_REPOSITORY={arguments.out}")


if __name__ == "__main__":
    main()
