"""Observations to order: random ones for properties, seeded streams that look like runs."""

from hypothesis import strategies as st

from assay.monitors.observations import Observation

numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-5, 5),
    st.sampled_from([0.0, -0.0, 1.0, 1e-300]),
)
names = st.sampled_from([*"abcdefghijklm"])
lengths = st.none() | st.integers(0, 10**7)

observations = st.builds(
    Observation,
    score=st.none() | numbers,
    channels=st.dictionaries(names, st.none() | numbers, max_size=12),
    labels=st.dictionaries(names, st.integers(1, 5), max_size=4),
    flags=st.lists(st.sampled_from(["truncated", "odd"]), unique=True),
    group=st.none() | st.integers(0, 300).map(str),
    source=st.none() | st.sampled_from(["computed", "cache"]),
    invalid=st.booleans(),
    characters=lengths,
    tokens=lengths,
    script=st.none() | st.sampled_from(["latin", "han"]),
    calls=st.none() | st.integers(0, 100),
)
