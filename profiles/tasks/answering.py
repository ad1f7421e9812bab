"""Questions about people: one fact (QA1) or two joined (QA2), among facts about others."""

from profiles.tasks.haystack import Split
from profiles.tasks.room import Room
from profiles.tasks.sample import Question, Sample
from profiles.tasks.words import NAMES


def one_fact(room: Room, split: Split, asked: int = 1) -> Sample:
    """QA1: who lives where; the other facts are about other people and relations."""
    return _people("qa_1", room, asked, hops=1)


def two_facts(room: Room, split: Split, asked: int = 1) -> Sample:
    """QA2: where the partner of someone lives, which takes two facts."""
    return _people("qa_2", room, asked, hops=2)


def _people(task: str, room: Room, asked: int, hops: int) -> Sample:
    names = room.random.sample(NAMES, len(NAMES))
    people, places = names[: len(names) // 2], names[len(names) // 2 :]
    partners = people[1:] + people[:1]
    about = [
        [
            f"{person} lives in {room.random.choice(places)} .",
            f"{person} works with {partner} .",
            f"{person} likes {room.random.choice(places)} .",
        ]
        for person, partner in zip(people, partners, strict=True)
    ]
    sizing = [Question(f"partner of {people[0]} lives in", (people[0],))] * asked
    tokens = room.left_for_context(sizing)
    each = sum(room.count(fact) for fact in about[0])
    known = max(2, min(len(people), tokens // each))
    # The last person's partner is the first, so that every chain stays inside the context.
    about[known - 1][1] = f"{people[known - 1]} works with {people[0]} ."
    facts = [fact for person in about[:known] for fact in person]
    room.random.shuffle(facts)
    questions = []
    for index in room.random.sample(range(known), min(asked, known)):
        home = about[index if hops == 1 else (index + 1) % known][0].split()[-2]
        prompt = f"{people[index]} lives in"
        questions.append(Question(f"partner of {prompt}" if hops == 2 else prompt, (home,)))
    return Sample(task, " ".join(facts), tuple(questions))
