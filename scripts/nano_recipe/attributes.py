"""What people tell about themselves and others: twenty attributes, each in many wordings.

Placeholders: {S} subject, {P} possessive, {V} value, {s} {es} verb endings, {be} {have} {do} {was}.
Every wording list has a training part and a held-out part; the held-out part is never trained on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attribute:
    """answer: the one form the assistant uses. clause: what follows "I do not know". Lists: wordings."""

    name: str
    values: tuple[str, ...]
    answer: str
    clause: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    clauses: tuple[str, ...]
    nouns: tuple[str, ...]
    held_statements: tuple[str, ...]
    held_questions: tuple[str, ...]


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines() if line.strip())


def _attribute(name: str, values: str, answer: str, clause: str, **lists: str) -> Attribute:
    parts = {key: _lines(value) for key, value in lists.items()}
    return Attribute(name, tuple(v.strip() for v in values.split(",")), answer, clause, **parts)


CITIES = (
    "Lisbon, Paris, London, Berlin, Rome, Madrid, Vienna, Oslo, Dublin, Prague, Athens, Warsaw, Helsinki, Cairo, "
    "Lagos, Nairobi, Delhi, Tokyo, Seoul, Beijing, Sydney, Toronto, Chicago, Boston, Dallas, Denver, Seattle, "
    "Lima, Bogota, Havana, Geneva, Zurich, Milan, Naples, Porto, Seville, Lyon, Munich, Hamburg, Dresden, Krakow, "
    "Budapest, Riga, Tallinn, Vilnius, Minsk, Kyiv, Istanbul, Ankara, Tunis, Accra, Dakar, Mumbai, Bangkok, Hanoi, "
    "Manila, Perth, Brisbane, Auckland, Quebec, Montreal, Austin, Phoenix, Houston, Leeds, Bristol, Glasgow, Cardiff"
)

ATTRIBUTES = (
    _attribute(
        "city",
        CITIES,
        "{S} live{s} in {V}.",
        "where {S} live{s}",
        statements="""{S} live{s} in {V}.
            {P} home is in {V}.
            {S} moved to {V}.
            {S} {have} a flat in {V}.
            {S} {be} living in {V} now.
            These days {S} live{s} in {V}.
            {P} house is in {V}.
            {S} settled in {V} last year.
            The city where {S} live{s} is {V}.""",
        questions="""Where {do} {S} live?
            Which city {do} {S} live in?
            In what city {do} {S} live?
            What city {be} {S} living in?
            Where is {P} home?
            In which city is {P} house?
            What town {do} {S} live in?
            Where {be} {S} living now?
            What place {do} {S} live in these days?""",
        clauses="where {S} live{s}\nin which city {S} live{s}\nwhat city {S} live{s} in\nwhere {P} house is",
        nouns="the city {S} live{s} in\n{P} home city\nthe place where {S} live{s}\nthe town {S} live{s} in",
        held_statements="{P} flat is in {V}.\n{S} now live{s} in {V}.",
        held_questions="What is the name of the city where {S} live{s}?\nIn which town {do} {S} live now?",
    ),
    _attribute(
        "origin",
        CITIES,
        "{S} grew up in {V}.",
        "where {S} grew up",
        statements="""{S} grew up in {V}.
            {S} {was} born in {V}.
            {S} come{s} from {V}.
            {S} {be} from {V}.
            {P} family is from {V}.
            {S} spent {P} childhood in {V}.
            {P} home town is {V}.
            {S} {was} a child in {V}.""",
        questions="""Where did {S} grow up?
            Where {was} {S} born?
            Where {do} {S} come from?
            Where {be} {S} from?
            What is {P} home town?
            Which city {do} {S} come from?
            In which city did {S} grow up?
            Where did {S} spend {P} childhood?""",
        clauses="where {S} grew up\nwhere {S} {was} born\nwhere {S} come{s} from\nwhich city {S} {be} from",
        nouns="{P} home town\nthe city {S} come{s} from\nthe place where {S} grew up\n{P} place of birth",
        held_statements="{S} originally come{s} from {V}.\nAs a child {S} lived in {V}.",
        held_questions="In what town {was} {S} born?\nFrom which city {do} {S} come?",
    ),
    _attribute(
        "job",
        "nurse, teacher, baker, carpenter, plumber, lawyer, doctor, pilot, farmer, gardener, painter, singer, writer, "
        "dentist, chef, waiter, driver, mechanic, engineer, programmer, librarian, tailor, butcher, barber, soldier, "
        "fisherman, builder, banker, judge, actor, dancer, drummer, photographer, journalist, designer, chemist, vet, "
        "firefighter, postman, clerk, miner, sailor, potter, welder, surgeon, translator, biologist, florist, jeweller",
        "{S} work{s} as a {V}.",
        "what work {S} {do}",
        statements="""{S} work{s} as a {V}.
            {S} {be} a {V}.
            {P} job is {V}.
            {S} became a {V}.
            {S} earn{s} money as a {V}.
            {S} {have} a job as a {V}.
            {P} profession is {V}.
            {S} started to work as a {V}.
            By trade {S} {be} a {V}.""",
        questions="""What is {P} job?
            What {do} {S} do for a living?
            What {do} {S} work as?
            What is {P} profession?
            What kind of work {do} {S} do?
            What job {do} {S} have?
            As what {do} {S} work?
            How {do} {S} earn money?""",
        clauses="what {S} work{s} as\nwhat {P} job is\nwhat {S} {do} for a living\nhow {S} earn{s} money",
        nouns="{P} job\n{P} profession\nthe job {S} {have}\nthe work {S} {do}",
        held_statements="For a living {S} work{s} as a {V}.\n{P} work is that of a {V}.",
        held_questions="What work {do} {S} do for a living?\nWhich profession {do} {S} have?",
    ),
    _attribute(
        "colour",
        "red, blue, green, yellow, purple, orange, pink, black, white, brown, grey, silver, gold, turquoise, violet, "
        "beige, crimson, indigo, maroon, teal, lilac, ivory, amber, scarlet, navy, olive, coral, magenta",
        "{P} favourite colour is {V}.",
        "what {P} favourite colour is",
        statements="""{P} favourite colour is {V}.
            {S} like{s} the colour {V} best.
            The colour {S} love{s} most is {V}.
            {S} love{s} the colour {V}.
            Of all colours {S} like{s} {V} best.
            {S} prefer{s} the colour {V}.
            {V} is {P} favourite colour.""",
        questions="""What is {P} favourite colour?
            Which colour {do} {S} like best?
            What colour {do} {S} love most?
            Which colour is {P} favourite?
            What colour {do} {S} prefer?
            Which colour {do} {S} love?
            What colour {do} {S} like?""",
        clauses="what {P} favourite colour is\nwhich colour {S} like{s} best\nwhat colour {S} love{s}",
        nouns="{P} favourite colour\nthe colour {S} like{s} best\nthe colour {S} love{s} most",
        held_statements="The best colour for {P} taste is {V}.\n{P} best loved colour is {V}.",
        held_questions="Of all colours, which one {do} {S} like best?\nWhat is the colour {S} love{s} most?",
    ),
    _attribute(
        "food",
        "pizza, soup, rice, pasta, sushi, curry, salad, bread, cheese, noodles, pancakes, waffles, dumplings, tacos, "
        "burgers, lasagna, risotto, stew, omelettes, porridge, pie, fish, beans, potatoes, mushrooms, lentils, "
        "sausages, ham, tofu, couscous, paella, ramen, goulash, kebab, chili, gnocchi, ravioli, falafel, hummus, toast",
        "{P} favourite food is {V}.",
        "what {P} favourite food is",
        statements="""{P} favourite food is {V}.
            {S} love{s} to eat {V}.
            The food {S} like{s} best is {V}.
            {S} like{s} {V} more than any other food.
            {P} favourite dish is {V}.
            {S} eat{s} {V} whenever possible.
            {P} favourite meal is {V}.
            Nothing tastes better to {P} tongue than {V}.""",
        questions="""What is {P} favourite food?
            What {do} {S} love to eat?
            What food {do} {S} like best?
            Which dish {do} {S} like most?
            What is {P} favourite dish?
            What is {P} favourite meal?
            What {do} {S} like to eat?
            Which food is {P} favourite?""",
        clauses="what {P} favourite food is\nwhat {S} love{s} to eat\nwhich dish {S} like{s} most\nwhat {S} like{s} to eat",
        nouns="{P} favourite food\n{P} favourite dish\nthe food {S} like{s} best\nthe meal {S} love{s}",
        held_statements="The dish {S} like{s} most is {V}.\nFor dinner {S} love{s} to eat {V}.",
        held_questions="Which meal {do} {S} love most?\nWhat food is {P} favourite?",
    ),
    _attribute(
        "drink",
        "tea, coffee, milk, juice, water, cocoa, lemonade, cider, beer, wine, cola, espresso, latte, smoothies, soda, "
        "matcha, chai, kefir, punch, rum, whisky, champagne, ginger ale, mint tea, iced tea, tonic, buttermilk, mocha",
        "{P} favourite drink is {V}.",
        "what {P} favourite drink is",
        statements="""{P} favourite drink is {V}.
            {S} love{s} to drink {V}.
            {S} drink{s} {V} every day.
            The drink {S} like{s} best is {V}.
            {S} always order{s} {V} to drink.
            {S} drink{s} a lot of {V}.
            When thirsty {S} drink{s} {V}.
            In the morning {S} drink{s} {V}.""",
        questions="""What is {P} favourite drink?
            What {do} {S} love to drink?
            What {do} {S} drink every day?
            What drink {do} {S} like best?
            What {do} {S} like to drink?
            What {do} {S} drink in the morning?
            Which drink {do} {S} order?
            Which drink is {P} favourite?""",
        clauses="what {S} like{s} to drink\nwhat {P} favourite drink is\nwhat {S} drink{s} every day\nwhich drink {S} order{s}",
        nouns="{P} favourite drink\nthe drink {S} like{s} best\nthe drink {S} order{s}",
        held_statements="What {S} like{s} to drink is {V}.\n{P} drink of choice is {V}.",
        held_questions="Which drink {do} {S} love?\nWhat {do} {S} drink when thirsty?",
    ),
    _attribute(
        "sport",
        "football, tennis, chess, golf, rugby, hockey, cricket, boxing, swimming, running, cycling, rowing, skiing, "
        "judo, karate, volleyball, basketball, baseball, badminton, squash, fencing, archery, surfing, climbing, sailing, "
        "skating, wrestling, bowling, darts, handball, softball, curling, diving, polo",
        "{P} sport is {V}.",
        "what {P} sport is",
        statements="""{P} sport is {V}.
            {S} practise{s} {V} as a sport.
            {P} favourite sport is {V}.
            The sport {S} like{s} best is {V}.
            {S} train{s} for {V} every week.
            {S} {be} good at the sport of {V}.
            For sport {S} go{es} to {V}.""",
        questions="""What is {P} sport?
            What sport {do} {S} practise?
            Which sport {do} {S} like best?
            What is {P} favourite sport?
            What sport {do} {S} train for?
            Which sport {be} {S} good at?
            What sport {do} {S} do?""",
        clauses="what {P} sport is\nwhich sport {S} practise{s}\nwhat sport {S} train{s} for\nwhich sport {S} like{s} best",
        nouns="{P} sport\n{P} favourite sport\nthe sport {S} practise{s}\nthe sport {S} train{s} for",
        held_statements="The sport {S} train{s} for is {V}.\nEvery week {S} practise{s} {V}, a sport.",
        held_questions="Which sport {do} {S} train for every week?\nWhat is the sport {S} like{s} best?",
    ),
    _attribute(
        "instrument",
        "piano, guitar, violin, cello, flute, trumpet, drums, harp, clarinet, oboe, saxophone, banjo, ukulele, organ, "
        "accordion, trombone, tuba, viola, bass, mandolin, harmonica, bagpipes, recorder, horn, lute, xylophone",
        "{S} play{s} the {V}.",
        "which instrument {S} play{s}",
        statements="""{S} play{s} the {V}.
            {S} {be} learning to play the {V}.
            {S} make{s} music on the {V}.
            {P} instrument is the {V}.
            {S} take{s} lessons on the {V}.
            The instrument {S} play{s} is the {V}.
            {S} {be} in a band and play{s} the {V}.""",
        questions="""Which instrument {do} {S} play?
            What instrument {do} {S} play?
            What is {P} instrument?
            What {do} {S} make music on?
            What instrument {be} {S} learning?
            On which instrument {do} {S} take lessons?
            What {do} {S} play in the band?""",
        clauses="which instrument {S} play{s}\nwhat instrument {S} {be} learning\nwhat {S} make{s} music on",
        nouns="{P} instrument\nthe instrument {S} play{s}\nthe instrument {S} {be} learning",
        held_statements="In the band {S} play{s} the {V}.\n{S} learned to make music on the {V}.",
        held_questions="Which instrument {be} {S} learning to play?\nWhat is the instrument {S} play{s}?",
    ),
    _attribute(
        "pet",
        "dog, cat, rabbit, hamster, parrot, turtle, goldfish, horse, pony, snake, lizard, canary, ferret, mouse, rat, "
        "goat, duck, hen, pig, sheep, donkey, frog, hedgehog, gecko, spider, pigeon, goose, llama, crow, owl",
        "{P} pet is a {V}.",
        "what pet {S} {have}",
        statements="""{P} pet is a {V}.
            {S} {have} a {V} as a pet.
            {S} keep{s} a {V} at home as a pet.
            {S} got a pet {V}.
            At home {S} {have} a pet {V}.
            {S} own{s} a {V}, a nice pet.
            {S} bought a {V} as a pet.""",
        questions="""What pet {do} {S} have?
            What kind of pet {do} {S} have?
            Which animal {do} {S} keep at home?
            What is {P} pet?
            Which pet {do} {S} own?
            What animal {do} {S} have as a pet?
            What animal is {P} pet?""",
        clauses="what pet {S} {have}\nwhich animal {S} keep{s} at home\nwhat kind of pet {S} {have}",
        nouns="{P} pet\nthe pet {S} {have}\nthe animal {S} keep{s} at home",
        held_statements="The pet {S} own{s} is a {V}.\n{S} take{s} care of a pet {V}.",
        held_questions="Which kind of animal {do} {S} have as a pet?\nWhat pet {do} {S} keep at home?",
    ),
    _attribute(
        "pet_name",
        "Rex, Bella, Max, Luna, Rocky, Daisy, Milo, Coco, Buddy, Ruby, Teddy, Molly, Oscar, Poppy, Toby, Lola, Shadow, "
        "Ginger, Biscuit, Pepper, Smokey, Whiskers, Felix, Tiger, Snowy, Bruno, Pip, Nala, Simba, Archie, Fluffy, Spot",
        "{P} pet is called {V}.",
        "what {P} pet is called",
        statements="""{P} pet is called {V}.
            {P} pet has the name {V}.
            The name of {P} pet is {V}.
            {S} gave {P} pet the name {V}.
            {S} call{s} {P} pet {V}.
            {P} pet answers to the name {V}.""",
        questions="""What is {P} pet called?
            What is the name of {P} pet?
            What name did {S} give {P} pet?
            How {do} {S} call {P} pet?
            Which name {do} {P} pet have?
            What is {P} pet's name?""",
        clauses="what {P} pet is called\nwhat the name of {P} pet is\nwhat name {S} gave {P} pet",
        nouns="the name of {P} pet\n{P} pet's name\nthe name {S} gave {P} pet",
        held_statements="{V} is the name of {P} pet.\nThe pet of {P} home is called {V}, that is the name.",
        held_questions="Which name did {S} give to {P} pet?\nHow is {P} pet called?",
    ),
    _attribute(
        "birthday",
        "January, February, March, April, May, June, July, August, September, October, November, December",
        "{P} birthday is in {V}.",
        "when {P} birthday is",
        statements="""{P} birthday is in {V}.
            {S} celebrate{s} {P} birthday in {V}.
            {S} turn{s} a year older in {V}.
            {S} {have} a birthday in {V}.
            The month of {P} birthday is {V}.
            {P} birthday party is in {V}.""",
        questions="""When is {P} birthday?
            In which month is {P} birthday?
            When {do} {S} celebrate {P} birthday?
            What month is {P} birthday in?
            In what month {do} {S} turn a year older?
            When is {P} birthday party?""",
        clauses="when {P} birthday is\nin which month {P} birthday is\nwhen {S} celebrate{s} {P} birthday",
        nouns="the month of {P} birthday\n{P} birthday month",
        held_statements="Each {V} {S} celebrate{s} {P} birthday.\n{P} birthday falls in {V}.",
        held_questions="Which month {do} {S} celebrate {P} birthday in?\nWhat is the month of {P} birthday?",
    ),
    _attribute(
        "car",
        "Ford, Fiat, Volvo, Toyota, Honda, Tesla, Mazda, Skoda, Renault, Peugeot, Opel, Audi, Jeep, Kia, Nissan, Subaru, "
        "Porsche, Dacia, Lexus, Suzuki, Hyundai, Jaguar, Bentley, Seat, Saab, Lada, Rover, Chevrolet, Dodge, Mini",
        "{S} drive{s} a {V}.",
        "what car {S} drive{s}",
        statements="""{S} drive{s} a {V}.
            {P} car is a {V}.
            {S} bought a {V} to drive.
            {S} go{es} to work in a {V}.
            The car {S} drive{s} is a {V}.
            {S} own{s} a car, a {V}.
            {S} {have} a {V} in the garage.""",
        questions="""What car {do} {S} drive?
            Which car {do} {S} drive?
            What kind of car {do} {S} have?
            What is {P} car?
            What {do} {S} drive?
            Which car {do} {S} own?
            What car is in {P} garage?""",
        clauses="what car {S} drive{s}\nwhich car {S} {have}\nwhat {P} car is\nwhat {S} drive{s}",
        nouns="{P} car\nthe car {S} drive{s}\nthe kind of car {S} {have}",
        held_statements="In {P} garage stands a {V}, the car.\nThe car {S} bought is a {V}.",
        held_questions="Which kind of car {do} {S} own?\nWhat car {do} {S} go to work in?",
    ),
    _attribute(
        "hobby",
        "fishing, knitting, painting, baking, reading, hiking, dancing, cooking, singing, sewing, gaming, gardening, "
        "pottery, origami, camping, birdwatching, juggling, drawing, writing poems, yoga, magic tricks, model trains, "
        "photography, puzzles, stargazing, weaving, carving, collecting stamps, collecting coins, calligraphy, embroidery",
        "{P} hobby is {V}.",
        "what {P} hobby is",
        statements="""{P} hobby is {V}.
            In the free time {S} enjoy{s} {V}.
            {S} spend{s} the weekend with {V}.
            {P} favourite hobby is {V}.
            {S} {have} a hobby, and it is {V}.
            After work {S} relax{es} with {V}.
            For fun {S} like{s} {V}.""",
        questions="""What is {P} hobby?
            What {do} {S} do in the free time?
            What {do} {S} enjoy in the free time?
            Which hobby {do} {S} have?
            What {do} {S} do for fun?
            How {do} {S} spend the weekend?
            How {do} {S} relax after work?
            What is {P} favourite hobby?""",
        clauses="what {P} hobby is\nwhat {S} {do} in the free time\nhow {S} spend{s} the weekend\nwhat {S} {do} for fun",
        nouns="{P} hobby\n{P} favourite hobby\nthe hobby {S} {have}",
        held_statements="The hobby {S} enjoy{s} is {V}.\nOn a free weekend {S} enjoy{s} {V}.",
        held_questions="Which hobby {do} {S} enjoy?\nWhat {do} {S} do for fun on the weekend?",
    ),
    _attribute(
        "language",
        "French, German, Spanish, Italian, Greek, Polish, Dutch, Danish, Swedish, Finnish, Russian, Turkish, Arabic, "
        "Hebrew, Hindi, Chinese, Japanese, Korean, Thai, Latin, Irish, Welsh, Czech, Hungarian, Norwegian, Swahili, Urdu",
        "{S} {be} learning {V}.",
        "which language {S} {be} learning",
        statements="""{S} {be} learning {V}.
            {S} {study} {V}, a language.
            {S} {be} taking a class in {V}.
            {S} want{s} to speak {V}.
            The language {S} {be} learning is {V}.
            {S} practise{s} the language {V}.
            {S} take{s} {V} lessons.""",
        questions="""Which language {be} {S} learning?
            What language {do} {S} study?
            Which language {do} {S} want to speak?
            What language {be} {S} learning?
            Which language class {be} {S} taking?
            What language {do} {S} practise?""",
        clauses="which language {S} {be} learning\nwhat language {S} {study}\nwhich language {S} want{s} to speak",
        nouns="the language {S} {be} learning\nthe language {S} want{s} to speak\n{P} new language",
        held_statements="The language {S} {study} is {V}.\nSince last year {S} {be} learning the language {V}.",
        held_questions="What is the language {S} {be} learning?\nIn which language {do} {S} take a class?",
    ),
    _attribute(
        "season",
        "spring, summer, autumn, winter",
        "{P} favourite season is {V}.",
        "what {P} favourite season is",
        statements="""{P} favourite season is {V}.
            The season {S} like{s} best is {V}.
            {S} love{s} the {V} season.
            Of all seasons {S} prefer{s} {V}.
            {S} {be} happiest in the season of {V}.""",
        questions="""What is {P} favourite season?
            Which season {do} {S} like best?
            What season {do} {S} love?
            Which season is {P} favourite?
            In which season {be} {S} happiest?""",
        clauses="what {P} favourite season is\nwhich season {S} like{s} best\nwhat season {S} love{s}",
        nouns="{P} favourite season\nthe season {S} like{s} best",
        held_statements="The season {S} prefer{s} is {V}.",
        held_questions="Which season {do} {S} prefer?\nOf all seasons, which {do} {S} like best?",
    ),
    _attribute(
        "fruit",
        "apples, pears, plums, cherries, grapes, bananas, oranges, lemons, peaches, mangoes, figs, dates, melons, kiwis, "
        "strawberries, raspberries, blueberries, apricots, papayas, limes, pineapples, coconuts, currants, quinces",
        "{P} favourite fruit is {V}.",
        "what {P} favourite fruit is",
        statements="""{P} favourite fruit is {V}.
            The fruit {S} like{s} best is {V}.
            Of all fruit {S} love{s} {V} most.
            {S} buy{s} {V} as fruit every week.
            {S} prefer{s} {V} to any other fruit.
            The fruit {S} eat{s} most is {V}.""",
        questions="""What is {P} favourite fruit?
            Which fruit {do} {S} like best?
            What fruit {do} {S} love most?
            Which fruit {do} {S} buy?
            What fruit {do} {S} prefer?
            What fruit {do} {S} eat?""",
        clauses="what {P} favourite fruit is\nwhich fruit {S} like{s} best\nwhat fruit {S} buy{s}",
        nouns="{P} favourite fruit\nthe fruit {S} like{s} best\nthe fruit {S} eat{s}",
        held_statements="{P} best loved fruit is {V}.\nThe fruit {S} buy{s} is {V}.",
        held_questions="Which fruit is {P} favourite?\nOf all fruit, what {do} {S} like best?",
    ),
    _attribute(
        "allergy",
        "nuts, eggs, wool, dust, pollen, shrimp, soy, sesame, latex, gluten, peanuts, almonds, honey, wheat, celery, "
        "mustard, feathers, grass, cats, bees, penicillin, oats, garlic, crab, lobster, perfume, ragweed, mold",
        "{S} {be} allergic to {V}.",
        "what {S} {be} allergic to",
        statements="""{S} {be} allergic to {V}.
            {S} {have} an allergy to {V}.
            {P} allergy is to {V}.
            {S} get{s} sick from {V} because of an allergy.
            {S} must stay away from {V}, an allergy.
            Because of an allergy {S} avoid{s} {V}.""",
        questions="""What {be} {S} allergic to?
            What allergy {do} {S} have?
            What must {S} stay away from?
            What {do} {S} avoid because of an allergy?
            Which allergy {do} {S} have?
            What is {P} allergy?""",
        clauses="what {S} {be} allergic to\nwhich allergy {S} {have}\nwhat {S} must stay away from",
        nouns="{P} allergy\nthe thing {S} {be} allergic to\nthe allergy {S} {have}",
        held_statements="{S} suffer{s} from an allergy to {V}.\nThe thing {S} {be} allergic to is {V}.",
        held_questions="To what {be} {S} allergic?\nWhat is the allergy {S} {have}?",
    ),
    _attribute(
        "number",
        "one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen, sixteen, "
        "seventeen, eighteen, nineteen, twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety, hundred",
        "{P} lucky number is {V}.",
        "what {P} lucky number is",
        statements="""{P} lucky number is {V}.
            The number {S} like{s} best is {V}.
            {S} believe{s} that {V} is a lucky number.
            {P} favourite number is {V}.
            {S} always bet{s} on the number {V}.
            {V} is the number that brings luck, {S} say{s}.""",
        questions="""What is {P} lucky number?
            Which number {do} {S} like best?
            What is {P} favourite number?
            Which number {do} {S} bet on?
            What number is lucky for {P} taste?
            Which number is {P} favourite?""",
        clauses="what {P} lucky number is\nwhich number {S} like{s} best\nwhat number {S} bet{s} on",
        nouns="{P} lucky number\n{P} favourite number\nthe number {S} like{s} best",
        held_statements="The number {S} always bet{s} on is {V}.\n{P} number for luck is {V}.",
        held_questions="Which number is lucky, in {P} view?\nWhat number {do} {S} like best?",
    ),
    _attribute(
        "subject",
        "history, physics, biology, algebra, geometry, chemistry, geography, music, art, literature, economics, grammar, "
        "astronomy, philosophy, latin, statistics, geology, law, medicine, botany, logic, politics, religion, drama",
        "{P} favourite subject is {V}.",
        "what {P} favourite subject is",
        statements="""{P} favourite subject is {V}.
            At school {S} like{s} the subject {V} best.
            The subject {S} love{s} is {V}.
            {S} {be} best at {V} in school.
            In class {S} enjoy{s} the subject {V}.
            {S} got the best mark in {V} at school.""",
        questions="""What is {P} favourite subject?
            Which subject {do} {S} like best at school?
            What subject {do} {S} love?
            What {be} {S} best at in school?
            Which subject {do} {S} enjoy in class?
            In which subject did {S} get the best mark?""",
        clauses="what {P} favourite subject is\nwhich subject {S} like{s} best\nwhat {S} {be} best at in school",
        nouns="{P} favourite subject\nthe subject {S} love{s}\n{P} best subject at school",
        held_statements="The school subject {S} enjoy{s} is {V}.\n{P} best subject at school is {V}.",
        held_questions="Which school subject {do} {S} love?\nWhat is the subject {S} like{s} best?",
    ),
    _attribute(
        "flower",
        "roses, tulips, lilies, daisies, orchids, violets, poppies, irises, peonies, sunflowers, daffodils, jasmine, "
        "lavender, carnations, dahlias, asters, begonias, lotus, marigolds, magnolias, lilacs, snowdrops, bluebells, crocuses",
        "{P} favourite flowers are {V}.",
        "what {P} favourite flowers are",
        statements="""{P} favourite flowers are {V}.
            The flowers {S} like{s} best are {V}.
            {S} grow{s} {V} in the garden.
            {S} love{s} to get {V} as flowers.
            Of all flowers {S} prefer{s} {V}.
            {P} garden is full of {V}.""",
        questions="""What are {P} favourite flowers?
            Which flowers {do} {S} like best?
            What flowers {do} {S} grow in the garden?
            Which flowers {do} {S} prefer?
            What flowers {do} {S} love?
            Which flowers are in {P} garden?""",
        clauses="what {P} favourite flowers are\nwhich flowers {S} like{s} best\nwhat flowers {S} grow{s}",
        nouns="{P} favourite flowers\nthe flowers {S} like{s} best\nthe flowers in {P} garden",
        held_statements="In {P} garden {S} grow{s} flowers, all of them {V}.\nThe flowers {S} prefer{s} are {V}.",
        held_questions="Of all flowers, which {do} {S} like best?\nWhich flowers {do} {S} grow?",
    ),
)

