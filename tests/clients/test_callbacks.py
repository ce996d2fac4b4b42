"""The hooks of trainers: real `transformers` trainers, a real server, two real processes."""

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
from assay_client.callbacks.run_health import Firing, HealthGuard, named
from assay_client.callbacks.trl import AssayCallback
from assay_client.callbacks.verl import VerlHook

RUN = "team/exp-17"
SPOILED = [{"text": "nan"}] * 128 + [{"text": "ccc"}] * 128
TRUSTED = "ignore:.*:Warning"  # what libraries warn of is theirs
PROGRAM = """
import sys
from types import SimpleNamespace
import torch.distributed as dist
from assay_client import Client
from assay_client.callbacks.trl import AssayCallback
url, file, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
callback = AssayCallback(Client(url), "team/exp-17", every=2, stop_at="critical")
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
def client(scripted_settings: Settings, tmp_path: Path) -> Iterator[Client]:
    settings = scripted_settings.model_copy(update={"runs": tmp_path / "runs.db"})
    with listening(settings) as url, Client(url) as one:
        yield one


@pytest.fixture
def ask() -> Iterator[Callable[..., Client]]:
    """Makes clients, and closes them."""
    made: list[Client] = []

    def make(url: str, **fields: Any) -> Client:
        made.append(Client(url, **fields))
        return made[-1]

    yield make
    for client in made:
        client.close()


def spoil(client: Client) -> None:
    """Make the run one whose `null_share` is critical, and wait until it is known."""
    client.score("scripted", SPOILED, run={"id": RUN, "step": 0}, on_error="none")
    while not _firing(client):
        pass


def _firing(client: Client) -> bool:
    try:
        return bool(client.health(RUN).firing)
    except NotFoundError:
        return False


class Line(torch.nn.Module):
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
    trainer = Trainer(Line(), arguments, train_dataset=data, callbacks=[callback])
    trainer.train()
    return trainer


@pytest.mark.filterwarnings(TRUSTED)
def test_a_real_trainer_stops_where_a_rule_is_critical(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(client)
    called: list[tuple[int, list[Firing]]] = []
    callback = AssayCallback(
        client, RUN, every=2, stop_at="critical", telemetry={"loss": "loss"},
        on_firing=lambda step, firing: called.append((step, list(firing))),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "assay_client"):
        assert trained(tmp_path, callback).state.global_step == 2
    ((step, (one,)),) = called
    assert (step, one.rule, one.severity, one.model) == (2, "null_share", "critical", "scripted@1")
    assert f"run {RUN}, step 2: null_share is critical since step 0" in caplog.text
    assert callback.guard.failures == 0


@pytest.mark.filterwarnings(TRUSTED)
def test_without_stop_at_it_warns_once_and_the_training_goes_on(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(client)
    with caplog.at_level(logging.WARNING, "assay_client"):
        trainer = trained(tmp_path, AssayCallback(client, RUN, every=2))
    assert trainer.state.global_step == 6
    assert caplog.text.count("null_share is critical") == 1


@pytest.mark.filterwarnings(TRUSTED)
def test_what_the_trainer_logs_is_told_under_the_step_that_was_scored(
    client: Client, tmp_path: Path
) -> None:
    callback = AssayCallback(client, RUN, every=100, telemetry={"loss": "entropy_nats"})
    trained(tmp_path, callback, steps=3)
    url = f"{client._config.base_urls[0]}/v1/runs/{RUN}/series"
    told: dict[int, Any] = {}
    while len(told) < 3:
        streams = httpx2.get(url).json().get("streams", [])
        told = {one["step"]: one["telemetry"] for stream in streams for one in stream["steps"]}
    assert sorted(told) == [0, 1, 2]
    assert all(set(one) == {"entropy_nats"} for one in told.values())
    assert told[0]["entropy_nats"] > told[2]["entropy_nats"]
    assert callback.guard.failures == 0


@pytest.mark.filterwarnings(TRUSTED)
def test_a_server_that_is_away_is_warned_of_counted_and_holds_up_nothing(
    tmp_path: Path, refused_url: str, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    callback = AssayCallback(
        ask(refused_url, max_retries=0), RUN, every=2, stop_at="warn", telemetry={"loss": "x"}
    )
    assert trained(tmp_path, callback).state.global_step == 6
    assert callback.guard.failures == 3 + 6
    assert "9 times now" in caplog.text


def test_where_it_is_asked_for_a_server_that_is_away_is_an_error(
    refused_url: str, ask: Any
) -> None:
    guard = HealthGuard(ask(refused_url, max_retries=0), RUN, unreachable="raise")
    with pytest.raises(APIConnectionError):
        guard.look(1)
    with pytest.raises(APIConnectionError):
        guard.tell(1, {"kl": 0.5})
    guard.tell(1, {})


def test_every_event_of_a_trainer_finds_a_method() -> None:
    callback = AssayCallback(Client("http://127.0.0.1:9"), RUN)
    events = [name for name in vars(TrainerCallback) if name.startswith("on_")]
    assert len(events) >= 15
    state = TrainerState(global_step=1)
    for name in events:
        assert getattr(callback, name)(None, state, TrainerControl(), logs={}) is None
    with pytest.raises(AttributeError):
        callback.state()
    assert pickle.loads(pickle.dumps(callback)).every == callback.every


def test_processes_stop_at_one_step_by_the_decision_of_the_first(
    client: Client, tmp_path: Path
) -> None:
    spoil(client)
    url = client._config.base_urls[0]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, str(tmp_path / "rendezvous"), str(rank)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    assert [one.communicate(timeout=120)[0] for one in processes] == ["2\n", "2\n"]


def test_only_the_rules_that_count_count(server: Any, say: Any, ask: Any) -> None:
    client = ask(server.url)
    called: list[list[str]] = []
    looks = {}
    for rules in (None, ["kl_jump"], ["gold"], ["null_share"]):
        guard = HealthGuard(
            client, RUN, rules=rules, stop_at="critical",
            on_firing=lambda _, firing: called.append([one.rule for one in firing]),
        )  # fmt: skip
        looks[str(rules)] = guard.look(1)
    assert looks == {"None": True, "['kl_jump']": False, "['gold']": True, "['null_share']": True}
    assert called == [["null_share", "gold"], ["gold"], ["null_share"]]


def test_a_warning_does_not_stop_what_only_criticals_stop(server: Any, say: Any, ask: Any) -> None:
    mild = {**say.health, "gold": []}
    stream = dict(mild["streams"][0])
    stream["rules"] = [{**stream["rules"][0], "severity": "warn"}]
    mild["streams"] = [stream]
    server.always = lambda seen: say.json(mild)
    looks = [
        HealthGuard(ask(server.url), RUN, stop_at=severity).look(1)
        for severity in (None, "warn", "critical")
    ]
    assert looks == [False, True, False]


def test_figures_are_told_by_the_servers_names_and_only_numbers_are() -> None:
    logs = {"entropy": 1.5, "kl": float("nan"), "objective/kl": torch.tensor(0.25), "note": "x"}
    names = {"entropy": "entropy_nats", "kl": "kl", "objective/kl": "kl", "note": "n", "no": "no"}
    assert named(logs, names) == {"entropy_nats": 1.5, "kl": 0.25}
    assert named({"flag": True, "none": None}, {"flag": "a", "none": "b"}) == {}


@pytest.mark.parametrize(
    "wrong", [{"stop_at": "ok"}, {"unreachable": "ignore"}, {"rules": "kl_jump"}, {"every": 0}]
)
@pytest.mark.parametrize(("hook", "more"), [(AssayCallback, {}), (VerlHook, {"trainer": 1})])
def test_arguments_that_cannot_be_meant_are_refused(
    hook: Any, more: dict[str, Any], wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        hook(
            Client("http://127.0.0.1:9"),
            RUN,
            **{"trainer": object(), **wrong} if hook is VerlHook else wrong,
        )


class Tracking:
    """As verl's: loggers by name, each called with a step's figures."""

    def __init__(self, backend: str) -> None:
        self.logger: dict[str, Any] = {}
        self.backend = backend

    def log(self, data: dict[str, Any], step: int) -> None:
        for logger in self.logger.values():
            logger.log(data=data, step=step)


class VerlTrainer:
    """verl's loop as far as a hook sees it: the last step is known when a step begins."""

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


def test_verl_stops_after_one_more_step_which_it_saves(client: Client) -> None:
    spoil(client)
    trainer, begin = VerlTrainer(20), Tracking.__init__
    hook = VerlHook(client, RUN, trainer=trainer, every=4, stop_at="critical")
    with hook.tracking(Tracking):
        trainer.fit()
    assert trainer.saved == [5]
    assert Tracking.__init__ is begin
    assert hook.guard.failures == 0


def test_verl_ends_when_it_would_where_nothing_fires(client: Client) -> None:
    trainer = VerlTrainer(3)
    hook = VerlHook(client, "nobody", trainer=trainer, every=2, stop_at="warn")
    with hook.tracking(Tracking):
        trainer.fit()
    assert trainer.saved == [3]


def test_to_stop_verl_its_trainer_is_needed() -> None:
    with pytest.raises(ValueError, match="needs the trainer"):
        VerlHook(Client("http://127.0.0.1:9"), RUN, stop_at="warn")
