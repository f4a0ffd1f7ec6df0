"""Questions whose right verdicts are known: how often a judge accepts what is wrong.

Everything in them is invented, so that no judge can know an answer from elsewhere. A wrong answer
names something else of the same kind; a vague one would fit almost any gold answer, which is
where judges were seen to fail. A right one says the gold answer in other words.

Source: for the failure, an audit of LoCoMo in which a judge accepted 62.8% of vague wrong answers.
"""

from typing import NamedTuple


class ProbeQuestion(NamedTuple):
    """A question with one answer of each kind."""

    question: str
    gold: str
    right: str
    wrong: str
    vague: str


PROBE: tuple[ProbeQuestion, ...] = (
    ProbeQuestion(
        "Where did Mira Okonjo move after the flood?",
        "Tarvos",
        "She moved to Tarvos.",
        "She moved to Belmere.",
        "She moved to another town.",
    ),
    ProbeQuestion(
        "In which year was the Halvard lighthouse rebuilt?",
        "1987",
        "It was rebuilt in 1987.",
        "1978",
        "Some decades ago.",
    ),
    ProbeQuestion(
        "Who conducted the first concert of the Orrin Quartet?",
        "Ilse Brandt",
        "That was Ilse Brandt.",
        "Jonas Brandt",
        "A well-known conductor of that time.",
    ),
    ProbeQuestion(
        "What did Devi buy at the spring market?",
        "a copper kettle",
        "A kettle made of copper.",
        "a copper lamp",
        "Something for her kitchen.",
    ),
    ProbeQuestion(
        "How many rooms does the Quarry Inn have?",
        "14",
        "Fourteen rooms.",
        "40",
        "It has several rooms.",
    ),
    ProbeQuestion(
        "Which river passes through Senn?",
        "the Aldra",
        "The Aldra flows through it.",
        "the Aldwin",
        "A river passes through the town.",
    ),
    ProbeQuestion(
        "Which instrument does Tomas teach?",
        "the cello",
        "He teaches the cello.",
        "the viola",
        "He teaches a string instrument.",
    ),
    ProbeQuestion(
        "When is Leena's birthday?",
        "3 March",
        "On the third of March.",
        "3 May",
        "In the first half of the year.",
    ),
    ProbeQuestion(
        "What is the name of Petra's dog?",
        "Biscuit",
        "Her dog is called Biscuit.",
        "Brisket",
        "Petra has a dog that she likes.",
    ),
    ProbeQuestion(
        "Did Anton finish the marathon?",
        "yes",
        "Yes, he finished it.",
        "no",
        "Anton took part in the marathon.",
    ),
    ProbeQuestion(
        "Are the Corvin Bridge and the Dale Bridge in the same country?",
        "no",
        "No, they are in two countries.",
        "yes",
        "Both are bridges, so it depends.",
    ),
    ProbeQuestion(
        "Who is older, Rafe Lund or Nils Arden?",
        "Rafe Lund",
        "Rafe Lund is the older one.",
        "Nils Arden",
        "One of the two is older.",
    ),
    ProbeQuestion(
        "Which award did the novel Salt Roads win?",
        "the Merrow Prize",
        "It won the Merrow Prize.",
        "the Marlow Prize",
        "It won a literary award.",
    ),
    ProbeQuestion(
        "What is the capital of the province of Ostrava Vale?",
        "Kestrel",
        "Kestrel is its capital.",
        "Ketterel",
        "Its largest town.",
    ),
    ProbeQuestion(
        "Who founded the company Bluefern?",
        "Oda Maric and Sam Teller",
        "Sam Teller and Oda Maric.",
        "Oda Maric and Paul Teller",
        "Two friends founded it.",
    ),
    ProbeQuestion(
        "Why did Jun leave the choir?",
        "he broke his wrist",
        "Because his wrist was broken.",
        "he broke his leg",
        "For personal reasons.",
    ),
    ProbeQuestion(
        "Where do Hana and Piet plan to marry?",
        "on the island of Sorrel",
        "On Sorrel, an island.",
        "on the island of Laurel",
        "At a place that they both love.",
    ),
    ProbeQuestion(
        "What colour is the door of the old mill?",
        "green",
        "It is green.",
        "blue",
        "It is painted in a bright colour.",
    ),
    ProbeQuestion(
        "How long did the Fenwick expedition last?",
        "eleven weeks",
        "It took 11 weeks.",
        "eleven months",
        "It lasted quite long.",
    ),
    ProbeQuestion(
        "Which film did Carla Venn direct in 2004?",
        "The Glass Orchard",
        "She directed The Glass Orchard.",
        "The Glass Harbour",
        "A drama.",
    ),
    ProbeQuestion(
        "What does Bram study?",
        "marine biology",
        "He is a student of marine biology.",
        "molecular biology",
        "He studies at a university.",
    ),
    ProbeQuestion(
        "Who gave Ines the blue scarf?",
        "her aunt Rosa",
        "Rosa, her aunt.",
        "her aunt Maria",
        "Somebody of her family.",
    ),
    ProbeQuestion(
        "What are the names of Kofi's children?",
        "Ama, Yaw and Esi",
        "Yaw, Esi and Ama.",
        "Ama and Yaw",
        "Kofi has children.",
    ),
    ProbeQuestion(
        "At which station does the Northline end?",
        "Harrow Cross",
        "It ends at Harrow Cross.",
        "Harrow Hill",
        "At its last station.",
    ),
    ProbeQuestion(
        "What was the prize money of the chess cup?",
        "2,500 crowns",
        "2500 crowns.",
        "25,000 crowns",
        "A sum of money.",
    ),
    ProbeQuestion(
        "Which language did Sister Agnes translate?",
        "Old Frisian",
        "She translated Old Frisian.",
        "Old Saxon",
        "An old language.",
    ),
    ProbeQuestion(
        "What is Milo allergic to?",
        "peanuts",
        "He cannot eat peanuts.",
        "walnuts",
        "He is allergic to some food.",
    ),
    ProbeQuestion(
        "Who painted the ceiling of the Tolland chapel?",
        "Giraldo Pesce",
        "Giraldo Pesce painted it.",
        "Giacomo Pesce",
        "A painter of the Baroque.",
    ),
    ProbeQuestion(
        "When did Nadia start her new job?",
        "in October 2021",
        "October 2021.",
        "in October 2012",
        "After she had left her old job.",
    ),
    ProbeQuestion(
        "How tall is Mount Ebren?",
        "3,120 metres",
        "It is 3120 m high.",
        "3,210 metres",
        "It is one of the higher mountains.",
    ),
    ProbeQuestion(
        "Which team won the 1996 Lantern Cup?",
        "Redmoor United",
        "Redmoor United won it.",
        "Redmoor City",
        "The better team.",
    ),
    ProbeQuestion(
        "What did Oskar cook for the reunion?",
        "lentil stew",
        "A stew of lentils.",
        "lamb stew",
        "He cooked a warm dish.",
    ),
    ProbeQuestion(
        "Where was the poet Lia Sant born?",
        "in Port Amary",
        "Port Amary.",
        "in Port Avery",
        "In a harbour town.",
    ),
    ProbeQuestion(
        "Which illness kept Greta at home?",
        "shingles",
        "She had shingles.",
        "measles",
        "She was not well.",
    ),
    ProbeQuestion(
        "What is the profession of Edda's brother?",
        "beekeeper",
        "He keeps bees for a living.",
        "bookkeeper",
        "He works.",
    ),
    ProbeQuestion(
        "From which university did Ravi graduate?",
        "Callow University",
        "He graduated from Callow.",
        "Caldwell University",
        "From a university.",
    ),
    ProbeQuestion(
        "Which ship carried the Ardent Stone?",
        "the Pelican",
        "It was carried by the Pelican.",
        "the Petrel",
        "A sailing ship.",
    ),
    ProbeQuestion(
        "What did Yuki promise her grandmother?",
        "to learn to swim",
        "That she would learn swimming.",
        "to learn to sing",
        "That she would do something new.",
    ),
    ProbeQuestion(
        "Which two metals make up the Varn alloy?",
        "tin and silver",
        "Silver and tin.",
        "tin and copper",
        "Two metals that are mixed.",
    ),
    ProbeQuestion(
        "What did Tess say about the trip to Mars?",
        "no information available",
        "There is no information on that.",
        "She found it exciting.",
        "She said something about a trip.",
    ),
)