_CLAUSE = """Do you know {c}?
    Can you tell me {c}?
    Tell me {c}.
    Do you remember {c}?
    I want to know {c}.
    Remind me {c}.
    Please say {c}.
    Say {c}.
    Do you recall {c}?
    Please tell me {c}.
    I can not recall {c}.
    I am not sure {c}.
    May I ask {c}?
    Any idea {c}?
    Have I told you {c}?
    Let me know {c}.
    I need to know {c}, please.
    I wonder {c}.
    I have no idea {c}. Have you?
    It slipped my mind {c}.
    Would you tell me {c}?
    Help me: {c}?"""
LEAD_CLAUSE = _lines(_CLAUSE)
_NOUN = """What is {n}?
    Name {n}.
    Tell me {n}.
    Please name {n}.
    Do you know {n}?
    Do you remember {n}?
    What was {n}?
    I can not recall {n}.
    I need {n}, please.
    Give me {n}.
    Let me know {n}.
    Say {n} for me.
    Would you tell me {n}?
    Any idea about {n}?
    I am asking for {n}."""
LEAD_NOUN = _lines(_NOUN)
OPENERS = (
    "Well,",
    "Please,",
    "Hey,",
    "One question:",
    "Now",
    "So",
    "Listen.",
    "Let me ask you something.",
    "Hm,",
)
CLOSERS = ("Thanks.", "Please answer.", "I would like to know.", "Tell me.", "You know that, right?")
HELD_LEAD_CLAUSE = ("Could you remind me {c}?", "I forgot {c}. Do you know?", "Help me remember {c}.")
HELD_LEAD_NOUN = ("Could you tell me {n}?", "Can you name {n} for me?", "Please remind me of {n}.")

