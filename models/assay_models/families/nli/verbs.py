"""Finite verbs of English, enough to distinguish a sentence from a title."""

import re

_FORMS = """
am is are was were be been has have had do does did can could will would shall should may might
must isn't aren't wasn't weren't hasn't haven't hadn't don't doesn't didn't can't cannot couldn't
won't wouldn't shouldn't mustn't it's that's there's he's she's i'm you're we're they're i've
we've they've arose ate beat became began bent bit bled blew bore bought broke brought built burnt
came caught chose cost crept cut dealt drank drew drove fed fell felt flew forbade forgot fought
found froze gave got grew heard held hid hit hung hurt kept knew laid lasted lay led learnt left
lent let lit lost made meant met outlived paid put ran rang read rebuilt rode rose said sang sank
sat saw sent set shook shot shut slept slid sold sought spent split spoke spread sprang stole
stood struck stuck swam swept swore taught thought threw told took tore underwent understood
upheld went woke won wore wrote
"""

_STEMS = """
accept account achieve act add affect agree aim allow amount appear apply approve argue arrive ask
assume attack attend avoid base bear beat become begin belong block boil border break bring build
buy call carry catch cause change charge choose claim close collect come comprise concern confirm
connect consist contain continue contradict contribute control convert cost cover create cross
cure cut date decide decline decrease deliver demand deny depart depend describe deserve destroy
determine develop die differ disappear discover divide drink drive drop earn eat employ enable end
enter equal establish exceed exist expand expect explain express extend face fail fall feed feel
fight fill find finish fit float flow fly follow forbid force form found function gain generate
get give go govern grow handle happen hate help hold host hunt identify imply improve include
increase indicate influence inhabit inhibit introduce invent involve join keep kill know lack last
lead learn leave let lie like limit link live look lose love maintain make manage mark matter mean
measure meet melt move need number obtain occupy occur offer open operate order organise organize
own pass pay perform permit play possess prefer prevent produce promise promote prove provide
publish pull push put raise range reach read receive recommend record reduce refer reflect reject
relate release rely remain remove replace report represent require resemble resist result return
reveal rise run sail save say see seem sell send separate serve set share shine show sign sink sit
sleep sound speak specify spend stand start stay stop store strengthen study succeed suffer
suggest supply support surround survive take teach tell tend think throw tie touch transport
travel treat try turn use vary visit vote wait want watch wear weigh win work write yield
"""

_FINITE = frozenset(_FORMS.split())
_BASES = frozenset(_STEMS.split())
_NO_PAST_FORMS = """
bed bleed bred breed deed exceed feed freed greed hundred indeed kindred naked need proceed red
sacred seed shed speed steed succeed weed wicked
"""
_NO_PAST = frozenset(_NO_PAST_FORMS.split())
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")


def has_finite_verb(text: str) -> bool:
    """Return whether a word behind the first is a finite verb, as far as its form shows.

    Forms in -s count for common verbs only, and not as the last word: most such words are plurals.
    Forms in -ed count for all verbs.
    """
    words = [word.replace("\u2019", "'") for word in _WORD.findall(text.lower())]
    return any(map(_is_finite, words[1:])) or any(map(_is_third_person, words[1:-1]))


def _is_finite(word: str) -> bool:
    is_past = word.endswith("ed") and len(word) > len("red") and word not in _NO_PAST
    return is_past or word in _FINITE


def _is_third_person(word: str) -> bool:
    stems = {word[:-1], word.removesuffix("es"), f"{word.removesuffix('ies')}y"}
    return word.endswith("s") and not stems.isdisjoint(_BASES)
