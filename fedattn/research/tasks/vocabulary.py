"""Words the retrieval cases are made of, and how distinct ones are drawn.

No word of a list contains another one of the same list, so that an answer occurs where it is meant.
"""

from collections.abc import Callable
from random import Random

Draw = Callable[[Random, int], list[str]]  # that many distinct texts

ROOMS = (
    "boiler room", "archive", "server room", "workshop", "laboratory", "wine cellar", "greenhouse",
    "print shop", "mail room", "pharmacy", "canteen", "library", "laundry", "sauna", "chapel",
    "music room", "dark room", "tool shed", "garage", "attic", "cold store", "paint store",
    "lecture hall", "reading room", "control room", "waiting room", "staff kitchen", "bicycle shed",
    "swimming pool", "observatory", "radio studio", "dance hall", "sewing room", "battery room",
    "game room", "first aid room", "locker room", "map room", "loading dock", "billiard room",
)  # fmt: skip
MACHINES = (
    "cooling pump", "bread oven", "steam boiler", "water turbine", "gas burner", "paper press",
    "milk tank", "ice machine", "air compressor", "glass furnace", "diesel generator", "oil heater",
    "grain dryer", "coffee roaster", "drying cabinet", "beer kettle", "pottery kiln", "fish freezer",
    "bottle washer", "laser cutter", "band saw", "cement mixer", "cable winch", "feed silo",
    "solar panel", "heat exchanger", "vacuum pump", "chocolate mixer", "cheese press", "rope hoist",
    "sugar mill", "yarn spinner", "dough kneader", "fuel cell", "gravel sorter", "salt evaporator",
    "wind tunnel", "incubator", "wood planer", "steel lathe",
)  # fmt: skip
SHIPS = (
    "Aurora", "Borealis", "Calypso", "Dolphin", "Esmeralda", "Falcon", "Galatea", "Halcyon",
    "Iduna", "Juno", "Kestrel", "Leander", "Marigold", "Nautilus", "Orion", "Pelican", "Quicksilver",
    "Rosalind", "Seagull", "Tempest", "Undine", "Valkyrie", "Wanderer", "Xanthe", "Yarrow",
    "Zephyr", "Albatross", "Buccaneer", "Corsair", "Discovery", "Endeavour", "Fortuna", "Griffin",
    "Hesperus", "Integrity", "Jubilee", "Kingfisher", "Lodestar", "Mermaid", "Nightingale",
)  # fmt: skip
CITIES = (
    "Lisbon", "Oslo", "Hamburg", "Genoa", "Dublin", "Cardiff", "Bergen", "Gdansk", "Riga", "Tallinn",
    "Helsinki", "Antwerp", "Bilbao", "Porto", "Marseille", "Naples", "Athens", "Split", "Odessa",
    "Istanbul", "Alexandria", "Tunis", "Dakar", "Lagos", "Durban", "Mombasa", "Mumbai", "Colombo",
    "Jakarta", "Manila", "Osaka", "Busan", "Perth", "Auckland", "Valparaiso", "Lima", "Havana",
    "Boston", "Halifax", "Seattle", "Montreal", "Krakow", "Vienna", "Zurich", "Prague", "Bristol",
    "Leipzig", "Toledo",
)  # fmt: skip
FIRST_NAMES = (
    "Marta", "Peter", "Ingrid", "Thomas", "Helen", "Victor", "Sofia", "Daniel", "Clara", "Martin",
    "Laura", "Samuel", "Nadia", "Oscar", "Julia", "Felix", "Emma", "Henry", "Alice", "George",
    "Rosa", "Walter", "Irene", "Simon", "Greta", "Leo", "Monica", "Arthur", "Diana", "Hugo",
    "Esther", "Ralph", "Vera", "Philip", "Nora", "Edgar", "Ruth", "Conrad", "Tessa", "Gilbert",
)  # fmt: skip
SURNAMES = (
    "Klein", "Novak", "Larsen", "Moreau", "Rossi", "Keller", "Andersen", "Fischer", "Bennett",
    "Carter", "Dawson", "Ellis", "Foster", "Garcia", "Hughes", "Ibsen", "Jansen", "Kowalski",
    "Lindberg", "Mendoza", "Nolan", "Ortega", "Parker", "Quinn", "Russo", "Sanders", "Turner",
    "Ulrich", "Vargas", "Weber", "Young", "Ziegler", "Baxter", "Cooper", "Duncan", "Fleming",
    "Gibson", "Hoffman", "Jensen", "Lambert",
)  # fmt: skip
GOODS = (
    "tea", "coffee", "copper wire", "bricks", "cotton", "sugar", "oranges", "timber", "bicycles",
    "carpets", "glassware", "rice", "salt", "olive oil", "cheese", "books", "shoes", "bananas",
    "wool", "tobacco", "marble", "cement", "toys", "clocks", "umbrellas", "pianos", "tractors",
    "sardines", "honey", "pepper", "cocoa", "leather", "paint", "candles", "potatoes", "tiles",
    "mirrors", "rubber", "barley", "silk",
)  # fmt: skip
SHOPS = (
    "bakery", "flower shop", "bank", "post office", "museum", "cinema", "hotel", "dentist",
    "bookshop", "butcher", "hairdresser", "theatre", "gymnasium", "travel agency", "toy store",
    "fish market", "brewery", "art gallery", "town hall", "kindergarten", "tailor", "jeweller",
    "law firm", "car rental", "florist", "optician", "pet clinic", "tea house", "wine bar",
    "ice rink", "boat club", "riding school", "shoemaker", "watchmaker", "locksmith", "sawmill",
    "dairy", "newspaper", "courthouse", "zoo",
)  # fmt: skip
COURSES = (
    "pottery", "chess", "Spanish", "first aid", "photography", "cooking", "dancing", "sailing",
    "painting", "yoga", "carpentry", "Latin", "welding", "bookkeeping", "gardening", "singing",
    "judo", "astronomy", "knitting", "typing", "drawing", "Japanese", "swimming", "fencing",
    "weaving", "juggling", "archery", "calligraphy", "beekeeping", "sculpture", "robotics", "guitar",
    "violin", "cycling", "climbing", "geology", "Greek", "rowing", "tennis", "embroidery",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip


def words(vocabulary: tuple[str, ...]) -> Draw:
    """Words of a list."""
    return lambda rng, count: rng.sample(vocabulary, count)


def numbers(low: int, high: int, pattern: str = "{}") -> Draw:
    """Numbers of the half-open range, written into the pattern; all of one width if low is."""
    return lambda rng, count: [pattern.format(n) for n in rng.sample(range(low, high), count)]


def decimals(low: int, high: int) -> Draw:
    """Numbers with one decimal, `low` up to below `high` tenths."""
    return lambda rng, count: [f"{n / 10:.1f}" for n in rng.sample(range(low, high), count)]


def full_names(rng: Random, count: int) -> list[str]:
    """First name and surname, both distinct."""
    pairs = zip(rng.sample(FIRST_NAMES, count), rng.sample(SURNAMES, count), strict=True)
    return [f"{first} {last}" for first, last in pairs]


def dates(rng: Random, count: int) -> list[str]:
    """Days with two digits, so that none is the beginning of another: May 12."""
    days = rng.sample(range(len(MONTHS) * 19), count)
    return [f"{MONTHS[day // 19]} {10 + day % 19}" for day in days]
