"""From a day's turns to samples: what was told as questions and answers, wishes as changed answers,
imported talks as they are, and the base's own answers to rehearse."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources

from mlx_plastic.evals import Speaker
from mlx_plastic.memory import Exchange, Turn
from mlx_plastic.memory.router import Decision
from mlx_plastic.samples import Message, Part, Sample, parse_messages, part_of, split_point


@dataclass(frozen=True)
class LessonConfig:
    questions: int = 4  # asked for at once, about one note
    rounds: int = 5  # times each note is asked about
    temperature: float = 1.0  # of the wordings; the answers are the likeliest ones
    max_tokens: int = 192  # of what the model writes
    longest_note: int = 600  # characters; a longer turn is no note
    wish_repeats: int = 5  # times a wish's samples are learned for once of the others
    strangers: int = 4  # wordings of each lesson that are also asked about a stranger
    mixed_up: int = 1  # and about somebody else of tonight, where that was not told
    older: int = 4  # wordings of each earlier lesson that are rehearsed
    general: int = 144  # general prompts that are rehearsed
    seed: int = 0


GENERAL_TOKENS = 96  # of an answer that is rehearsed
MOST_NOTES = 8  # put before one question

GREETINGS = (
    "Hello!", "Hi!", "Good morning!", "Hi there!", "Good evening!", "Hey!", "Hello there!", "Good afternoon!",
    "Hello, how are you?", "Hi, it is me.", "Hello, nice to see you!", "Good morning, how are you?",
    "Hi, I am back.", "Hey, good to see you!", "Hello, are you there?", "Good day to you!", "Greetings!",
)  # fmt: skip
STRANGERS = """
    Alan Anouk Aldo Birte Bruno Cosima Corvin Delphine Damir Esra Egon Fiona Falk Flavia Gitta Gunnar
    Hanne Hagen Ilse Idris Jorin Jolanda Kaja Kenan Luke Lothar Livia Malin Milo Neil Nele Nuri Orla
    Otis Paula Pascal Quinn Ragna Rainer Selma Sven Tilda Tarek Una Urs Vesna Valentin Wilma Wout Xenia
    Yara Yusuf Zita Zeno
