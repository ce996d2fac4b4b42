"""`assay score` with an existing output: resumed if it matches, else refused unchanged."""

import fcntl
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from support.item_files import distinct_items, results_of, run, score, write_items
from support.servers import listening

from assay.offline.local import LIBRARIES
from assay.settings import Settings
from assay_models.families.reference import ReferenceModel

CARD = 'name = "mine"\nversion = 1\nfamily = "reference"\n'


def add_reference_card(repository: Path) -> Path:
    """Write a card of the torch-free family; return its folder."""
    folder = repository / "mine" / "1"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(CARD)
    return folder


def change_version(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it seem that Python, Assay or a library has another version than before."""
    if name == "Python":
        monkeypatch.setattr("platform.python_version", lambda: "3.0.0")
    elif name == "assay":
        monkeypatch.setattr("assay.offline.local.__version__", "0.0.0")
    else:
        installed = metadata.version
        monkeypatch.setattr(
            metadata, "version", lambda other: "0.0.0" if other == name else installed(other)
        )


def _not_loadable(*_: object) -> ReferenceModel:
    raise RuntimeError("loaded")


class TestResuming:
    def test_a_finished_output_is_not_changed(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", [*distinct_items(1), {"prompt": "only"}])
        output = tmp_path / "scores.jsonl"
        assert score(source, output).exit_code == 1
        before = output.read_bytes()
        again = score(source, output)
        assert again.exit_code == 1
        assert "2 of them by an earlier run" in again.stderr
        assert output.read_bytes() == before

    def test_the_model_is_not_loaded_for_a_finished_output(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", [*distinct_items(2), {"prompt": "only"}])
        output = tmp_path / "scores.jsonl"
        folder = add_reference_card(tmp_path / "models")
        arguments = ("score", str(source), "--model", "mine", "-o", str(output))
        settings = {"ASSAY_REPOSITORY": str(tmp_path / "models")}
        assert run(*arguments, **settings).exit_code == 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ReferenceModel, "load", _not_loadable)
            again = run(*arguments, **settings)
            assert (again.exit_code, "3 of them by an earlier run" in again.stderr) == (1, True)
            changes = {
                "other options": ((*arguments, "--raw"), settings),
                "another dtype": (arguments, {**settings, "ASSAY_DTYPE": "bfloat16"}),
            }
            for changed, variables in changes.values():
                assert run(*changed, **variables).exit_code == 3
            (folder / "model.safetensors").write_bytes(b"trained again")
            assert run(*arguments, **settings).exit_code == 3

    @pytest.mark.parametrize("changed", ["Python", "assay", *LIBRARIES])
    def test_a_finished_output_of_another_version_is_checked_with_the_model(
        self, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = write_items(tmp_path / "items.jsonl", distinct_items(2))
        output = tmp_path / "scores.jsonl"
        assert score(source, output).exit_code == 0
        change_version(changed, monkeypatch)
        assert score(source, output).exit_code == 0
        monkeypatch.setattr(ReferenceModel, "load", _not_loadable)
        assert score(source, output).exit_code == 3

    @pytest.mark.parametrize("forgotten", [b'"setup":null', b'"other":0'])
    def test_a_finished_output_of_unknown_setup_is_checked_with_the_model(
        self, forgotten: bytes, tmp_path: Path
    ) -> None:
        source = write_items(tmp_path / "items.jsonl", distinct_items(2))
        output = tmp_path / "scores.jsonl"
        score(source, output)
        output.write_bytes(re.sub(rb'"setup":"[0-9a-f]+"', forgotten, output.read_bytes()))
        assert score(source, output).exit_code == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ReferenceModel, "load", _not_loadable)
            assert score(source, output).exit_code == 3

    def test_an_empty_input_needs_no_model(self, tmp_path: Path) -> None:
        source, output = write_items(tmp_path / "items.jsonl", []), tmp_path / "scores.jsonl"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ReferenceModel, "load", _not_loadable)
            result = score(source, output)
        assert (result.exit_code, output.read_bytes()) == (0, b"")

    @pytest.mark.parametrize("cut", [1, 9, 200])
    def test_a_partial_line_is_computed_again(self, tmp_path: Path, cut: int) -> None:
        source = write_items(tmp_path / "items.jsonl", distinct_items(10))
        output = tmp_path / "scores.jsonl"
        score(source, output)
        whole = output.read_bytes()
        output.write_bytes(whole[:-cut])
        assert score(source, output).exit_code == 0
        assert output.read_bytes() == whole

    def test_a_partial_line_is_replaced_by_a_shorter_one(self, tmp_path: Path) -> None:
        items = distinct_items(3)
        items[2]["id"] = "long " * 20
        source = write_items(tmp_path / "items.jsonl", items)
        output = tmp_path / "scores.jsonl"
        score(source, output)
        output.write_bytes(output.read_bytes()[:-1])
        items[2]["id"] = "short"
        assert score(write_items(source, items), output).exit_code == 0
        assert [row["id"] for row in results_of(output)] == ["item-0", "item-1", "short"]

    def test_new_input_lines_are_appended_to_the_output(self, tmp_path: Path) -> None:
        items = distinct_items(10)
        source = write_items(tmp_path / "items.jsonl", items[:4])
        output = tmp_path / "scores.jsonl"
        score(source, output)
        score(write_items(source, items), output)
        fresh = tmp_path / "fresh.jsonl"
        score(source, fresh)
        assert output.read_bytes() == fresh.read_bytes()

    def assert_refused(self, source: Path, output: Path, reason: str, *options: str) -> None:
        before = output.read_bytes()
        result = score(source, output, *options)
        assert result.exit_code == 2
        assert reason in result.stderr
        assert "--restart" in result.stderr
        assert output.read_bytes() == before

    def test_a_changed_input_is_refused(self, tmp_path: Path) -> None:
        items = distinct_items(10)
        source = write_items(tmp_path / "items.jsonl", items)
        output = tmp_path / "scores.jsonl"
        score(source, output)
        items[6]["response"] += "!"
        write_items(source, items)
        self.assert_refused(source, output, "line 7 of the input")
        assert score(source, output, "--restart").exit_code == 0
        fresh = tmp_path / "fresh.jsonl"
        score(source, fresh)
        assert output.read_bytes() == fresh.read_bytes()

    def test_a_restart_keeps_earlier_results_until_there_are_new_ones(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", distinct_items(3))
        output = tmp_path / "scores.jsonl"
        score(source, output)
        before = output.read_bytes()
        unreachable = score(source, output, "--restart", "--url", "http://127.0.0.1:9")
        assert unreachable.exit_code == 3
        assert output.read_bytes() == before

    def test_a_shorter_input_is_refused(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", distinct_items(3))
        output = tmp_path / "scores.jsonl"
        score(source, output)
        self.assert_refused(
            write_items(source, distinct_items(2)), output, "more lines than the input"
        )

    def test_other_options_are_refused(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", distinct_items(3))
        output = tmp_path / "scores.jsonl"
        score(source, output)
        self.assert_refused(source, output, "fingerprint", "--truncation", "left")

    @pytest.mark.parametrize("remote", [False, True])
    @pytest.mark.parametrize(
        ("first", "second", "reason"),
        [
            (
                "reference",
                "retrieval-qpp",
                "the output is of reference@1, and the model asked for now refuses line 1",
            ),
            (
                "retrieval-qpp",
                "reference",
                "line 1 of the input was refused when the output was written, and reference@1",
            ),
        ],
    )
    def test_a_model_that_takes_other_fields_is_refused(
        self, tmp_path: Path, *, first: str, second: str, reason: str, remote: bool
    ) -> None:
        source, output = write_items(tmp_path / "i.jsonl", distinct_items(2)), tmp_path / "out"
        with listening(Settings(models=("reference", "retrieval-qpp"))) as url:
            where = ["--url", url] if remote else []
            arguments = ["score", str(source), "-o", str(output), *where]
            run(*arguments, "--model", first)
            before = output.read_bytes()
            assert before.count(b"\n") == 2
            assert "by an earlier run" in run(*arguments, "--model", first).stderr
            refused = run(*arguments, "--model", second)
        assert refused.exit_code == 2
        assert reason in refused.stderr
        assert "--restart" in refused.stderr
        assert output.read_bytes() == before

    def test_an_output_of_two_models_is_refused(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", distinct_items(3))
        output = tmp_path / "scores.jsonl"
        score(source, output)
        first, second, third = output.read_bytes().splitlines(keepends=True)
        output.write_bytes(first + second.replace(b"reference@1", b"reference@2") + third)
        self.assert_refused(source, output, "line 2 of the output is of another model")

    @pytest.mark.parametrize("text", [b"a diary without a newline", b'{"a": 1}\n', b"\x00\x01\n"])
    def test_a_file_without_results_is_not_overwritten(self, tmp_path: Path, text: bytes) -> None:
        source = write_items(tmp_path / "items.jsonl", distinct_items(3))
        output = tmp_path / "diary"
        output.write_bytes(text)
        self.assert_refused(source, output, "not a result of this command")

    def test_an_output_locked_by_another_process_is_refused(self, tmp_path: Path) -> None:
        source = write_items(tmp_path / "items.jsonl", distinct_items(3))
        output = tmp_path / "scores.jsonl"
        with output.open("wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            result = score(source, output)
        assert result.exit_code == 2
        assert "another run is writing" in result.stderr


def start(source: Path, output: Path, *options: str) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-c", "from assay.cli import app; app()"]
    arguments = ["score", str(source), "--model", "reference", "-o", str(output), *options]
    # A process inherits ignored signals, and a shell's background jobs ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen([*program, *arguments], stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)


def stop_in_the_middle(
    process: subprocess.Popen[bytes], output: Path, lines: int, signal_number: signal.Signals
) -> tuple[int, bytes]:
    """Send the signal once the output has `lines` lines; return the exit code and stderr."""
    while process.poll() is None:
        if output.exists() and output.read_bytes().count(b"\n") >= lines:
            process.send_signal(signal_number)
            break
        time.sleep(0.002)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


@pytest.fixture
def uninterrupted(tmp_path: Path) -> tuple[Path, bytes]:
    source = write_items(tmp_path / "items.jsonl", distinct_items(8000))
    output = tmp_path / "uninterrupted.jsonl"
    assert score(source, output).exit_code == 0
    return source, output.read_bytes()


def test_a_killed_and_an_interrupted_run_are_resumed(
    uninterrupted: tuple[Path, bytes], tmp_path: Path
) -> None:
    source, whole = uninterrupted
    output = tmp_path / "scores.jsonl"
    slow = ("--batch-size", "2", "--concurrency", "1")

    exit_code, _ = stop_in_the_middle(start(source, output, *slow), output, 100, signal.SIGKILL)
    killed = output.read_bytes()
    assert exit_code == -signal.SIGKILL
    assert len(killed) < len(whole)
    assert whole.startswith(killed)

    partial = b"".join(killed.splitlines(keepends=True)[:100])[:-7]
    output.write_bytes(partial)
    exit_code, stderr = stop_in_the_middle(start(source, output, *slow), output, 600, signal.SIGINT)
    interrupted = output.read_bytes()
    assert exit_code == 130
    assert b"interrupted" in stderr
    assert b"Traceback" not in stderr
    assert len(partial) < len(interrupted) < len(whole)
    assert whole.startswith(interrupted)
    assert interrupted.endswith(b"\n")

    assert score(source, output).exit_code == 0
    assert output.read_bytes() == whole
