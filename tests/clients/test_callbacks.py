"""Callbacks of trainers, with a real `transformers` trainer, server and process group."""

import logging
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from support.servers import listening
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from assay.settings import Settings
from assay_client import APIConnectionError, Client, NotFoundError
from assay_client.callbacks.run_health import Firing, RunHealthMonitor, to_telemetry
from assay_client.callbacks.trl import HealthMonitorCallback
from assay_client.callbacks.verl import VerlHook

RUN = "team/exp-17"
HALF_FAILING = [{"text": "nan"}] * 128 + [{"text": "ccc"}] * 128
LIBRARY_WARNINGS = "ignore:.*:Warning"
PROGRAM = """
import sys
from types import SimpleNamespace
import torch.distributed as dist
from assay_client import Client
from assay_client.callbacks.trl import HealthMonitorCallback
url, file, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
callback = HealthMonitorCallback(Client(url), "team/exp-17", every=2, stop_at="critical")
for step in range(1, 5):
    state = SimpleNamespace(global_step=step, is_world_process_zero=rank == 0)
    control = SimpleNamespace(should_training_stop=False)
    callback.on_step_end(None, state, control)
    if control.should_training_stop:
        break
print(step)
dist.destroy_process_group()
"""


@pytest.fixture
def url(scripted_settings: Settings, tmp_path: Path) -> Iterator[str]:
    settings = scripted_settings.model_copy(update={"runs": tmp_path / "runs.db"})
    with listening(settings) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture
def make_client() -> Iterator[Callable[..., Client]]:
    """A function that makes clients, which are closed at the end."""
    clients: list[Client] = []

    def make(url: str, **fields: Any) -> Client:
        clients.append(Client(url, **fields))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def make_critical(client: Client) -> None:
    """Make `null_share` of the run critical, and wait until the server reports it."""
    client.score("scripted", HALF_FAILING, run={"id": RUN, "step": 0}, on_error="none")
    while not _firing(client):
        pass


def _firing(client: Client) -> bool:
    try:
        return bool(client.run_health(RUN).firing)
    except NotFoundError:
        return False


class LinearModel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.weight * x - 2 * x) ** 2).mean()}


