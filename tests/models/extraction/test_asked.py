"""The names that a problem asks for, read from its prompt or its tests."""

import pytest

from assay_models.extraction.asked import MAX_CHARACTERS, asked_by_prompt, asked_by_tests

PROMPTS = {
    "Write a function add(a, b) that adds.": {"add"},
    "Write a function called `add` that adds.": {"add"},
    'Write a method named "add".': {"add"},
    "Implement `add`.": {"add"},
    "Implement the `LRUCache` class.": {"LRUCache"},
    "Complete `int add(int a, int b)` in C.": {"add"},
    "Please finish:\n\ndef add(a: int, b: int) -> int:\n    '''Add.'''\n": {"add"},
    "class Solution:\n    def twoSum(self, nums):\n": {"Solution", "twoSum"},
    "class Solution {\npublic:\n    int twoSum(vector<int>& nums) {\n    }\n};": {
        "Solution",
        "twoSum",
    },
    "func (s *Stack) Push(x int) {": {"Push"},
    "pub fn add(a: i32) -> i32": {"add"},
    "export async function add(a) {": {"add"},
    "Add the numbers.\nassert add(1, 2) == 3\nassert set(keys(1)) == {1}": {"add", "keys"},
    "Write a function that sorts with `sorted(x)`.": set(),
    "Read n and print n. The class of the problem is easy.": set(),
    "": set(),
}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_asks_for_the_names_that_it_states(prompt: str) -> None:
    assert asked_by_prompt(prompt) == PROMPTS[prompt]


@pytest.mark.parametrize(
    ("tests", "names"),
    [
        (["assert add(1, 2) == 3", "assert abs(sub(2, 1)) == 1"], {"add", "sub"}),
        (["def check(candidate):\n    assert candidate(1)\ncheck(add)"], {"candidate"}),
        (["stack = Stack()\nstack.push(1)\nassert len(stack) == 1"], {"Stack"}),
        (["def helper(x):\n    return x\nassert helper(f(1)) == 1"], {"f"}),
        (["assert value == 1"], set()),
    ],
)
def test_tests_ask_for_the_names_that_they_call_and_do_not_define(
    tests: list[str], names: set[str]
) -> None:
    assert asked_by_tests(tests) == names


def test_only_the_end_of_a_long_prompt_is_read() -> None:
    assert asked_by_prompt("Write `first`. " + "a " * MAX_CHARACTERS + "Write `last`.") == {"last"}
