"""Ten small problems, each with a correct program and one that is subtly wrong."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SmokeCase:
    """A problem with a correct and a subtly wrong program."""

    name: str
    prompt: str
    correct: str
    wrong: str


SMOKE = (
    SmokeCase(
        "leap year",
        "Write a function is_leap(year) for the Gregorian calendar.",
        "def is_leap(year):\n    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)",
        "def is_leap(year):\n    return year % 4 == 0 and year % 100 != 0 and year % 400 == 0",
    ),
    SmokeCase(
        "second largest",
        "Write second_largest(values): the second largest distinct number of a list, or None.",
        "def second_largest(values):\n    distinct = sorted(set(values))\n"
        "    return distinct[-2] if len(distinct) > 1 else None",
        "def second_largest(values):\n    ordered = sorted(values)\n"
        "    return ordered[-2] if len(ordered) > 1 else None",
    ),
    SmokeCase(
        "running total",
        "Write running_total(numbers) that returns the list of partial sums.",
        "def running_total(numbers):\n    total, sums = 0, []\n    for number in numbers:\n"
        "        total += number\n        sums.append(total)\n    return sums",
        "def running_total(numbers):\n    total, sums = 0, []\n    for number in numbers:\n"
        "        sums.append(total)\n        total += number\n    return sums",
    ),
    SmokeCase(
        "vowels",
        "Write count_vowels(text): how many letters of the text are vowels, in either case.",
        "def count_vowels(text):\n    return sum(letter in 'aeiou' for letter in text.lower())",
        "def count_vowels(text):\n    return sum(letter in 'aeiou' for letter in text)",
    ),
    SmokeCase(
        "binary search",
        "Write find(ordered, wanted): the index of wanted in a sorted list, or -1.",
        "def find(ordered, wanted):\n    low, high = 0, len(ordered) - 1\n    while low <= high:\n"
        "        middle = (low + high) // 2\n        if ordered[middle] == wanted:\n"
        "            return middle\n        if ordered[middle] < wanted:\n"
        "            low = middle + 1\n        else:\n            high = middle - 1\n    return -1",
        "def find(ordered, wanted):\n    low, high = 0, len(ordered) - 1\n    while low < high:\n"
        "        middle = (low + high) // 2\n        if ordered[middle] == wanted:\n"
        "            return middle\n        if ordered[middle] < wanted:\n"
        "            low = middle + 1\n        else:\n            high = middle - 1\n    return -1",
    ),
    SmokeCase(
        "is prime",
        "Write is_prime(number) that says whether a non-negative integer is prime.",
        "def is_prime(number):\n    if number < 2:\n        return False\n    divisor = 2\n"
        "    while divisor * divisor <= number:\n        if number % divisor == 0:\n"
        "            return False\n        divisor += 1\n    return True",
        "def is_prime(number):\n    if number < 2:\n        return False\n    divisor = 2\n"
        "    while divisor * divisor < number:\n        if number % divisor == 0:\n"
        "            return False\n        divisor += 1\n    return True",
    ),
    SmokeCase(
        "unique in order",
        "Write unique(items): the items without repetitions, in the order of first occurrence.",
        "def unique(items):\n    return list(dict.fromkeys(items))",
        "def unique(items):\n    return list(set(items))",
    ),
    SmokeCase(
        "palindrome",
        "Write is_palindrome(text) that ignores case and everything but letters and digits.",
        "def is_palindrome(text):\n    kept = [c.lower() for c in text if c.isalnum()]\n"
        "    return kept == kept[::-1]",
        "def is_palindrome(text):\n    return text.lower() == text.lower()[::-1]",
    ),
    SmokeCase(
        "greatest divisor",
        "Write gcd(a, b), the greatest common divisor of two positive integers.",
        "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a",
        "def gcd(a, b):\n    while b:\n        a, b = b, a // b\n    return a",
    ),
    SmokeCase(
        "clamp",
        "Write clamp(value, low, high) that keeps a value between two bounds.",
        "def clamp(value, low, high):\n    return max(low, min(value, high))",
        "def clamp(value, low, high):\n    return min(low, max(value, high))",
    ),
)
