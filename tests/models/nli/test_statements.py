"""Statements: sentences that are classified, and those that ask, lead in or decline."""

import pytest

from assay_models.families.nli.statements import is_refusal, is_statement, read_statement


@pytest.mark.parametrize(
    "text",
    [
        "I don't know.",
        "I\u2019m sorry, I can\u2019t help with that.",
        "I'm sorry, but the provided documents do not contain information about the size of the "
        "ferry, so I cannot answer this question.",
        "I cannot answer this question because the evidence does not mention it.",
        "Unfortunately, I do not have enough information to answer that question.",
        "Based on the provided context, I cannot answer the question.",
        "As an AI language model, I cannot provide medical advice.",
        "I'm not sure.",
        "There is no information in the passages about the ferry.",
        "Not enough information is available.",
        "The answer cannot be determined from the context.",
        "The context doesn't say how many cars the ferry carries.",
        "Unknown.",
        "I'm sorry ,  I do  not know \t but  I cannot  say.",
    ],
)
def test_a_sentence_that_declines_to_answer_is_a_refusal(text: str) -> None:
    assert is_refusal(text)
    assert read_statement(text)[1] == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        "I don't know why the ferry carries ninety cars.",
        "I cannot find the page, but the ferry carries ninety cars.",
        "I do not know the answer because the ferry carries ninety cars.",
        "I'm sorry, the ferry carries ninety cars.",
        "Unfortunately, the ferry sank.",
        "The evidence does not support the use of aspirin in children.",
        "It is not known whether aspirin helps.",
        "The document states that the ferry carries ninety cars.",
        "The ferry does not carry cars.",
        "There is no ferry to the island.",
    ],
)
def test_a_sentence_that_states_something_is_no_refusal(text: str) -> None:
    assert read_statement(text) == (text, None)


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("The ferry carries ninety cars?", "The ferry carries ninety cars."),
        ("The ferry carries ninety cars, right?", "The ferry carries ninety cars."),
        ("Did you know that the ferry sank in May?", "The ferry sank in May."),
        ("Were you aware that the ferry leaves at nine?", "The ferry leaves at nine."),
        ("There are three ferries:", "There are three ferries."),
    ],
)
def test_a_question_or_lead_in_that_states_something_is_read_as_a_statement(
    text: str, statement: str
) -> None:
    assert read_statement(text) == (statement, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Is that all for today?", "question"),
        ("And is the bridge made of steel?", "question"),
        ("Ready to go there now?", "question"),
        ("What is it that the ferry carries?", "question"),
        ("Install it like this:", "lead_in"),
        ("To install the package:", "lead_in"),
        ("Here is an example of it:", "lead_in"),
        ("The ferry has the following features:", "lead_in"),
    ],
)
def test_other_questions_and_lead_ins_state_nothing(text: str, reason: str) -> None:
    assert read_statement(text)[1] == reason


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("The ferry carries ninety cars", True),
        ("The bridge was never rebuilt", True),
        ("Aspirin causes no bleeding", True),
        ("The museum opened in 1980", True),
        ("The ferry to the island.", True),
        ("The ferry to the island", False),
        ("How the bridge was built", False),
        ("When the ferry leaves the port", False),
        ("Key results", False),
        ("Overview of speed limits", False),
        ("Costs and times", False),
        ("Effects on children", False),
    ],
)
def test_a_line_with_a_verb_or_a_full_stop_is_a_statement(line: str, is_one: bool) -> None:
    assert is_statement(line) is is_one
