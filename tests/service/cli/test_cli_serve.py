"""`assay serve` as a real process, and `assay score --url` against it."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support.item_files import results_of, run, score
from support.processes import ASSAY, Server, serving

WITHOUT_CLIENT = (
    sys.executable,
    "-c",
    "import sys; sys.modules['assay_client'] = None; from assay.cli import app; app()",
)
ITEMS = "".join(
    json.dumps({"id": f"item-{n}", "prompt": f"count to {n} and back", "response": f"{n} and"})
    + "\n"
    for n in range(300)
)
BROKEN_CARD = """
name = "broken"
version = 1
family = "reference"
example = { item = { text = "a", text_pair = "a" }, score = 9.0, tolerance = 0.1 }
"""
BAD_LINES = '{"prompt": "broken\n[1]\n{"text": "t", "typo": 1}\n{"prompt": "only a prompt"}\n'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--port", "0") as server:
        yield server


class TestServing:
    def test_it_prints_the_models_and_the_address(self, server: Server) -> None:
        first = server.output.splitlines()[0]
        assert re.fullmatch(r"Assay \S+ serves reference@1 on http://127\.0\.0\.1:\d+", first)
        models = httpx2.get(f"{server.url}/v1/models").json()["models"]
        assert [model["id"] for model in models] == ["reference@1"]

    def test_each_line_of_the_log_has_time_level_and_logger(self, server: Server) -> None:
        lines = server.output.splitlines()[1:]
        assert len(lines) >= 4
        for line in lines:
            time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d{4}"
            assert re.match(rf"{time} INFO:     (uvicorn|assay)[\w.]*: ", line), line

    def test_an_accepted_request_is_answered_after_sigterm(self) -> None:
        body = json.dumps({"model": "reference", "items": [{"text": "a b", "text_pair": "a"}]})
        head = (
            "POST /v1/score HTTP/1.1\r\nHost: assay\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        with (
            serving("--port", "0") as server,
            socket.create_connection(("127.0.0.1", server.port)) as connection,
            connection.makefile("rb") as replies,
        ):
            connection.sendall(head.encode())
            assert replies.readline().startswith(b"HTTP/1.1 100")
            server.process.send_signal(signal.SIGTERM)
            server.read_until("Waiting for connections to close")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(body.encode())
            answer = replies.read()
            assert b"HTTP/1.1 200" in answer
            assert b'"score":0.0' in answer
            assert server.process.wait(30) == -signal.SIGTERM

    def test_an_address_in_use_is_one_error_line(self, server: Server) -> None:
        result = run("serve", "--port", str(server.port), ASSAY_MODELS="reference")
        assert result.exit_code == 3
        assert f"cannot listen on 127.0.0.1 port {server.port}" in result.stderr
        assert "Traceback" not in result.output

    def test_a_unix_socket_serves_beside_a_port_and_goes_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "assay.sock"
        body = {"model": "reference", "items": [{"text": "a b", "text_pair": "a"}]}
        with serving("--port", "0", ASSAY_HOST=f"127.0.0.1,unix:{path}") as server:
            assert f", unix:{path}" in server.output
            transport = httpx2.HTTPTransport(uds=str(path))
            with httpx2.Client(transport=transport, base_url="http://assay") as client:
                assert client.post("/v1/score", json=body).status_code == 200
                assert httpx2.get(f"{server.url}/readyz").status_code == 200
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(30) == -signal.SIGTERM
        assert not path.exists()

    def test_variables_of_kubernetes_services_do_not_stop_it(self) -> None:
        links = {"ASSAY_PORT_80_TCP": "tcp://10.0.0.1:80", "ASSAY_SERVICE_HOST": "10.0.0.1"}
        with serving("--port", "0", **links) as server:
            assert server.output.count("ASSAY_PORT_80_TCP, ASSAY_SERVICE_HOST") == 1
            assert httpx2.get(f"{server.url}/readyz").status_code == 200

    def test_the_prefix_of_a_proxy_is_part_of_the_address(self) -> None:
        with serving("--port", "0", ASSAY_ROOT_PATH="/assay") as server:
            assert re.search(r"http://127\.0\.0\.1:\d+/assay\n", server.output)
            assert httpx2.get(f"{server.url}/assay/readyz").status_code == 200

    def test_the_prefix_of_a_proxy_is_no_part_of_a_socket(self, tmp_path: Path) -> None:
        first, last = (f"unix:{tmp_path / name}" for name in ("a.sock", "b.sock"))
        hosts = f"{first},127.0.0.1,{last}"
        with serving("--port", "0", ASSAY_HOST=hosts, ASSAY_ROOT_PATH="/assay") as server:
            line = server.output.splitlines()[0]
        assert line.endswith(f" on {first}, {server.url}/assay, {last}")

    def test_a_malformed_address_is_a_usage_error(self) -> None:
        result = run("serve", "--host", "unix:relative", ASSAY_MODELS="reference")
        assert result.exit_code == 2
        assert "ASSAY_HOST: a Unix socket is unix: and an absolute path" in result.stderr

    @pytest.mark.parametrize("keys", ["", " ", ",", "k"])
    def test_keys_that_protect_nothing_stop_it_at_start(self, keys: str) -> None:
        result = run("serve", "--host", "0.0.0.0", ASSAY_MODELS="reference", ASSAY_API_KEYS=keys)
        assert result.exit_code == 2
        assert "error: ASSAY_API_KEYS: " in result.stderr
        assert "make one with `openssl rand -hex 32`" in result.stderr

    @pytest.mark.slow
    def test_a_changed_file_of_keys_is_read_while_it_serves(self, tmp_path: Path) -> None:
        file, old, new = tmp_path / "keys.toml", "the-key-until-now", "the-key-from-now-on"

        def write(key: str) -> None:
            digest = hashlib.sha256(key.encode()).hexdigest()
            file.write_text(f'[trainer]\nscopes = ["score"]\nsha256 = "{digest}"\n')

        def status(url: str, key: str) -> int:
            return httpx2.get(f"{url}/version", headers={"X-API-Key": key}).status_code

        write(old)
        with serving("--port", "0", ASSAY_API_KEYS_FILE=str(file)) as server:
            assert (status(server.url, old), status(server.url, new)) == (200, 403)
            write(new)
            server.read_until("read 1 API keys again")
            assert (status(server.url, old), status(server.url, new)) == (403, 200)

    def test_it_ends_with_the_reason_if_no_model_can_be_loaded(self, tmp_path: Path) -> None:
        add_broken_card(tmp_path)
        result = serve_until_end(ASSAY_MODELS="broken", ASSAY_REPOSITORY=str(tmp_path))
        assert result.returncode == 3
        error, hint = result.stderr.splitlines()[-2:]
        assert error.startswith("error: no model could be loaded: the card's example scores")
        assert hint == "hint: mend the reason and start it again"
        assert "Traceback" not in result.stderr

    def test_it_serves_the_other_models_if_one_cannot_be_loaded(self, tmp_path: Path) -> None:
        add_broken_card(tmp_path)
        variables = {"ASSAY_MODELS": "broken,reference", "ASSAY_REPOSITORY": str(tmp_path)}
        with serving("--port", "0", **variables) as server:
            answer = httpx2.get(f"{server.url}/readyz")
            assert answer.status_code == 503
            assert answer.json()["models"]["reference@1"] == "ready"


def add_broken_card(root: Path) -> None:
    """Write a card whose example has another score than the model computes."""
    folder = root / "broken" / "1"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(BROKEN_CARD)


def serve_until_end(**variables: str) -> subprocess.CompletedProcess[str]:
    """Run `assay serve`, which ends by itself."""
    environment = {name: text for name, text in os.environ.items() if "ASSAY_" not in name}
    return subprocess.run(
        [*ASSAY, "serve", "--port", "0"],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


class TestScoringOnAServer:
    def test_results_equal_those_of_this_process(self, server: Server, tmp_path: Path) -> None:
        source = tmp_path / "items.jsonl"
        source.write_text(BAD_LINES + ITEMS + "\n" + BAD_LINES)
        local, remote = tmp_path / "local.jsonl", tmp_path / "remote.jsonl"
        assert score(source, local).exit_code == 1
        assert score(source, remote, "--url", server.url, "--batch-size", "7").exit_code == 1
        expected, found = results_of(local), results_of(remote)
        assert {row.pop("setup") for row in found} == {None}
        assert len({row.pop("setup") for row in expected}) == 1
        for row in found:
            row["source"] = row["source"] and "computed"
        assert found == expected
        again = score(source, remote, "--url", server.url)
        assert "308 of them by an earlier run" in again.stderr

    def test_other_options_on_a_server_are_refused(self, server: Server, tmp_path: Path) -> None:
        source, output = tmp_path / "items.jsonl", tmp_path / "scores.jsonl"
        source.write_text(ITEMS)
        assert score(source, output, "--url", server.url).exit_code == 0
        refused = score(source, output, "--url", server.url, "--raw")
        assert refused.exit_code == 2
        assert "fingerprint" in refused.stderr

    def test_an_unknown_model_on_a_server_is_a_usage_error(
        self, server: Server, tmp_path: Path
    ) -> None:
        source, output = tmp_path / "items.jsonl", tmp_path / "scores.jsonl"
        source.write_text(ITEMS)
        arguments = ["score", str(source), "--model", "unknown", "-o", str(output)]
        result = run(*arguments, "--url", server.url)
        assert result.exit_code == 2
        assert "model_not_found" in result.stderr
        assert "served: reference@1" in result.stderr

    def test_the_key_is_read_from_the_environment(self, tmp_path: Path) -> None:
        source, output = tmp_path / "items.jsonl", tmp_path / "scores.jsonl"
        source.write_text(ITEMS)
        with serving("--port", "0", ASSAY_API_KEYS="right-0123456789abc") as server:
            refused = score(source, output, "--url", server.url, ASSAY_API_KEY="wrong")
            assert refused.exit_code == 2
            assert "403 forbidden" in refused.stderr
            accepted = score(
                source, output, "--url", server.url, ASSAY_API_KEY="right-0123456789abc"
            )
            assert accepted.exit_code == 0

    def test_an_unreachable_server_stops_the_command_and_keeps_the_results(
        self, tmp_path: Path
    ) -> None:
        source, output = tmp_path / "items.jsonl", tmp_path / "scores.jsonl"
        source.write_text(ITEMS)
        with serving("--port", "0") as server:
            score(source, output, "--url", server.url)
            source.write_text(ITEMS + '{"text": "one more"}\n')
            before = output.read_bytes()
            server.process.kill()
            server.process.wait()
            stopped = score(source, output, "--url", server.url, "--timeout", "0.5")
        assert stopped.exit_code == 3
        assert "hint: start the server, " in stopped.stderr
        assert "; the same command goes on" in stopped.stderr
        assert output.read_bytes() == before
        assert score(source, output).exit_code == 0
        assert len(output.read_bytes().splitlines()) == 301

    def test_a_malformed_url_is_a_usage_error(self, tmp_path: Path) -> None:
        source, output = tmp_path / "items.jsonl", tmp_path / "scores.jsonl"
        source.write_text(ITEMS)
        result = score(source, output, "--url", "nowhere")
        assert result.exit_code == 2
        assert "--url: base_url has no scheme" in result.stderr

    def test_a_missing_client_package_is_a_usage_error(self, tmp_path: Path) -> None:
        source = tmp_path / "items.jsonl"
        source.write_text(ITEMS)
        arguments = ["score", str(source), "--model", "reference", "-o", "-", "--url", "http://h"]
        done = subprocess.run(
            [*WITHOUT_CLIENT, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            "error: --url needs the package 'assay_client'",
            "hint: install the client: pip install ./clients, in a checkout of Assay",
        ]
