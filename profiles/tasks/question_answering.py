"""Questions about people: one fact (QA1) or two joined (QA2), among facts about others.

A fact is a relation, a person and what that is for them: "lives Bako Timu .".
"""

from profiles.tasks.example import Example, Question
from profiles.tasks.token_room import TokenRoom
from profiles.tasks.words import NAMES


def one_fact(room: TokenRoom, asked: int = 1) -> Example:
    """QA1: who lives where; the other facts are about other people and relations."""
    return _people("qa_1", room, asked, hops=1)


def two_facts(room: TokenRoom, asked: int = 1) -> Example:
    """QA2: where the partner of someone lives, which takes two facts."""
    return _people("qa_2", room, asked, hops=2)


def _people(task: str, room: TokenRoom, asked: int, hops: int) -> Example:
    names = room.random.sample(NAMES, len(NAMES))
    people, places = names[: len(names) // 2], names[len(names) // 2 :]
    partners = people[1:] + people[:1]
    about = [
        [
            f"lives {person} {room.random.choice(places)} .",
            f"partner {person} {partner} .",
            f"likes {person} {room.random.choice(places)} .",
        ]
        for person, partner in zip(people, partners, strict=True)
    ]
    sizing = [Question(f"lives partner {people[0]}", (people[0],))] * asked
    tokens = room.left_for_context(sizing)
    each = sum(room.count(fact) for fact in about[0])
    known = max(2, min(len(people), tokens // each))
    # The last person's partner is the first, so that every chain stays inside the context.
    about[known - 1][1] = f"partner {people[known - 1]} {people[0]} ."
    facts = [fact for person in about[:known] for fact in person]
    room.random.shuffle(facts)
    questions = []
    for index in room.random.sample(range(known), min(asked, known)):
        home = about[index if hops == 1 else (index + 1) % known][0].split()[-2]
        asked_for = "lives partner" if hops == 2 else "lives"
        questions.append(Question(f"{asked_for} {people[index]}", (home,)))
    return Example(task, " ".join(facts), tuple(questions))