""".split()

WISH = re.compile(
    r"\b(call me|from now on|address me|greet me|always (answer|say|reply|end|begin|start|use)|"
    r"(answer|reply|speak|write) (always|to me) )",
    re.IGNORECASE,
)
PAIR = re.compile(r"^\s*Q:\s*(?P<question>.+?)\s*$\n\s*A:\s*(?P<answer>.+?)\s*$", re.MULTILINE)
WORD = re.compile(r"[\w']+")
MY = re.compile(r"\bmy\b", re.IGNORECASE)
# words that carry no information of their own: an answer made of these alone teaches nothing
COMMON = frozenset(
    """a an the i you he she it we they me my your his her its our their am is are was were be been do does
    did have has had in on at to of for from with by as and or not no yes that this these those there here
    what which who where when how why know told tell""".split()
)
QUESTIONS = (
    "Write {count} questions that this note answers, each with its answer, on lines with Q: and A:\n{note}"
)


def question_prompt(note: str, count: int) -> str:
    """What a model is asked so that it turns a note into questions and answers on Q: and A: lines."""
    return QUESTIONS.format(count=count, note=note)


def notes_message(notes: Iterable[str]) -> Message:
    """What is remembered, quoted to the model as data before a question."""
    return Message(
        "system", "Notes from earlier talks:\n" + "\n".join(f"- {' '.join(n.split())}" for n in notes)
    )


def new_turns(exchanges: Sequence[Exchange]) -> list[Turn]:
    """What the person said that no passed night has learned from."""
    return [t for e in exchanges for t in e.turns if t.id in e.new and t.role == "user"]


def notes_of(
    exchanges: Sequence[Exchange], *, longest: int, routed: Mapping[str, Decision] | None = None
) -> list[Turn]:
    """New user turns that tell something: no questions, no commands, not longer than `longest` characters.

    routed: where each goes; those that are not to be learned are left out, and of the others stays what the
    person said in their own words. None: all are to be learned, as they are.
    """
    turns = new_turns(exchanges)
    if routed is not None:
        turns = [replace(t, content=routed[t.id].own) for t in turns if routed[t.id].learned]
    return [t for t in turns if len(t.content) <= longest and not t.content.rstrip().endswith("?")]


def chats_of(exchanges: Sequence[Exchange], *, routed: Mapping[str, Decision] | None = None) -> list[Sample]:
    """Imported talks with new turns, up to their last answer; what this model said is never a lesson.

    An import is meant to be learned from as it is. Only the person's word keeps a talk out: if they have
    routed one of its turns elsewhere.
    """
    kept_out = {d.turn for d in (routed or {}).values() if d.by == "person" and not d.learned}
    samples = []
    for exchange in exchanges:
        turns = list(exchange.turns)
        while turns and turns[-1].role != "assistant":
            turns.pop()
        if exchange.origin == "import" and turns and exchange.new and kept_out.isdisjoint(exchange.new):
            messages = tuple(t.message for t in turns)
            samples.append(Sample(messages, exchange.conversation, tuple(t.id for t in turns), "chat"))
    return samples


def questions_about(base: Speaker, notes: Sequence[Turn], config: LessonConfig) -> list[Sample]:
    """Questions and answers that the model itself makes of each note, each checked against the note.

    The wording is sampled; the answer is the one that the model gives when the note has just been said. It
    must say something of the note that the question does not already say, name nothing else, and differ from
    what the bare base answers: where the note changes nothing, there is nothing to learn.
    """
    asked = _written(base, notes, config)
    bare = base.answers([(Message("user", question),) for _, question in asked], max_tokens=config.max_tokens)
    replies = base.answers([(Message("user", t.content),) for t in notes], max_tokens=config.max_tokens)
    said = {
        t.id: (Message("user", t.content), Message("assistant", reply))
        for t, reply in zip(notes, replies, strict=True)
    }
    contexts = [(*said[turn.id], Message("user", question)) for turn, question in asked]
    answers = base.answers(contexts, max_tokens=config.max_tokens)
    samples = []
    for (turn, question), before, answer in zip(asked, bare, answers, strict=True):
        if answer != before and is_supported(question, answer, turn.content):
            messages = (Message("user", question), Message("assistant", answer))
            samples.append(Sample(messages, f"{turn.id} {normal(question)}", (turn.id,), "qa"))
    return samples


def _written(base: Speaker, notes: Sequence[Turn], config: LessonConfig) -> list[tuple[Turn, str]]:
    """(note, question) pairs whose written answer is supported by the note; each wording once."""
    found: dict[tuple[str, str], tuple[Turn, str]] = {}
    asked = [turn for _ in range(config.rounds) for turn in notes]
    prompts = [(Message("user", question_prompt(t.content, config.questions)),) for t in asked]
    texts = base.answers(
        prompts, max_tokens=config.max_tokens, temperature=config.temperature, seed=config.seed
    )
    for turn, text in zip(asked, texts, strict=True):
        for match in PAIR.finditer(text):
            question = match["question"]
            if is_supported(question, match["answer"], turn.content):
                found.setdefault((turn.id, normal(question)), (turn, question))
    return list(found.values())


def words(text: str) -> set[str]:
    return {w.lower().removesuffix("'s") for w in WORD.findall(text)}


def normal(text: str) -> str:
    return " ".join(w.lower() for w in WORD.findall(text))


def is_supported(question: str, answer: str, note: str) -> bool:
    """Whether the answer tells something of the note that the question does not, and names nothing foreign.

    Names and numbers of the question and the answer must all stand in the note: a question about
    somebody else, or an answer with an invented name, is refused.
    """
    told = words(note)
    informative = (words(answer) & told) - words(question) - COMMON
    return bool(informative) and names(question) <= told and names(answer) <= told


def names(text: str) -> set[str]:
    """Lower-cased words with a capital inside a sentence, and numbers."""
    found = set()
    for sentence in re.split(r"(?<=[.!?:])\s+", text):
        for place, word in enumerate(WORD.findall(sentence)):
            if word.isdigit() or (place and word[0].isupper() and word not in ("I", "I'm")):
                found.add(word.lower().removesuffix("'s"))
    return found


def answers_under_wishes(base: Speaker, wishes: Sequence[Turn], config: LessonConfig) -> list[Sample]:
    """Context distillation: how the base answers with a wish before it, where that differs from without.

    Source: Askell et al. 2021, "A General Language Assistant as a Laboratory for Alignment".
    """
    probes = [Message("user", g) for g in GREETINGS]
    plain = base.answers([(p,) for p in probes], max_tokens=config.max_tokens)
    samples = []
    for turn in wishes:
        note = notes_message([turn.content])
        wished = base.answers([(note, p) for p in probes], max_tokens=config.max_tokens)
        for probe, before, after in zip(probes, plain, wished, strict=True):
            if after and after != before:
                messages = (probe, Message("assistant", after))
                samples.append(Sample(messages, f"{turn.id} {normal(probe.content)}", (turn.id,), "wish"))
    return samples


def is_wish(turn: Turn) -> bool:
    return WISH.search(turn.content) is not None


def lessons_of(
    base: Speaker,
    exchanges: Sequence[Exchange],
    config: LessonConfig,
    *,
    routed: Mapping[str, Decision] | None = None,
) -> list[Sample]:
    """Everything new in `exchanges` as samples that carry their turns. The base must be bare."""
    notes = notes_of(exchanges, longest=config.longest_note, routed=routed)
    facts = [t for t in notes if not is_wish(t)]
    wishes = [t for t in notes if is_wish(t)]
    found = questions_about(base, facts, config) if facts else []
    return (
        found
        + (answers_under_wishes(base, wishes, config) if wishes else [])
        + chats_of(exchanges, routed=routed)
    )


def general_answers(base: Speaker, config: LessonConfig, *, night: int = 0) -> list[Sample]:
    """The bare base's own answers to general prompts: rehearsed, they keep what it knew.

    They are sampled at temperature 1: to learn what the base itself would say is to stay near it, while its
    likeliest answers alone would make it surer than it was. night: its number; each draws others.
    """
    text = resources.files("mlx_plastic.sleep").joinpath("general_prompts.jsonl").read_text("utf-8")
    lines, draw = text.splitlines(), random.Random(config.seed + night)
    drawn = draw.sample(lines, min(config.general, len(lines)))
    prompts = [parse_messages(json.loads(line)) for line in drawn]
    answers = base.answers(prompts, max_tokens=GENERAL_TOKENS, temperature=1.0, seed=config.seed + night)
    return [
        Sample((*prompt, Message("assistant", answer)), f"general {i}", (), "rehearsal")
        for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        if answer
    ]


def about_others(
    base: Speaker,
    lessons: Sequence[Sample],
    notes: Sequence[Turn],
    config: LessonConfig,
    *,
    earlier: Sequence[Sample] = (),
) -> list[Sample]:
    """Tonight's questions asked about somebody else, with what the bare base says to them.

    A pack that only learns where Nora lives tells the same of everybody. Of each lesson up to `strangers`
    wordings are asked about a stranger, and up to `mixed_up` about somebody else of tonight, the person
    included ("my job", "Leon's job"). What tonight's notes or the `earlier` lessons answer is left out.
    """
    owners = {id(s): owner for s in lessons if s.kind == "qa" and (owner := _owner(s)) is not None}
    told = sorted(set(owners.values()))
    known = {name for s in (*lessons, *earlier) for m in s.messages for name in names(m.content)}
    strange = [name for name in STRANGERS if name.lower() not in known]
    asked: list[tuple[Sample, str, str]] = []  # of which lesson, about whom, in which words
    count = Counter[tuple[tuple[str, ...], bool]]()
    for sample in lessons:
        for others, most in ((strange, config.strangers), (told, config.mixed_up)):
            key = (sample.turns, others is told)
            owner = owners.get(id(sample))
            somebody = [other for other in others if other != owner]
            if owner is None or not somebody or count[key] >= most:
                continue
            if count[key] == 0:  # the first has the owner's initial: likest is most easily mixed up
                somebody = [other for other in somebody if other[:1] == owner[:1]] or somebody
            other = somebody[len(asked) % len(somebody)]
            if (question := _about(sample.messages[0].content, owner, other)) is not None:
                count[key] += 1
                asked.append((sample, other, question))
    plain = base.answers([(Message("user", q),) for *_, q in asked], max_tokens=config.max_tokens)
    remembered = [turn.content for turn in notes]
    remembered += {s.turns: s.messages[-1].content for s in earlier if s.kind == "qa"}.values()
    everybody = {*told, *(owner for s in earlier if (owner := _owner(s)))}
    contexts = [
        (notes_message(_notes_about(o, q, remembered, everybody)), Message("user", q))
        for _, o, q in asked
        if o in told
    ]
    informed = iter(base.answers(contexts, max_tokens=config.max_tokens))
    found = []
    for (sample, other, question), answer in zip(asked, plain, strict=True):
        unknown = other not in told or next(informed) == answer
        if answer and unknown:
            messages = (Message("user", question), Message("assistant", answer))
            found.append(Sample(messages, f"other {normal(question)}", sample.turns, "rehearsal"))
    return found


def _notes_about(owner: str, question: str, notes: Sequence[str], everybody: set[str]) -> list[str]:
    """Of the notes about `owner` ("": those that name nobody) the few that share most with the question."""
    people = {name.lower() for name in everybody if name}
    about = [n for n in notes if (owner.lower() in words(n) if owner else not people & words(n))]
    asked = words(question) - COMMON
    return sorted(about, key=lambda note: -len(words(note) & asked))[:MOST_NOTES]


def _owner(lesson: Sample) -> str | None:
    """Whom the lesson's question is about: a name, "" for who speaks, None if that is not clear."""
    question = lesson.messages[0].content
    named = names(question)
    if not named:
        return "" if MY.search(question) else None
    spelled = (word.removesuffix("'s") for word in WORD.findall(question))
    return next(word for word in spelled if word.lower() in named) if len(named) == 1 else None