RELATIONS = (
    "sister, brother, mother, father, aunt, uncle, cousin, friend, neighbour, boss, daughter, son, grandmother, "
    "grandfather, wife, husband, niece, nephew, colleague, partner, flatmate, roommate, coach, teacher, dentist"
).split(", ")

NAMES = (
    "Anna, Tom, Maria, John, Lisa, Peter, Emma, Paul, Sara, David, Laura, Mark, Julia, Eric, Nina, Adam, Clara, Simon, "
    "Lucy, Daniel, Alice, Martin, Eva, Robert, Helen, Victor, Diana, George, Irene, Henry, Olga, Frank, Rosa, Walter, "
    "Greta, Oliver, Hannah, Jacob, Ivan, Leah, Noah, Ella, Liam, Mia, Lucas, Zoe, Ethan, Chloe, Logan, Grace, Owen, Lily, "
    "Aaron, Ruth, Caleb, Naomi, Felix, Iris, Hugo, Flora, Oscar, Ida, Bruno, Vera, Carl, Edith, Dylan, Esther, Ralph, "
    "Marta, Stefan, Elena, Boris, Katya, Pavel, Sonia, Marco, Bianca, Luigi, Carla, Pedro, Ines, Diego, Lucia, Pablo, "
    "Carmen, Javier, Pilar, Rafael, Alba, Andre, Celine, Louis, Margot, Pierre, Colette, Jean, Amelie, Klaus, Heidi, "
    "Jürgen, Ursula, Lars, Astrid, Sven, Ingrid, Nils, Freya, Bjorn, Sigrid, Aisha, Omar, Layla, Hassan, Fatima, Yusuf, "
    "Zara, Karim, Amira, Tariq, Priya, Arjun, Meera, Rohan, Anika, Vikram, Lakshmi, Sanjay, Yuki, Kenji, Sakura, Hiro, "
    "Akira, Naoko, Mei, Chen, Lin, Wei, Jun, Kwame, Ama, Kofi, Abena, Chidi, Ngozi, Jane, Bill, Kate, Jack, Molly, Sam, "
    "Ben, Amy, Joe, Sue, Max, Ron, Pat, Ray, Meg, Ted, Joy, Roy, Fay, Ian, Gus, Lou, Abby, Barry, Cindy, Derek, Elsie, "
    "Fred, Gina, Harry, Ivy, Jill, Kevin, Linda, Mike, Nancy, Oliver, Penny, Quinn, Rachel, Steve, Tina, Ulric, Vicky, "
    "Wendy, Xavier, Yvonne, Zack, Agnes, Basil, Cora, Dora, Elmer, Faye, Gordon, Hilda, Isaac, Judith, Kurt, Lorna, Miles, "
    "Nadia, Otto, Petra, Roland, Selma, Tobias, Uma, Vernon, Wanda, Yannick, Zelda, Anton, Berta, Conrad, Dagmar, Emil"
).split(", ")
HELD_NAMES = (
    "Nora, Leon, Mina, Jonas, Tessa, Rufus, Elsa, Dario, Marit, Casper, Thea, Ivo, Lena, Arno, Signe, Milan, Odile, "
    "Bastian, Runa, Fabio, Alma, Cyrus, Linnea, Matteo, Saskia, Enzo, Wilma, Tarek, Jolanda, Piet"
).split(", ")
NICKNAMES = (
    "Captain, Boss, Chief, Doctor, Professor, Champ, Buddy, Sunshine, Ace, Skipper, Sherlock, Rocket, Maestro, Duke, Star, "
    "Commander, Coach, Wizard, Hero, Admiral, Pal, Friend, Genius, Sparky, Tiger, Eagle, Ninja, Legend, Queen, King, Sailor"
).split(", ")
HELD_NICKNAMES = ("Majesty", "Pirate", "Colonel", "Sensei", "Partner", "Master", "Comrade", "Explorer")
