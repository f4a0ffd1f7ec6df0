"""What two invented friends tell each other: the relations of synthetic LoCoMo chats.

A chat relation is an event that one speaker reports ("Yesterday I bought a green tent").
Its topic (the tent) is used once in a conversation, by one speaker only; so a question
about it means one event, and the same question about the other speaker is adversarial: it
sounds right and has no answer. Events are dated relative to the chat session: "when" takes
the telling and the date of the chat, as where LoCoMo answers "The week before 9 June 2023".

Habits are undated statements with something to infer from them. A pet's trick is told in a
later chat session than its adoption, under the pet's name only, and so needs both.

Every topic and colour starts with a consonant: the templates say "a".
"""

from dataclasses import dataclass

from blockwise.data.vocabulary import words


@dataclass(frozen=True)
class ChatRelation:
    """An event: `{when}`, `{topic}` and `{object}` as told, `{subject}` as asked and narrated.

    Attributes:
        topics: what the event may be about; each serves once in a conversation. A telling names
            it before the object, and a question ends with it.
        objects: closed values, each given once in a conversation; empty: an invented word.
        telling: the speaker's sentence.
        question: asks for the object.
        when_question: asks for the date.
        list_question: asks for all objects of the subject; empty where that sounds odd.
        narration: the same in the third person.
    """

    topics: tuple[str, ...]
    objects: tuple[str, ...]
    telling: str
    question: str
    when_question: str
    list_question: str
    narration: str


@dataclass(frozen=True)
class Habit:
    """Something stated in passing, and a question whose answer follows from it."""

    telling: str
    narration: str
    question: str
    verdict: str


PET = "pet"
TRICK = "trick"
HABIT = "habit"
"""Names of the relations that the planner treats apart."""

CHAT_RELATIONS = {
    PET: ChatRelation(
        words("dog, cat, parrot, rabbit, hamster, tortoise, pony, goldfish, ferret, canary"),
        (),
        "{when} I brought home a {topic} from the shelter and named it {object}.",
        "What is the name of {subject}'s {topic}?",
        "When did {subject} bring home a {topic}?",
        "What are the names of {subject}'s pets?",
        "{subject} brought home a {topic} called {object}",
    ),
    "trip": ChatRelation(
        words(
            "sister, brother, cousin, nephew, niece, grandmother, neighbour, flatmate, "
            "godfather, father-in-law, stepsister, grandson"
        ),
        (),
        "{when} I went with my {topic} on the slow train to {object}.",
        "Which town did {subject} visit with {subject}'s {topic}?",
        "When did {subject} take a train trip with {subject}'s {topic}?",
        "Which towns has {subject} visited by train?",
        "{subject} went with {subject}'s {topic} on the slow train to {object}",
    ),
    "club": ChatRelation(
        words(
            "pottery, fencing, chess, sailing, gardening, dance, judo, calligraphy, rowing, "
            "knitting, climbing, debating"
        ),
        (),
        "{when} I signed up for {topic} at a club called {object}.",
        "What is the name of {subject}'s club for {topic}?",
        "When did {subject} sign up for {topic}?",
        "What are the clubs called that {subject} signed up for?",
        "{subject} signed up for {topic} at a club called {object}",
    ),
    "book": ChatRelation(
        words(
            "mystery novel, cookbook, biography, poetry collection, travel guide, fantasy saga, "
            "comic, ghost story, picture book, history book, play, spy thriller"
        ),
        (),
        "{when} I finished a {topic} with the title {object}.",
        "What is the title of {subject}'s {topic}?",
        "When did {subject} finish a {topic}?",
        "What are the titles of the books that {subject} finished?",
        "{subject} finished a {topic} with the title {object}",
    ),
    "purchase": ChatRelation(
        words(
            "bicycle, sofa, kettle, coat, tent, lamp, backpack, bookshelf, scooter, carpet, "
            "raincoat, desk"
        ),
        words(
            "green, red, blue, yellow, purple, black, white, grey, brown, pink, turquoise, golden"
        ),
        "{when} I bought a {topic} at the market, and it is {object}.",
        "What colour is {subject}'s new {topic}?",
        "When did {subject} buy a {topic}?",
        "",
        "{subject} bought a {topic} at the market, and it is {object}",
    ),
    "gift": ChatRelation(
        words(
            "boss, landlord, dentist, godmother, mentor, best friend, classmate, coach, "
            "piano teacher, tailor, postman, lawyer"
        ),
        words(
            "compass, teapot, telescope, harmonica, globe, puzzle, quilt, necklace, "
            "music box, wristwatch, hammock, vase"
        ),
        "{when} my {topic} surprised me with a {object}.",
        "What did {subject} get from {subject}'s {topic}?",
        "When did {subject} get a present from {subject}'s {topic}?",
        "Which presents has {subject} been given?",
        "{subject}'s {topic} surprised {subject} with a {object}",
    ),
    "meal": ChatRelation(
        words(
            "birthday party, street festival, picnic, wedding, housewarming, school fair, "
            "harvest supper, farewell dinner, reunion, bake sale, brunch, charity lunch"
        ),
        words(
            "lentil soup, mushroom pie, pumpkin curry, fish stew, walnut bread, potato gratin, "
            "spinach lasagne, cherry cake, bean chilli, leek tart, plum dumplings, rice pudding"
        ),
        "{when} for a {topic} I made {object}.",
        "What did {subject} make for a {topic}?",
        "When did {subject} cook for a {topic}?",
        "Which dishes has {subject} made for other people?",
        "{subject} for a {topic} made {object}",
    ),
}