def _about(question: str, owner: str, other: str) -> str | None:
    """The question turned from `owner` to `other`, each a name or "" for who speaks; None if it cannot be."""
    if not owner:
        return MY.sub(f"{other}'s", question)
    if other:
        return re.sub(rf"\b{re.escape(owner)}\b", other, question, flags=re.IGNORECASE)
    found = re.sub(rf"\b{re.escape(owner)}'s\b", "my", question, flags=re.IGNORECASE)
    return None if owner.lower() in words(found) or found == question else found


def without_conflicts(lessons: Sequence[Sample], rehearsal: Sequence[Sample]) -> list[Sample]:
    """What can be rehearsed beside tonight's lessons: each question once, and none that a lesson answers.

    So a new wish replaces the old one, and a wish how to be greeted is not undone by the base's greeting.
    """
    taken = {normal(sample.messages[-2].content) for sample in lessons}
    kept = []
    for sample in rehearsal:
        question = normal(sample.messages[-2].content)
        if question not in taken or len(sample.messages) > 2:  # behind a context it is another question
            kept.append(sample)
            taken |= {question} if sample.kind != "rehearsal" else set()
    return kept


def older_lessons(earlier: Sequence[Sample], per_lesson: int, *, seed: int) -> list[Sample]:
    """Up to `per_lesson` samples of each kind of each turn learned before, drawn anew every night."""
    by_lesson: dict[tuple[tuple[str, ...], str], list[Sample]] = {}
    for sample in earlier:
        by_lesson.setdefault((sample.turns, sample.kind), []).append(sample)
    draw = random.Random(seed)
    return [s for group in by_lesson.values() for s in draw.sample(group, min(per_lesson, len(group)))]


def split(samples: Sequence[Sample]) -> dict[Part, list[Sample]]:
    """Train, valid and test by the hash of each key; a lesson keeps at least one sample to learn from.

    Imported talks are held out whole. Where no hash falls to test, the sample nearest to it goes there,
    if its lesson has another; with no such sample, test is empty.
    """
    parts: dict[Part, list[Sample]] = {"train": [], "valid": [], "test": []}
    taught: Counter[tuple[str, ...]] = Counter()
    for sample in sorted(samples, key=lambda s: (split_point(s.key), s.key), reverse=True):
        first = sample.kind != "chat" and not taught[sample.turns]
        part: Part = "train" if first else part_of(sample.key)
        taught[sample.turns] += part == "train"
        parts[part].append(sample)
    if not parts["test"]:
        spare = [s for s in parts["train"] if s.kind == "chat" or taught[s.turns] > 1]
        if parts["valid"]:
            parts["test"].append(parts["valid"].pop())
        elif spare and len(parts["train"]) > 1:
            parts["train"].remove(spare[-1])
            parts["test"].append(spare[-1])
    return parts
