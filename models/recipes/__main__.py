"""Run a recipe: train a model, package it and measure it, in a work folder.

The released weights are never overwritten.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from assay_models.repository import embedded_root
from recipes.steps import RECIPES, Recipe, Step

EXAMPLE = """examples:
  python -m recipes --list
  python -m recipes nli --data ../shared/data --dry-run
  python -m recipes nli --data ../shared/data
  python -m recipes nli --data ../shared/data --from evaluate
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line; list the recipes, print a recipe's commands, or run them.

    Raises:
        SystemExit: an argument is wrong, the data are missing, or a step failed.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.list:
        print(list_recipes())
        return
    if given.name is None or given.data is None:
        parser.error("NAME and --data are required, or --list")
    recipe = RECIPES[given.name]
    names = [step.name for step in recipe.steps]
    if given.first is not None and given.first not in names:
        parser.error(f"--from {given.first}: the steps are {', '.join(names)}")
    work = given.work or Path("work") / given.name
    if work.resolve().is_relative_to(embedded_root().resolve()):
        parser.error(f"--work {work}: the folder of the released models is not written to")
    steps = recipe.steps[names.index(given.first or names[0]) :]
    if given.dry_run:
        print("\n".join(shlex.join(["python", *step.command(given.data, work)]) for step in steps))
        return
    _require_data(recipe, given.data)
    for step in steps:
        _run(step, given.data, work)


def list_recipes() -> str:
    """Return every recipe with its steps in order."""
    lines = []
    for name, recipe in RECIPES.items():
        lines.append(name)
        lines += [f"  {step.name:18}{step.purpose}" for step in recipe.steps]
    return "\n".join(lines)


def _require_data(recipe: Recipe, data: Path) -> None:
    missing = [name for name in recipe.data_folders if not (data / name).is_dir()]
    if missing:
        raise SystemExit(f"{data} has no folder {', '.join(missing)}")


def _run(step: Step, data: Path, work: Path) -> None:
    command = step.command(data, work)
    print(f"{step.name}: {shlex.join(['python', *command])}", flush=True)
    status = subprocess.run([sys.executable, *command], check=False).returncode  # noqa: S603
    if status:
        raise SystemExit(f"{step.name} failed ({status}); continue with --from {step.name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipes",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", metavar="NAME", nargs="?", choices=tuple(RECIPES), help=", ".join(RECIPES))
    add("--data", type=Path, help="the data folder")
    add("--work", type=Path, help="the folder to write into (work/NAME)")
    add("--from", dest="first", metavar="STEP", help="start at this step")
    add("--dry-run", action="store_true", help="print the commands in order and run none")
    add("--list", action="store_true", help="print every recipe with its steps")
    return parser


if __name__ == "__main__":
    main()