TRICKS = words(
    "open the fridge, ring the doorbell, fetch the newspaper, dance on a barrel, sort the socks, "
    "steal the remote control, roll over twice, hide in the laundry basket, count to three, "
    "sleep in a flowerpot"
)
TRICK_TELLING = "{topic} has learned to {object}, you should have seen it!"
TRICK_QUESTION = "What has {subject}'s {species} learned to do?"
TRICK_NARRATION = "{subject}'s pet {topic} has learned to {object}"

HABITS = (
    Habit(
        "Nuts are out for me, one crumb and I need a doctor.",
        "{subject} is allergic to nuts",
        "Would {subject} be happy with a slice of almond cake?",
        "Likely no",
    ),
    Habit(
        "I get seasick even on a pedal boat.",
        "{subject} gets seasick",
        "Would {subject} enjoy a week on a sailing ship?",
        "Likely no",
    ),
    Habit(
        "I never got a driving licence and never missed it.",
        "{subject} cannot drive",
        "Could {subject} drive a rented van to a new flat?",
        "Likely no",
    ),
    Habit(
        "Heights make me dizzy, I cannot even stand on a chair.",
        "{subject} is afraid of heights",
        "Would {subject} choose a hot-air balloon ride as a treat?",
        "Likely no",
    ),
    Habit(
        "I have not eaten meat since I was nine.",
        "{subject} eats no meat",
        "Would {subject} order the beef stew in a restaurant?",
        "Likely no",
    ),
    Habit(
        "I wake at five every day and love the empty streets.",
        "{subject} gets up very early",
        "Would {subject} mind a meeting at half past six in the morning?",
        "Likely no",
    ),
    Habit(
        "I practise the cello for an hour every single day.",
        "{subject} plays the cello",
        "Would {subject} be pleased with tickets for a string quartet?",
        "Likely yes",
    ),
    Habit(
        "I collect old maps, the walls are covered with them.",
        "{subject} collects old maps",
        "Would {subject} like to visit a museum of cartography?",
        "Likely yes",
    ),
    Habit(
        "I count birds in the marsh every weekend, whatever the weather.",
        "{subject} watches birds",
        "Would a pair of binoculars be a useful present for {subject}?",
        "Likely yes",
    ),
    Habit(
        "I bake all my own bread, the starter is older than my car.",
        "{subject} bakes bread",
        "Does {subject} probably keep flour in the kitchen?",
        "Likely yes",
    ),
    Habit(
        "I swim a mile before breakfast three times a week.",
        "{subject} swims regularly",
        "Would {subject} make use of a season ticket for the pool?",
        "Likely yes",
    ),
    Habit(
        "I spend most evenings with my telescope on the roof.",
        "{subject} watches the stars",
        "Would {subject} want to know about a coming meteor shower?",
        "Likely yes",
    ),
)

WHEN = {
    0: ("Today", ""),
    1: ("Yesterday", "the day before "),
    2: ("Two days ago", "two days before "),
    3: ("Three days ago", "three days before "),
    7: ("A week ago", "a week before "),
}
"""Days before the chat session, how a speaker says it, and what others put before its date."""

GREETINGS = (
    "Hey {other}! It has been a while, how are things?",
    "Hi {other}! I was just thinking about you.",
    "Good to hear from you, {other}! How was your week?",
    "Hello {other}! Do you have a minute to catch up?",
)
REACTIONS = (
    "That sounds {mood}! I want to hear more about it some day.",
    "Oh, how {mood}! You always have something going on.",
    "Wow, that is {mood}. I could use a bit of that myself.",
    "Really? I find that {mood}, tell me everything next time we meet.",
    "How {mood}! My {week} has been dull compared with yours.",
)
CHATTER = (
    "My {week} was {mood}, mostly {chore} and then some more {chore}.",
    "The weather has been {mood} here, so I stayed in and did the {chore}.",
    "Work is {mood} at the moment, but I try not to take it home with me.",
    "I keep telling myself to do the {chore} earlier, and I never do.",
    "Do you also feel that this {week} went by much too fast?",
    "I slept badly and spent the {week} on coffee and {chore}, nothing {mood} about it.",
    "People around me are {mood} lately, I cannot say why.",
    "Sometimes a {mood} afternoon with nothing to do is all I want.",
    "I tried a new way of doing the {chore}, it turned out {mood}.",
    "Let us plan something for next month, anything but {chore}.",
    "I heard a {mood} song on the radio and it will not leave my head.",
    "My back hurts from all the {chore}, I am not twenty any more.",
)
GOODBYES = (
    "I have to run, the {chore} will not do itself. Talk soon, {other}!",
    "Time for me to go, {other}. Take care of yourself!",
    "Let us talk again soon, {other}. Bye for now!",
)
CAPTIONS = (
    "a photo of a {mood} street in the rain",
    "a photo of a desk covered with papers and mugs",
    "a photo of clouds over a {mood} field",
    "a photo of a window with a row of plants",
    "a photo of a {mood} breakfast on a wooden table",
)
MOODS = words("wonderful, strange, calm, chaotic, funny, peaceful, tiring, charming, gloomy, cosy")
CHORES = words("laundry, paperwork, ironing, cleaning, shopping, repairs, emails, dusting")
WEEKS = words("week, month, weekend, morning")