def trained(folder: Path, callback: Any, steps: int = 6) -> Trainer:
    arguments = TrainingArguments(
        str(folder), max_steps=steps, logging_steps=1, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    data = [{"x": torch.tensor([float(number)])} for number in range(8)]
    trainer = Trainer(LinearModel(), arguments, train_dataset=data, callbacks=[callback])
    trainer.train()
    return trainer


@pytest.mark.filterwarnings(LIBRARY_WARNINGS)
def test_a_real_trainer_stops_when_a_rule_is_critical(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_critical(client)
    calls: list[tuple[int, list[Firing]]] = []
    callback = HealthMonitorCallback(
        client, RUN, every=2, stop_at="critical", telemetry={"loss": "loss"},
        on_firing=lambda step, firing: calls.append((step, list(firing))),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "assay_client"):
        assert trained(tmp_path, callback).state.global_step == 2
    ((step, (rule,)),) = calls
    assert (step, rule.rule, rule.severity) == (2, "null_share", "critical")
    assert rule.model == "scripted@1"
    assert f"run {RUN}, step 2: null_share is critical since step 0" in caplog.text
    assert callback.monitor.failures == 0


@pytest.mark.filterwarnings(LIBRARY_WARNINGS)
def test_without_stop_at_a_rule_is_logged_once_and_training_continues(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_critical(client)
    with caplog.at_level(logging.WARNING, "assay_client"):
        trainer = trained(tmp_path, HealthMonitorCallback(client, RUN, every=2))
    assert trainer.state.global_step == 6
    assert caplog.text.count("null_share is critical") == 1


@pytest.mark.filterwarnings(LIBRARY_WARNINGS)
def test_the_trainers_figures_are_recorded_under_the_step_that_was_scored(
    url: str, client: Client, tmp_path: Path
) -> None:
    callback = HealthMonitorCallback(client, RUN, every=100, telemetry={"loss": "entropy_nats"})
    trained(tmp_path, callback, steps=3)
    recorded: dict[int, Any] = {}
    while len(recorded) < 3:
        streams = httpx2.get(f"{url}/v1/runs/{RUN}/series").json().get("streams", [])
        recorded = {
            step["step"]: step["telemetry"] for stream in streams for step in stream["steps"]
        }
    assert sorted(recorded) == [0, 1, 2]
    assert all(set(values) == {"entropy_nats"} for values in recorded.values())
    assert recorded[0]["entropy_nats"] > recorded[2]["entropy_nats"]
    assert callback.monitor.failures == 0


@pytest.mark.filterwarnings(LIBRARY_WARNINGS)
def test_an_unreachable_server_is_logged_and_counted_and_training_continues(
    tmp_path: Path, refused_url: str, make_client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    callback = HealthMonitorCallback(
        make_client(refused_url, max_retries=0),
        RUN,
        every=2,
        stop_at="warn",
        telemetry={"loss": "x"},
    )
    assert trained(tmp_path, callback).state.global_step == 6
    assert callback.monitor.failures == 3 + 6
    assert "9 times now" in caplog.text


def test_an_unreachable_server_raises_an_error_if_configured(
    refused_url: str, make_client: Any
) -> None:
    monitor = RunHealthMonitor(make_client(refused_url, max_retries=0), RUN, unreachable="raise")
    with pytest.raises(APIConnectionError):
        monitor.check(1)
    with pytest.raises(APIConnectionError):
        monitor.record_telemetry(1, {"kl": 0.5})
    monitor.record_telemetry(1, {})


def test_the_callback_has_a_method_for_every_event() -> None:
    callback = HealthMonitorCallback(Client("http://127.0.0.1:9"), RUN)
    events = [name for name in vars(TrainerCallback) if name.startswith("on_")]
    assert len(events) >= 15
    state = TrainerState(global_step=1)
    for name in events:
        assert getattr(callback, name)(None, state, TrainerControl(), logs={}) is None
    with pytest.raises(AttributeError):
        callback.state()
    assert pickle.loads(pickle.dumps(callback)).every == callback.every


def test_all_processes_stop_at_the_same_step(url: str, client: Client, tmp_path: Path) -> None:
    make_critical(client)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, str(tmp_path / "rendezvous"), str(rank)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["2\n", "2\n"]


def test_only_the_selected_rules_are_considered(server: Any, canned: Any, make_client: Any) -> None:
    client = make_client(server.url)
    calls: list[list[str]] = []
    stops = {}
    for rules in (None, ["kl_jump"], ["gold"], ["null_share"]):
        monitor = RunHealthMonitor(
            client, RUN, rules=rules, stop_at="critical",
            on_firing=lambda _, firing: calls.append([rule.rule for rule in firing]),
        )  # fmt: skip
        stops[str(rules)] = monitor.check(1)
    assert stops == {"None": True, "['kl_jump']": False, "['gold']": True, "['null_share']": True}
    assert calls == [["null_share", "gold"], ["gold"], ["null_share"]]


def test_a_warning_stops_only_with_stop_at_warn(server: Any, canned: Any, make_client: Any) -> None:
    health = {**canned.health, "gold": []}
    stream = dict(health["streams"][0])
    stream["rules"] = [{**stream["rules"][0], "severity": "warn"}]
    health["streams"] = [stream]
    server.always = lambda received: canned.json(health)
    stops = [
        RunHealthMonitor(make_client(server.url), RUN, stop_at=severity).check(1)
        for severity in (None, "warn", "critical")
    ]
    assert stops == [False, True, False]


def test_telemetry_has_finite_numbers_under_the_servers_names() -> None:
    logs = {"entropy": 1.5, "kl": float("nan"), "objective/kl": torch.tensor(0.25), "note": "x"}
    names = {"entropy": "entropy_nats", "kl": "kl", "objective/kl": "kl", "note": "n", "no": "no"}
    assert to_telemetry(logs, names) == {"entropy_nats": 1.5, "kl": 0.25}
    assert to_telemetry({"flag": True, "none": None}, {"flag": "a", "none": "b"}) == {}


@pytest.mark.parametrize(
    "invalid", [{"stop_at": "ok"}, {"unreachable": "ignore"}, {"rules": "kl_jump"}, {"every": 0}]
)
@pytest.mark.parametrize(
    ("hook", "arguments"), [(HealthMonitorCallback, {}), (VerlHook, {"trainer": object()})]
)
def test_invalid_arguments_are_refused(
    hook: Any, arguments: dict[str, Any], invalid: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(invalid))):
        hook(Client("http://127.0.0.1:9"), RUN, **arguments, **invalid)


class Tracking:
    """A copy of verl's: loggers by name, each called with a step's figures."""

    def __init__(self, backend: str) -> None:
        self.logger: dict[str, Any] = {}
        self.backend = backend

    def log(self, data: dict[str, Any], step: int) -> None:
        for logger in self.logger.values():
            logger.log(data=data, step=step)


class VerlTrainer:
    """verl's loop, as far as it concerns a hook: the last step is known when a step begins."""

    def __init__(self, steps: int) -> None:
        self.total_training_steps = steps
        self.global_steps = 0
        self.saved: list[int] = []

    def fit(self) -> None:
        tracking = Tracking("console")
        self.global_steps = 1
        while True:
            last = self.global_steps >= self.total_training_steps
            if last:
                self.saved.append(self.global_steps)
            tracking.log({"actor/entropy": 0.5, "actor/lr": 1e-6}, self.global_steps)
            self.global_steps += 1
            if last:
                return


def test_verl_stops_after_one_more_step_and_saves_it(client: Client) -> None:
    make_critical(client)
    trainer, original_init = VerlTrainer(20), Tracking.__init__
    hook = VerlHook(client, RUN, trainer=trainer, every=4, stop_at="critical")
    with hook.tracking(Tracking):
        trainer.fit()
    assert trainer.saved == [5]
    assert Tracking.__init__ is original_init
    assert hook.monitor.failures == 0


def test_verl_runs_to_its_end_if_no_rule_fires(client: Client) -> None:
    trainer = VerlTrainer(3)
    hook = VerlHook(client, "unknown-run", trainer=trainer, every=2, stop_at="warn")
    with hook.tracking(Tracking):
        trainer.fit()
    assert trainer.saved == [3]


def test_stop_at_requires_verls_trainer() -> None:
    with pytest.raises(ValueError, match="needs the trainer"):
        VerlHook(Client("http://127.0.0.1:9"), RUN, stop_at="warn")
