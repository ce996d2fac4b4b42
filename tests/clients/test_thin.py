"""The client alone, installed from its own build file into an empty folder."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

CLIENT = ROOT / "clients"
HEAVY = {"torch", "numpy", "pydantic", "pydantic_core", "fastapi", "starlette", "redis"}
LIGHT = {
    "anyio", "assay_client", "certifi", "exceptiongroup", "h11", "httpcore2", "httpx2", "idna",
    "truststore", "typing_extensions",
}  # fmt: skip
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import assay_client
score = assay_client.Client(sys.argv[2]).score_one("code", {"value": 0.5})
tops = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"file": assay_client.__file__, "score": score, "modules": tops}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("thin")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run(
        [*pip, "--no-compile", "--target", str(target), str(CLIENT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    return target


def test_the_client_installs_few_packages(folder: Path) -> None:
    packages = {
        path.name.removesuffix(".py")
        for path in folder.iterdir()
        if not path.name.endswith(".dist-info") and path.name not in ("bin", "__pycache__")
    }
    assert "assay_client" in packages
    assert packages <= LIGHT
    assert (folder / "assay_client" / "py.typed").is_file()


def test_scoring_imports_no_heavy_package(folder: Path, server: Any) -> None:
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(folder), server.url]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    printed = json.loads(ran.stdout)
    assert printed["score"] == 0.5
    assert Path(printed["file"]).is_relative_to(folder)
    assert not HEAVY & set(printed["modules"])
    assert set(printed["modules"]) - sys.stdlib_module_names - {"__main__"} <= LIGHT
