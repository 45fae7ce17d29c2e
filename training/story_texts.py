"""Short children's stories, put together by chance from sentences that were written for this: what the story pair
learns. No text of anybody else is in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

ANIMALS = ("fox", "rabbit", "bear", "mouse", "duck", "hedgehog", "squirrel", "frog", "cat", "dog", "owl", "turtle")
NAMES = ("Lily", "Tom", "Mia", "Ben", "Ruby", "Max", "Ella", "Sam", "Nora", "Leo", "Pip", "Daisy")
PLACES = ("forest", "garden", "village", "meadow", "valley", "hill", "river", "lake")
LOOKS = ("little", "brave", "shy", "curious", "clever", "happy")
THINGS = ("kite", "red ball", "drum", "blue hat", "lantern", "golden key", "toy boat", "warm scarf")
FOODS = ("an apple pie", "a honey cake", "some soup", "a bowl of berries", "warm bread")
WEATHERS = ("The sun was warm", "The wind was strong", "It was raining", "Snow was falling", "The sky was blue")

OPENINGS = (
    "Once upon a time, there was a {look} {animal} named {name}. {name} lived near a {place}.",
    "Once upon a time, a {look} {animal} named {name} lived by the {place}.",
    "Once, in a house by the {place}, there lived a {look} {animal}. The name of the {animal} was {name}.",
)
PLOTS = (
    (
        "{name} had a {thing} and took it everywhere.|{name} loved a {thing} more than anything.",
        "One day, the {thing} was gone.|One morning, {name} could not find the {thing}.",
        "{weather}, but {name} went out to look for it.|{name} looked under the bed and behind the door.",
        "At the {place2}, {name} met a {animal2} named {friend}.",
        '"Why are you so sad?" asked {friend}.|"What is wrong?" said {friend}.',
        '"I have lost my {thing}," said {name}.',
        '"I will help you," said {friend}. They looked and looked.',
        "Then {friend} saw something in the grass. It was the {thing}!|At last, they found the {thing} in a tree.",
        '"Thank you!" said {name}, and they played with the {thing} all day.',
    ),
    (
        "One day, {name} wanted to see what was behind the {place2}."
        "|One day, {name} made a plan to walk to the {place2}.",
        "{weather}, and the way was long.",
        "On the way, {name} met a {animal2} named {friend}, who was all alone.",
        '"May I come with you?" asked {friend}.|"Where do you go?" asked {friend}.',
        '"Yes, come with me," said {name}. So they went on together.',
        "When they were hungry, they sat down and ate {food}.",
        "In the evening they came to the {place2}. It was more beautiful than a dream.",
        '"I am glad that I did not go alone," said {name}.|"Now I have seen it with a friend," said {name}.',
        "They watched the stars, and then they walked home.",
    ),
    (
        "But {name} was afraid of the dark.|At night, {name} was always a bit afraid.",
        "One night, there was a strange sound at the window.|One night, something knocked at the door.",
        '"Who is there?" asked {name} in a small voice.',
        '"It is only me, {friend} the {animal2}," said a voice. "I am cold, and I have lost my way."',
        "{name} opened the door and let {friend} in.",
        "{name} gave {friend} {food} and a {thing}.|They sat by the fire and ate {food}.",
        '"You are very kind," said {friend}. "And you are very brave."',
        "From that night on, {name} was not afraid of the dark any more.",
    ),
    (
        "One day, {name} wanted to make {food} for all the animals of the {place}.",
        "But there was no more flour in the house.|But the fire would not burn.",
        "{weather}. {name} went to {friend} the {animal2}, who lived by the {place2}.",
        '"Can you help me?" asked {name}.|"I need your help," said {name}.',
        '"Of course," said {friend}. "We will do it together."',
        "They worked all morning, and they laughed a lot.",
        "In the afternoon, everybody came and ate {food}.",
        '"This is the best day of the year," said {friend}.|"It tastes so good!" said {friend}.',
        "And {name} was very happy.",
    ),
)  # fmt: skip
ENDINGS = (
    "And they were friends for ever after.",
    "The end of the day was the best part of it.",
    "And {name} slept well that night.",
    "{name} smiled and said good night.",
)
REQUESTS = ("Tell me about a {animal}.", "Tell me a story about a {animal}.", "A story about {name}, please.")


def story(random: Random) -> tuple[str, str]:
    """A request and the story that answers it."""
    name, friend = random.sample(NAMES, 2)
    animal, animal2 = random.sample(ANIMALS, 2)
    place, place2 = random.sample(PLACES, 2)
    chosen = {
        "look": random.choice(LOOKS), "thing": random.choice(THINGS), "food": random.choice(FOODS),
        "weather": random.choice(WEATHERS),
        "name": name, "friend": friend, "animal": animal, "animal2": animal2, "place": place, "place2": place2,
    }  # fmt: skip
    sentences = [random.choice(OPENINGS), *random.choice(PLOTS), random.choice(ENDINGS)]
    text = " ".join(random.choice(sentence.split("|")) for sentence in sentences)
    articles = (("a owl", "an owl"), ("a a ", "a "))
    whole = text.format(**chosen)
    asked = random.choice(REQUESTS).format(**chosen)
    for wrong, right in articles:
        whole, asked = whole.replace(wrong, right), asked.replace(wrong, right)
    return asked, whole


def conversations(random: Random) -> Iterator[str]:
    """A story, one behind a request, and one behind a request that follows another."""
    while True:
        (asked, first), (again, second) = story(random), story(random)
        yield first
        yield f"{asked} {first}"
        yield f"{asked}\n\n {first}\n\n{again} {second}"
