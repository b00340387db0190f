"""The words for numbers in English, French, German, Spanish, Italian, Portuguese, Dutch and Russian.

Accents are left out, as `numbers.fold` does; й is written и for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

# Words that may stand inside a number: one hundred *and* one, vingt *et* un, treinta *y* uno, vinte *e* um.
CONNECTORS = frozenset(("and", "et", "y", "e", "und", "en", "i"))

# Words in the order of their values, from 1 on; alternatives are separated by a slash.
GERMAN = (
    "eins/ein zwei drei vier funf sechs sieben acht neun zehn elf zwolf dreizehn vierzehn funfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
)
DUTCH = (
    "een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien zeventien "
    "achttien negentien"
)
DUTCH_ORDINALS = (
    "eerste tweede derde vierde vijfde zesde zevende achtste negende tiende elfde twaalfde dertiende veertiende "
    "vijftiende zestiende zeventiende achttiende negentiende"
)
ITALIAN = (
    "uno/una due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici "
    "diciassette diciotto diciannove venti ventuno ventidue ventitre ventiquattro venticinque ventisei ventisette "
    "ventotto ventinove"
)
FROM_ONE = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen",
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth",
    "un/une deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize",
    "premier/premiere/unieme second/seconde/deuxieme troisieme quatrieme cinquieme sixieme septieme huitieme neuvieme "
    "dixieme onzieme douzieme treizieme quatorzieme quinzieme seizieme",
    "uno/una/un dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis diecisiete "
    "dieciocho diecinueve veinte veintiuno veintidos veintitres veinticuatro veinticinco veintiseis veintisiete "
    "veintiocho veintinueve",
    "primero/primera/primer segundo/segunda tercero/tercera/tercer cuarto/cuarta quinto/quinta sexto/sexta "
    "septimo/septima octavo/octava noveno/novena decimo/decima undecimo/undecima duodecimo/duodecima "
    "decimotercero/decimotercera decimocuarto/decimocuarta decimoquinto/decimoquinta decimosexto/decimosexta "
    "decimoseptimo/decimoseptima decimoctavo/decimoctava decimonoveno/decimonovena",
    ITALIAN,
    "primo/prima secondo/seconda terzo/terza quarto/quarta quinto/quinta sesto/sesta settimo/settima ottavo/ottava "
    "nono/nona decimo/decima undicesimo/undicesima dodicesimo/dodicesima tredicesimo/tredicesima "
    "quattordicesimo/quattordicesima quindicesimo/quindicesima sedicesimo/sedicesima diciassettesimo/diciassettesima "
    "diciottesimo/diciottesima diciannovesimo/diciannovesima ventesimo/ventesima ventunesimo/ventunesima "
    "ventiduesimo/ventiduesima ventitreesimo ventiquattresimo venticinquesimo ventiseiesimo ventisettesimo "
    "ventottesimo ventinovesimo",
    "um/uma dois/duas tres quatro cinco seis sete oito nove dez onze doze treze quatorze/catorze quinze "
    "dezesseis/dezasseis dezessete/dezassete dezoito dezenove/dezanove",
    "primeiro/primeira segundo/segunda terceiro/terceira quarto/quarta quinto/quinta sexto/sexta setimo/setima "
    "oitavo/oitava nono/nona decimo/decima",
    GERMAN,
    DUTCH,
    DUTCH_ORDINALS,
    "один/одна два/две три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать "
    "четырнадцать пятнадцать шестнадцать семнадцать восемнадцать девятнадцать",
)
# Tens, from 20 on.
TENS = (
    "twenty thirty forty fifty sixty seventy eighty ninety",
    "twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth",
    "vingt/vingts trente quarante cinquante soixante septante octante nonante",
    "vingtieme trentieme quarantieme cinquantieme soixantieme",
    "veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa",
    "vigesimo/vigesima trigesimo/trigesima cuadragesimo/cuadragesima quincuagesimo/quincuagesima sexagesimo "
    "septuagesimo octogesimo nonagesimo",
    "venti trenta quaranta cinquanta sessanta settanta ottanta novanta",
    "ventesimo trentesimo/trentesima quarantesimo/quarantesima cinquantesimo/cinquantesima sessantesimo settantesimo "
    "ottantesimo novantesimo",
    "vinte trinta quarenta cinquenta sessenta setenta oitenta noventa",
    "vigesimo trigesimo quadragesimo/quadragesima quinquagesimo/quinquagesima",
    "двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят девяносто",
)
GERMAN_TENS = "zwanzig dreissig/dreißig vierzig funfzig sechzig siebzig achtzig neunzig"
ITALIAN_TENS = "trenta quaranta cinquanta sessanta settanta ottanta novanta"
DUTCH_TENS = "twintig dertig veertig vijftig zestig zeventig tachtig negentig"
# Stems that take adjective endings.
GERMAN_STEMS = (
    "erst zweit dritt viert funft sechst siebt/siebent acht neunt zehnt elft zwolft dreizehnt vierzehnt funfzehnt "
    "sechzehnt siebzehnt achtzehnt neunzehnt"
)
GERMAN_ENDINGS = ("e", "er", "es", "en")
RUSSIAN_STEMS = (
    "перв втор трет четверт пят шест седьм восьм девят десят одиннадцат двенадцат тринадцат четырнадцат пятнадцат "
    "шестнадцат семнадцат восемнадцат девятнадцат"
)
RUSSIAN_TEN_STEMS = "двадцат тридцат сороков пятидесят шестидесят семидесят восьмидесят девяност"
RUSSIAN_ENDINGS = ("ыи", "ои", "ая", "ое", "ии", "ья", "ье")
POWERS = {
    "hundred": 100, "hundredth": 100, "cent": 100, "cents": 100, "centieme": 100, "hundert": 100, "cien": 100,
    "cem": 100, "ciento": 100, "centesimo": 100, "cento": 100, "honderd": 100, "сто": 100, "thousand": 1000,
    "thousandth": 1000, "mille": 1000, "mil": 1000, "tausend": 1000, "duizend": 1000,
}  # fmt: skip


def _values(words: str, *, start: int = 1, step: int = 1) -> Iterable[tuple[str, int]]:
    for position, alternatives in enumerate(words.split()):
        for word in alternatives.split("/"):
            yield word, start + position * step


def _after(hundreds: Iterable[str], below: Iterable[tuple[str, int]]) -> Iterable[tuple[str, int]]:
    """`below`, and the same written together with a word for hundred: `hundertdreiundzwanzig`."""
    for word, value in below:
        yield word, value
        yield from ((hundred + word, 100 + value) for hundred in hundreds)


def _german() -> Iterable[tuple[str, int]]:
    units = [*_values("ein zwei drei vier funf sechs sieben acht neun")]
    yield from _values(GERMAN)
    for stem, value in _values(GERMAN_STEMS):
        yield from ((stem + ending, value) for ending in GERMAN_ENDINGS)
    for ten, value in _values(GERMAN_TENS, start=20, step=10):
        for word, its in ((ten, value), *((f"{unit}und{ten}", value + plus) for unit, plus in units)):
            yield word, its
            yield from ((f"{word}st{ending}", its) for ending in GERMAN_ENDINGS)


def _dutch() -> Iterable[tuple[str, int]]:
    units = [*_values("een twee drie vier vijf zes zeven acht negen")]
    yield from (*_values(DUTCH), *_values(DUTCH_ORDINALS))
    for ten, value in _values(DUTCH_TENS, start=20, step=10):
        for word, its in ((ten, value), *((f"{unit}en{ten}", value + plus) for unit, plus in units)):
            yield from ((word, its), (f"{word}ste", its))


def _italian() -> Iterable[tuple[str, int]]:
    yield from _values(ITALIAN)
    for ten, value in _values(ITALIAN_TENS, start=30, step=10):
        yield ten, value
        for unit, plus in _values("uno due tre quattro cinque sei sette otto nove"):
            word = (ten[:-1] if unit in ("uno", "otto") else ten) + unit  # trentuno, trentotto
            stem = word if unit in ("tre", "sei") else word[:-1]  # trentatreesimo, trentunesimo
            yield from ((word, value + plus), (f"{stem}esimo", value + plus), (f"{stem}esima", value + plus))


def _russian() -> Iterable[tuple[str, int]]:
    for stems, start, step in ((RUSSIAN_STEMS, 1, 1), (RUSSIAN_TEN_STEMS, 20, 10), ("сот", 100, 1)):
        for stem, value in _values(stems, start=start, step=step):
            yield from ((stem + ending, value) for ending in RUSSIAN_ENDINGS)


@cache
def number_words() -> dict[str, int]:
    """Word -> value; compounds that are written apart are put together by `numbers.combine`."""
    words: dict[str, int] = dict(POWERS)
    for table in FROM_ONE:
        words |= dict(_values(table))
    for table in TENS:
        words |= dict(_values(table, start=20, step=10))
    words |= dict(_after(("hundert", "einhundert", "hundertund"), _german()))
    words |= dict(_after(("honderd", "honderden"), _dutch()))
    return words | dict(_after(("cento",), _italian())) | dict(_russian())
