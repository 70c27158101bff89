"""What stands on a label, and what is asked about it: words, prices, dates, serial numbers and meter readings.

A label is a list of lines; a line is its text and what it means. Everything follows from the random generator that is
handed in. Words come in two halves by their checksum, so that those of the test are never trained on.
"""
import dataclasses
import datetime
import re
import zlib

ASK = {
    "text": ["What does the label say?", "What does the label say?", "Read the label.", "What is written here?"],
    "price": ["What is the price?", "What is the price?", "How much does it cost?"],
    "date": ["When does it expire?", "When does it expire?", "What is the expiry date?"],
    "serial": ["What is the serial number?", "What is the serial number?", "Read the serial number."],
    "meter": ["What does the meter read?", "What does the meter read?", "What is the reading?"],
    "expired": ["Is it expired on {date}?"],
}
ABSENT = "none"
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
# O and I stand in no serial number, as on real ones: they can't be told from 0 and 1 in many fonts.
SERIAL_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 2 + "abcdefghijklmnopqrstuvwxyz" + "0123456789" * 4 + "-./:,€$£"
UNITS = ["kWh", "m3", "kW", "L", "km", "bar", "C", "kg"]


@dataclasses.dataclass
class Line:
    """One printed line. `value` is the part that is asked for: a serial number without its "SN"."""

    text: str
    role: str = ""
    value: str = ""
    date: datetime.date | None = None


class Words:
    """English words of 3 to 12 letters; the fifth of them with a checksum of 0 modulo 5 is for tests."""

    def __init__(self, path, held_out):
        lines = path.read_text(encoding="utf-8").split()
        words = sorted({word for word in lines if re.fullmatch("[a-z]{3,12}", word)})
        self.words = [word for word in words if (zlib.crc32(word.encode()) % 5 == 0) == held_out]

    def draw(self, rng, longest=12):
        while len(word := rng.choice(self.words)) > longest:
            pass
        return rng.choice([str.upper, str.upper, str.upper, str.title, str.title, str.lower])(word)


def draw_price(rng, currencies):
    amount = rng.choice([rng.uniform(0.05, 10), rng.uniform(1, 100), rng.uniform(10, 1000)])
    cents = rng.choice([99, 95, 50, 0, *[rng.randrange(100)] * 4])
    number = f"{int(amount)}.{cents:02d}"
    sign = rng.choice(currencies)
    form = rng.randrange(6)
    if form == 0:
        number = number.replace(".", ",")
        return f"{number} €" if "€" in currencies else number
    if form == 1:
        return number
    return f"{sign}{number}" if form < 5 else f"{number} {rng.choice(['EUR', 'USD', 'GBP'])}"


def draw_date(rng):
    return datetime.date(2020, 1, 1) + datetime.timedelta(days=rng.randrange(12 * 365))


def write_date(rng, date):
    form = rng.randrange(4)
    if form <= 1:
        return date.isoformat()
    return f"{date:%d.%m.%Y}" if form == 2 else f"{date.day:02d} {MONTHS[date.month - 1]} {date.year}"


def draw_serial(rng):
    def draw(letters, count):
        return "".join(rng.choice(letters) for _ in range(count))

    digits = "0123456789"
    form = rng.randrange(5)
    if form == 0:
        return draw(SERIAL_LETTERS + digits, rng.randint(5, 9))
    if form == 1:
        return draw(SERIAL_LETTERS, 2) + "-" + draw(digits, rng.randint(4, 6))
    if form == 2:
        return draw(SERIAL_LETTERS, 1) + draw(digits, 4) + "-" + draw(digits, 3)
    return draw(digits, rng.randint(6, 9)) if form == 3 else draw(SERIAL_LETTERS, 3) + draw(digits, rng.randint(3, 6))


def serial_lines(rng):
    value = draw_serial(rng)
    form = rng.randrange(6)
    if form == 5:
        return [Line("SERIAL NO"), Line(value, "serial", value)]
    return [Line(f"{['SN', 'S/N', 'SN:', 'NO.', 'S/N:'][form]} {value}", "serial", value)]


def date_lines(rng):
    date = draw_date(rng)
    value = write_date(rng, date)
    form = rng.randrange(8)
    if form < 4:
        return [Line(["BEST BEFORE", "USE BY", "EXP", "Best before"][form]), Line(value, "date", value, date)]
    prefix = ["EXP", "EXP:", "BB", ""][form - 4]
    if len(value) + len(prefix) > 14:
        prefix = ""
    return [Line(f"{prefix} {value}".strip(), "date", value, date)]


def meter_lines(rng):
    value = "".join(rng.choice("0123456789") for _ in range(rng.randint(4, 7)))
    if rng.random() < 0.3:
        value = f"{value[:-1]}.{value[-1]}"
    lines = [Line(value, "meter", value)]
    if rng.random() < 0.6:
        lines.insert(rng.randrange(2), Line(rng.choice(UNITS)))
    return lines


def draw_label(rng, words, currencies):
    """One to four lines of a kind of label that people meet."""
    def word(longest=12):
        return [Line(words.draw(rng, longest), "word")]

    def price():
        value = draw_price(rng, currencies)
        return [Line(value, "price", value)]

    kind = rng.randrange(12)
    if kind <= 1:
        return word() + (word() if rng.random() < 0.5 else [])
    if kind <= 3:
        return word() + (word(9) if rng.random() < 0.3 else []) + price()
    if kind <= 5:
        return word() + date_lines(rng)
    if kind == 6:
        return word() + price() + date_lines(rng)
    if kind <= 8:
        return (word() if rng.random() < 0.7 else []) + serial_lines(rng)
    if kind <= 10:
        return meter_lines(rng)
    return rng.choice([price, lambda: date_lines(rng), lambda: serial_lines(rng)])()


def draw_letters(rng, lines, shortest, longest):
    """Lines of unrelated characters, from which a model learns what each looks like."""
    return [Line("".join(rng.choice(CHARACTERS) for _ in range(rng.randint(shortest, longest)))) for _ in range(lines)]


def draw_short(rng, words, currencies):
    """One or two lines of at most eight characters: the step between letters and labels."""
    def line():
        draw = rng.randrange(4)
        if draw == 0:
            return Line(words.draw(rng, 8))
        if draw == 1:
            return Line("".join(rng.choice("0123456789") for _ in range(rng.randint(3, 8))))
        return Line(draw_price(rng, currencies)) if draw == 2 else draw_letters(rng, 1, 3, 7)[0]

    return [line() for _ in range(rng.randint(1, 2))]


def ask_expired(rng, expiry):
    """A day before or after the printed one, as often the one as the other; on that day itself it isn't expired."""
    days = rng.choice([rng.randint(1, 9), rng.randint(10, 60), rng.randint(61, 1500)])
    expired = rng.random() < 0.5
    day = expiry + datetime.timedelta(days=days if expired else -days)
    return "expired", ASK["expired"][0].format(date=day.isoformat()), "yes" if expired else "no"


def questions(rng, lines):
    """[(kind, question, answer)] of a label: its whole text, and what its lines mean."""
    asked = [("text", rng.choice(ASK["text"]), "\n".join(line.text for line in lines))]
    for line in lines:
        if line.role in ASK:
            asked.append((line.role, rng.choice(ASK[line.role]), line.value))
        if line.date:
            asked.append(ask_expired(rng, line.date))
    roles = {line.role for line in lines}
    if roles - {""} and rng.random() < 0.15:
        missing = rng.choice([role for role in ("price", "date", "serial", "meter") if role not in roles])
        asked.append(("absent", rng.choice(ASK[missing]), ABSENT))
    return asked
