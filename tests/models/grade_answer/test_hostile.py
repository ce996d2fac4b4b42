"""Answers written to stall or to kill the grader, in real worker processes."""

import random
from collections import Counter

import pytest
from support.tiers import only_nightly

from assay_models.answers.canonical import Form, Query, Unreadable, read_answer
from assay_models.answers.pool import MathForms
from assay_models.workers.pool import WorkerPool

BOUNDED = (
    "9^{9^{9^{9}}}",
    "10^{10^{10}}",
    "9**9**9",
    r"\sum_{n=1}^{10000000} n^{-0.3}",
    r"\prod_{k=1}^{1000000}(x+k)",
    "(" * 3000 + "1" + ")" * 3000,
    "{" * 900 + "1" + "}" * 900,
    "9" * 100_000,
    "0." + "3" * 5000,
    "999999999!",
    "5!!!!!!",
    "1e999999999",
    "x+" * 1500 + "x",
    r"\frac{" * 300 + "1" + "}{2}" * 300,
)
ENDLESS = r"\int_0^\infty e^{-x^x}\sin(x^x) dx"
COSTLY = ("(x+y+z)^{500}", r"\sqrt{" * 30 + "2" + "}" * 30, "x" + "+x" * 500, r"2^{9999}")


@pytest.mark.parametrize("text", BOUNDED, ids=lambda text: text[:20])
def test_a_hostile_text_is_refused_before_it_is_parsed(text: str) -> None:
    with pytest.raises(Unreadable) as error:
        read_answer(text, "math")
    assert error.value.is_limit


class Counted(MathForms):
    """Forms from workers, with the replies of the pool counted."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = Counter[bytes]()

    def _ask(self, request: bytes) -> bytes:
        self.asked[request] += 1
        return super()._ask(request)


@pytest.mark.slow
async def test_a_text_that_takes_too_long_is_killed_once_and_the_next_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forms = Counted()
    try:
        for _ in range(3):
            with pytest.raises(Unreadable) as error:
                await form_of(forms, ENDLESS)
            assert error.value.is_limit
        for text in COSTLY:
            assert await form_of(forms, text)
        assert (await form_of(forms, r"\sqrt{16}")).exact == "4"
        assert set(forms.asked.values()) == {1}
    finally:
        forms.workers.close()


async def form_of(forms: MathForms, text: str) -> Form:
    reading = read_answer(text, "math")
    assert isinstance(reading, Query)
    return await forms.form(reading)


_SIGNS = r"""
0 1 2 7 x y z n + - \cdot / ^ { } ( ) [ ] , ; = < > | ! \frac \sqrt \pi e i \% ^\circ
"""
SIGNS = _SIGNS.split()
SHAPES = (
    "{a}",
    "-{a}",
    r"\frac{{{a}}}{{{b}}}",
    r"{a}\sqrt{{{b}}}",
    "({a},{b})",
    r"\{{{a},{b}\}}",
    "x={a}",
    "{a}<x<{b}",
    "{a}x^2+{b}",
    "{a}.{b}",
    r"{a}\pi",
    "{a},{b}",
    r"\begin{{pmatrix}}{a}\\{b}\end{{pmatrix}}",
)


@only_nightly
@pytest.mark.timeout(3600)
async def test_a_hundred_thousand_generated_answers_have_a_form_or_a_reason() -> None:
    chance, forms = random.Random(5), Counted()
    seen: Counter[str] = Counter()
    try:
        for _ in range(100_000):
            text = _generated(chance)
            try:
                reading = read_answer(text, "math")
                form = await forms.form(reading) if isinstance(reading, Query) else reading
                seen["form"] += bool(form.exact)
            except Unreadable as error:
                seen["limit" if error.is_limit else "unread"] += 1
    finally:
        forms.workers.close()
    assert seen.total() == 100_000
    assert seen["form"] > 50_000
    assert set(forms.asked.values()) == {1}


def _generated(chance: random.Random) -> str:
    if chance.random() < 0.2:
        return "".join(chance.choices(SIGNS, k=chance.randint(1, 12)))
    return chance.choice(SHAPES).format(a=chance.randint(0, 40), b=chance.randint(1, 40))


def test_no_worker_is_started_for_answers_that_need_none() -> None:
    forms = MathForms()
    assert isinstance(forms.workers, WorkerPool)
    for text in ("1/2", r"\text{even}", r"10\%"):
        assert isinstance(read_answer(text, "math"), Form)
    assert forms.workers._groups == {}
