"""The world behind synthetic HotpotQA rows: kinds of things, what is said and asked of them.

A relation says how a fact is stated and how it is asked. Where its object is itself a thing
with a paragraph, it also has a noun phrase ("the employer of {s}"). Putting that phrase where
another relation's question expects a subject makes a bridge question: "What is the founding
year of the employer of Mira Talon?" needs both paragraphs. A comparison sets two things of one
kind side by side.

Templates name the subject in full, so that each sentence stands alone as a supporting fact. It
opens the sentence and ends the question, because a model of one million parameters can use that:
what it looks for stands where the looking begins.
Filler sentences state no relation and hold no name but the subject's.
"""

from dataclasses import dataclass
from enum import StrEnum

from blockwise.data.vocabulary import words


class Kind(StrEnum):
    """What a name stands for; the last three never have a paragraph."""

    PERSON = "person"
    COMPANY = "company"
    TOWN = "town"
    INSTRUMENT = "instrument"
    RIVER = "river"
    FILM = "film"
    YEAR = "year"
    NUMBER = "number"
    SMALL_NUMBER = "small_number"


@dataclass(frozen=True)
class Relation:
    """How one kind of fact is stated (`{s}`, `{o}`) and asked (`{s}`)."""

    name: str
    subject_kind: Kind
    object_kind: Kind
    statement: str
    question: str
    noun: str = ""  # names the object through its subject; empty where it has no paragraph


@dataclass(frozen=True)
class Comparison:
    """How two subjects (`{a}`, `{b}`) of one relation are compared."""

    relation: str
    question: str
    wanted: str  # smaller | larger: the subject that has it; same: yes or no


RELATIONS = {
    relation.name: relation
    for relation in (
        Relation(
            "birthplace",
            Kind.PERSON,
            Kind.TOWN,
            "{s} was born in the town of {o}.",
            "Which town is the birthplace of {s}?",
            "the birthplace of {s}",
        ),
        Relation(
            "employer",
            Kind.PERSON,
            Kind.COMPANY,
            "{s} works for the company {o}.",
            "Which company is the employer of {s}?",
            "the employer of {s}",
        ),
        Relation(
            "instrument",
            Kind.PERSON,
            Kind.INSTRUMENT,
            "{s} plays an instrument called {o}.",
            "Which instrument is played by {s}?",
            "the instrument of {s}",
        ),
        Relation(
            "birth_year",
            Kind.PERSON,
            Kind.YEAR,
            "{s} came into the world in {o}.",
            "What is the year of birth of {s}?",
        ),
        Relation(
            "founder",
            Kind.COMPANY,
            Kind.PERSON,
            "{s} was founded by {o}.",
            "Who founded {s}?",
            "the founder of {s}",
        ),
        Relation(
            "seat",
            Kind.COMPANY,
            Kind.TOWN,
            "{s} has its head office in {o}.",
            "Which town is the seat of {s}?",
            "the seat of {s}",
        ),
        Relation(
            "founding_year",
            Kind.COMPANY,
            Kind.YEAR,
            "{s} opened its doors in {o}.",
            "What is the founding year of {s}?",
        ),
        Relation(
            "river",
            Kind.TOWN,
            Kind.RIVER,
            "{s} lies on the river {o}.",
            "Which river flows through {s}?",
            "the river at {s}",
        ),
        Relation(
            "mayor",
            Kind.TOWN,
            Kind.PERSON,
            "{s} has a mayor called {o}.",
            "Who is the mayor of {s}?",
            "the mayor of {s}",
        ),
        Relation(
            "population",
            Kind.TOWN,
            Kind.NUMBER,
            "{s} has {o} inhabitants.",
            "How many inhabitants has {s}?",
        ),
        Relation(
            "inventor",
            Kind.INSTRUMENT,
            Kind.PERSON,
            "{s} was invented by {o}.",
            "Who invented {s}?",
            "the inventor of {s}",
        ),
        Relation(
            "strings",
            Kind.INSTRUMENT,
            Kind.SMALL_NUMBER,
            "{s} has {o} strings.",
            "How many strings has {s}?",
        ),
        Relation(
            "mouth",
            Kind.RIVER,
            Kind.TOWN,
            "{s} reaches the sea at the town of {o}.",
            "Which town is at the mouth of {s}?",
            "the town at the mouth of {s}",
        ),
        Relation(
            "length",
            Kind.RIVER,
            Kind.NUMBER,
            "{s} is {o} kilometres long.",
            "How many kilometres long is {s}?",
        ),
        Relation(
            "director",
            Kind.FILM,
            Kind.PERSON,
            "{s} was directed by {o}.",
            "Who directed {s}?",
            "the director of {s}",
        ),
        Relation(
            "setting",
            Kind.FILM,
            Kind.TOWN,
            "{s} is set in the town of {o}.",
            "Which town is the setting of {s}?",
            "the setting of {s}",
        ),
        Relation(
            "release_year",
            Kind.FILM,
            Kind.YEAR,
            "{s} was first shown in {o}.",
            "What is the release year of {s}?",
        ),
    )
}

