"""Query pairs for a sanity check: a detailed and a general query on one subject."""

PAIRS: tuple[tuple[str, str], ...] = (
    (
        "a potter in a blue apron pulls a tall vase up from the wheel and wires it off",
        "someone makes a thing",
    ),
    (
        "a border collie weaves through red and white poles on an agility course",
        "a dog is running",
    ),
    (
        "two engineers lower a yellow submersible from the stern of a research ship",
        "people are on a boat",
    ),
    (
        "a chef torches the sugar on a creme brulee until it bubbles and turns brown",
        "a person is cooking",
    ),
    (
        "a violinist tunes her instrument backstage while a stagehand coils cables",
        "a woman with an instrument",
    ),
    (
        "a goalkeeper in green dives to her left and tips a penalty over the bar",
        "a team is playing a game",
    ),
    (
        "an animated fox in a spacesuit repairs a satellite with a wrench",
        "a cartoon character is moving",
    ),
    (
        "a barber shaves a zigzag into the side of a boy's head in front of a mirror",
        "a man is cutting hair",
    ),
    (
        "a tractor pulls a mud-covered lorry out of a ditch while farmers watch",
        "a vehicle on a road",
    ),
    (
        "a presenter points at a map and explains why the river flooded last spring",
        "a man is talking",
    ),
    (
        "a toddler stacks wooden rings on a peg, then knocks the tower over and laughs",
        "a child is playing",
    ),
    (
        "a climber chalks his hands and leaps for a hold on an overhanging ice wall",
        "a man is doing something outside",
    ),
)
"""(detailed, general)."""
