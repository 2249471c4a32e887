"""Sentences and questions of the retrieval cases, by kind."""

from dataclasses import dataclass

from fedattn.research.tasks.vocabulary import (
    CITIES,
    COURSES,
    GOODS,
    MACHINES,
    ROOMS,
    SHIPS,
    SHOPS,
    Draw,
    dates,
    decimals,
    full_names,
    numbers,
    words,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One fact answers the question.

    Attributes:
        opening: a first sentence some contexts have.
        fact: of `{subject}` and `{value}`.
        question: about `{subject}`; its value is the answer.
        subjects: what the facts are about.
        values: what they say.
    """

    opening: str
    fact: str
    question: str
    subjects: Draw
    values: Draw


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoHop:
    """Two facts answer the question, each in another context.

    Attributes:
        first: of `{subject}` and `{link}`.
        second: of `{value}` and of `{link}` or `{subject}`.
        question: about `{subject}`; the value is the answer.
        subjects: what the question is about.
        links: what the first fact says of a subject, and the question does not name.
        values: the answers.
    """

    first: str
    second: str
    question: str
    subjects: Draw
    links: Draw
    values: Draw


_rooms, _machines, _ships = words(ROOMS), words(MACHINES), words(SHIPS)
_shops, _courses, _cities, _goods = words(SHOPS), words(COURSES), words(CITIES), words(GOODS)
_codes, _long_codes = numbers(1000, 10_000), numbers(100_000, 1_000_000)

LOOKUPS: dict[str, tuple[Lookup, ...]] = {
    "passcode": (
        Lookup(
            opening="This is the key list.",
            fact="The passcode of the {subject} is {value}.",
            question="What is the passcode of the {subject}?",
            subjects=_rooms,
            values=_codes,
        ),
        Lookup(
            opening="These are the alarm codes.",
            fact="The alarm code of the {subject} is {value}.",
            question="What is the alarm code of the {subject}?",
            subjects=_shops,
            values=_codes,
        ),
        Lookup(
            opening="This is the list of the radio room.",
            fact="The radio code of the ship {subject} is {value}.",
            question="What is the radio code of the ship {subject}?",
            subjects=_ships,
            values=_long_codes,
        ),
        Lookup(
            opening="Please keep this note safe.",
            fact="The PIN of {subject} is {value}.",
            question="What is the PIN of {subject}?",
            subjects=full_names,
            values=_codes,
        ),
    ),
    "reading": (
        Lookup(
            opening="These are the readings of this morning.",
            fact="The pressure of the {subject} is {value} millibar.",
            question="What is the pressure of the {subject}?",
            subjects=_machines,
            values=numbers(1000, 10_000),
        ),
        Lookup(
            opening="The technician wrote this down.",
            fact="The temperature of the {subject} is {value} degrees.",
            question="What is the temperature of the {subject}?",
            subjects=_machines,
            values=decimals(100, 1000),
        ),
        Lookup(
            opening="The meters were read today.",
            fact="The electricity meter of the {subject} shows {value} kWh.",
            question="What does the electricity meter of the {subject} show?",
            subjects=_shops,
            values=numbers(1000, 10_000),
        ),
        Lookup(
            opening="This is the log of the harbour.",
            fact="The weight of the ship {subject} is {value} tons.",
            question="What is the weight of the ship {subject}?",
            subjects=_ships,
            values=numbers(1000, 10_000),
        ),
    ),
    "name": (
        Lookup(
            opening="This is the list of crews.",
            fact="The captain of the ship {subject} is {value}.",
            question="Who is the captain of the ship {subject}?",
            subjects=_ships,
            values=full_names,
        ),
        Lookup(
            opening="This is the staff list.",
            fact="The owner of the {subject} is {value}.",
            question="Who is the owner of the {subject}?",
            subjects=_shops,
            values=full_names,
        ),
        Lookup(
            opening="The school starts again.",
            fact="The teacher of the {subject} course is {value}.",
            question="Who is the teacher of the {subject} course?",
            subjects=_courses,
            values=full_names,
        ),
        Lookup(
            opening="Much was broken this week.",
            fact="The {subject} was repaired by {value}.",
            question="Who repaired the {subject}?",
            subjects=_machines,
            values=full_names,
        ),
    ),
    "date": (
        Lookup(
            opening="The programme is out.",
            fact="The {subject} course starts on {value}.",
            question="When does the {subject} course start?",
            subjects=_courses,
            values=dates,
        ),
        Lookup(
            opening="This is the plan of the inspectors.",
            fact="The {subject} will be inspected on {value}.",
            question="When will the {subject} be inspected?",
            subjects=_machines,
            values=dates,
        ),
        Lookup(
            opening="This is the timetable of the port.",
            fact="The ship {subject} leaves on {value}.",
            question="When does the ship {subject} leave?",
            subjects=_ships,
            values=dates,
        ),
        Lookup(
            opening="This is the birthday calendar.",
            fact="The birthday of {subject} is {value}.",
            question="When is the birthday of {subject}?",
            subjects=full_names,
            values=dates,
        ),
    ),
    "place": (
        Lookup(
            opening="This is the address book.",
            fact="{subject} lives in {value}.",
            question="Where does {subject} live?",
            subjects=full_names,
            values=_cities,
        ),
        Lookup(
            opening="This is the timetable of the port.",
            fact="The ship {subject} sails to {value}.",
            question="Where does the ship {subject} sail to?",
            subjects=_ships,
            values=_cities,
        ),
        Lookup(
            opening="These are the papers of the purchase.",
            fact="The {subject} was built in {value}.",
            question="Where was the {subject} built?",
            subjects=_machines,
            values=_cities,
        ),
        Lookup(
            opening="This is the freight list.",
            fact="The {subject} are sent to {value}.",
            question="Where are the {subject} sent to?",
            subjects=_goods,
            values=_cities,
        ),
    ),
}

TWO_HOPS = (
    TwoHop(
        first="The ship {subject} lies at pier {link}.",
        second="The crane at pier {link} is operated by {value}.",
        question="At which pier does the ship {subject} lie, and who operates the crane there?",
        subjects=_ships,
        links=numbers(10, 100),
        values=full_names,
    ),
    TwoHop(
        first="{subject} works in the {link}.",
        second="The phone number of the {link} is {value}.",
        question="Where does {subject} work, and what is the phone number there?",
        subjects=full_names,
        links=_rooms,
        values=_codes,
    ),
    TwoHop(
        first="The ship {subject} sails to {link}.",
        second="The harbour master of {link} is {value}.",
        question="Where does the ship {subject} sail to, and who is the harbour master there?",
        subjects=_ships,
        links=_cities,
        values=full_names,
    ),
    TwoHop(
        first="{subject} teaches {link}.",
        second="The {link} course starts on {value}.",
        question="What does {subject} teach, and when does that course start?",
        subjects=full_names,
        links=_courses,
        values=dates,
    ),
)

TWO_FACTS = (
    TwoHop(
        first="The ship {subject} carries {link}.",
        second="The ship {subject} leaves on {value}.",
        question="What does the ship {subject} carry, and when does it leave?",
        subjects=_ships,
        links=_goods,
        values=dates,
    ),
    TwoHop(
        first="{subject} lives in {link}.",
        second="The PIN of {subject} is {value}.",
        question="Where does {subject} live, and what is the PIN?",
        subjects=full_names,
        links=_cities,
        values=_codes,
    ),
    TwoHop(
        first="The {subject} shows a pressure of {link} millibar.",
        second="The {subject} was repaired by {value}.",
        question="Which pressure does the {subject} show, and who repaired it?",
        subjects=_machines,
        links=_codes,
        values=full_names,
    ),
    TwoHop(
        first="The teacher of the {subject} course is {link}.",
        second="The {subject} course takes place in {value}.",
        question="Who is the teacher of the {subject} course, and where does it take place?",
        subjects=_courses,
        links=full_names,
        values=_cities,
    ),
)