COMPARISONS = (
    Comparison("birth_year", "Who was born first, {a} or {b}?", "smaller"),
    Comparison("founding_year", "Which company was founded first, {a} or {b}?", "smaller"),
    Comparison("population", "Which town has more inhabitants, {a} or {b}?", "larger"),
    Comparison("strings", "Which instrument has more strings, {a} or {b}?", "larger"),
    Comparison("length", "Which river is longer, {a} or {b}?", "larger"),
    Comparison("release_year", "Which film was released later, {a} or {b}?", "larger"),
    Comparison("birthplace", "Were {a} and {b} born in the same town?", "same"),
    Comparison("employer", "Do {a} and {b} work for the same company?", "same"),
    Comparison("seat", "Do {a} and {b} have their head offices in the same town?", "same"),
    Comparison("river", "Does the same river flow through {a} and {b}?", "same"),
    Comparison("director", "Were {a} and {b} directed by the same person?", "same"),
)

WITH_PARAGRAPH = (
    Kind.PERSON,
    Kind.COMPANY,
    Kind.TOWN,
    Kind.INSTRUMENT,
    Kind.RIVER,
    Kind.FILM,
)

LEADS = {
    Kind.PERSON: "{s} is a {manner} {trade} known far beyond the province.",
    Kind.COMPANY: "{s} is a {manner} company that makes {goods} for the whole coast.",
    Kind.TOWN: "{s} is a {manner} market town in the hills, known for its {goods}.",
    Kind.INSTRUMENT: "{s} is a {manner} plucked instrument, carved from {stuff} and {stuff2}.",
    Kind.RIVER: "{s} is a {manner} river that rises among fields of {stuff} and {stuff2}.",
    Kind.FILM: "{s} is a {manner} film about a {trade} and a cart of {goods}.",
}

FILLER = {
    Kind.PERSON: (
        "Letters to a {trade} show that {s} cared more for {goods} than for praise.",
        "Visitors remember {s} as {manner}, generous with {goods} and sparing with words.",
        "For many winters {s} kept a {manner} diary about {goods}, {stuff} and the weather.",
        "A {trade} once painted {s} beside a table of {goods}, which both thought too {manner}.",
        "It is said that {s} never travelled without {goods} and a coat lined with {stuff}.",
    ),
    Kind.COMPANY: (
        "The workshops of {s} smell of {stuff}, and the yard is stacked with {goods}.",
        "A {manner} strike over the price of {stuff} closed the gates of {s} for a season.",
        "Every apprentice at {s} starts by sorting {goods} next to a patient {trade}.",
        "Critics call the newer {goods} of {s} {manner}, while dealers cannot get enough of them.",
        "In hard years {s} lived on repairs, on {stuff} and on the loyalty of one {trade}.",
    ),
    Kind.TOWN: (
        "The old streets of {s} are paved with {stuff} and lined with stalls of {goods}.",
        "On feast days a {manner} procession carries {goods} through {s} behind a {trade}.",
        "Travellers find {s} {manner}, though they praise its inns and its {goods}.",
        "A fire once destroyed the {stuff} market of {s}, and a {trade} drew the new plan.",
        "Guides to {s} mention a {manner} tower, a museum of {goods} and little else.",
    ),
    Kind.INSTRUMENT: (
        "Players describe the tone of {s} as {manner}, close to {stuff} struck with {stuff2}.",
        "A good {trade} needs a full year to build {s}, and most of it is spent waiting for glue.",
        "Recordings of {s} are rare, because {stuff} bends in dry air and turns {manner}.",
        "In country dances {s} leads the tune while someone shakes {goods} for the beat.",
        "Museums keep {s} in glass cases between {goods} and the tools of a {trade}.",
    ),
    Kind.RIVER: (
        "Boats on {s} carry {goods} downstream and {stuff} back, pulled by {manner} horses.",
        "In spring {s} turns {manner} and carries {stuff} over the lower meadows.",
        "Anglers praise {s} for its trout, and every {trade} along it has a boat.",
        "A {manner} ferry crosses {s} twice a day with {goods} and the post.",
        "Mills along {s} once ground {stuff} for every {trade} in the valley.",
    ),
    Kind.FILM: (
        "Reviewers found {s} {manner}, but liked the scene in which a {trade} counts {goods}.",
        "The camera in {s} rests on {goods}, on {stuff} and on faces that hardly move.",
        "A restored print of {s} was shown in a barn full of {stuff}, to {manner} applause.",
        "The music of {s} was written in a week by a {manner} {trade}.",
        "Posters for {s} showed a {trade} asleep among {goods}, which does not happen in it.",
    ),
}

SLOTS = {
    "manner": words(
        "quiet, stubborn, cheerful, careful, modest, restless, solemn, playful, "
        "gloomy, lively, plain, curious, gentle, proud, weary, bright"
    ),
    "trade": words(
        "cartographer, baker, clockmaker, botanist, tailor, surgeon, sculptor, beekeeper, "
        "printer, librarian, mason, gardener, glazier, poet, carpenter, lawyer"
    ),
    "goods": words(
        "lanterns, baskets, ribbons, compasses, candles, buttons, kettles, bells, "
        "saddles, mirrors, blankets, needles, teapots, ladders, pipes, kites"
    ),
    "stuff": words(
        "copper, walnut, linen, clay, amber, barley, granite, wool, "
        "cedar, tin, willow, flax, slate, rye, leather, chalk"
    ),
    "stuff2": words("horn, brass, pearl, bone, silver, birch, moss, fern"),
}
"""Words that fill the lead and filler sentences; none of them is ever an answer."""
