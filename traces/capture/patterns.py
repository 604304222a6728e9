"""What keys, e-mail addresses, phone numbers and card numbers look like in a text.

Most texts hold none, and a search for all of them costs more than all else that is done to a span. So a pattern has a
clue, which is seen at a glance, and hints: substrings without which it cannot match. Both hold too for a text as it
stands in JSON.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

Clue = Callable[[str], bool]
"""A glance at a text; False is certain."""


def has_at(text: str) -> bool:
    return "@" in text


def has_address(text: str) -> bool:
    """An `@` before what may be a domain, which `worker@8` has not."""
    return "@" in text and _DOMAIN.search(text) is not None


def has_long_word(text: str) -> bool:
    """16 letters, digits, `_` and `-` in a row."""
    return b"w" * 16 in text.encode("utf-8", "replace").translate(_WORD)


def has_digits(text: str) -> bool:
    """Seven in a row, but for what may stand between the digits of a number."""
    return b"d" * 7 in text.encode("utf-8", "replace").translate(_DIGIT, b" ().-/")


def has_named_value(text: str) -> bool:
    """A name such as `password`, and then a colon or an equals sign."""
    if not any(map(text.lower().__contains__, _NAMES)):
        return False
    names = "\n".join([part[-30:] for part in text.replace("=", ":").split(":")[:-1]]).lower()
    return _BEFORE_SIGN.search(names) is not None


class Pattern(NamedTuple):
    """One form. The group `secret`, where it took part in the match, is what goes; else the whole match."""

    kind: str
    expression: re.Pattern[str]
    clue: Clue
    hints: tuple[str, ...] = ()
    check: Callable[[re.Match[str]], bool] = lambda match: True
    """What an expression cannot say, e.g. a check digit."""

    def hinted(self, text: str) -> bool:
        return not self.hints or any(hint in text for hint in self.hints)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each secret in `text`."""
        return [_secret(match) for match in self.expression.finditer(text) if self.check(match)]

    def redact(self, text: str, found: set[str]) -> str:
        """`text` with `[redacted:kind]` for what matches; then the kind is added to `found`."""

        def replace(match: re.Match[str]) -> str:
            if not self.check(match):
                return match[0]
            found.add(self.kind)
            start, end = _secret(match)
            return match.string[match.start() : start] + f"[redacted:{self.kind}]" + match.string[end : match.end()]

        return self.expression.sub(replace, text)


def names_secret(name: str) -> bool:
    """Whether whatever has that name is a secret: `password`, `apiKey`, `X-API-Key`."""
    return bool(_SECRET_NAME.search(_words(name)))


def may_name_secret(name: str) -> bool:
    """Whether what has that name is a secret if it looks random: `token`, `key`."""
    return bool(_WEAK_NAME.search(_words(name)))


def is_digest(value: str) -> bool:
    """A UUID or a hash: it names something, it opens nothing."""
    return _DIGEST.fullmatch(value) is not None


def is_random(value: str) -> bool:
    """Long, of letters and digits, of many different ones, and no digest."""
    if len(value) < 20 or not _TOKEN.fullmatch(value) or is_digest(value) or not _mixes(value):
        return False
    shares = [count / len(value) for count in Counter(value).values()]
    return -sum(share * math.log2(share) for share in shares) > 3.3


def _secret(match: re.Match[str]) -> tuple[int, int]:
    named = "secret" in match.re.groupindex and match["secret"] is not None
    return match.span("secret") if named else match.span()


def _words(name: str) -> str:
    """`apiKey`, `API-KEY` and `api.key` as `api_key`."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def _mixes(text: str) -> bool:
    return any(map(str.isdigit, text)) and any(map(str.isalpha, text))


def _has_letters_and_digits(match: re.Match[str]) -> bool:
    """Words and plain numbers are no keys."""
    start, end = _secret(match)
    return _mixes(match.string[start:end])


def _is_given_a_value(match: re.Match[str]) -> bool:
    """Whether what follows a name is a value, and not the next word of a sentence or of a program."""
    name, value = match["name"], match["secret"]
    if _PLACEHOLDER.fullmatch(value) or f"_{_words(name)}".endswith(f"_{_words(value).rpartition('_')[2]}"):
        return False  # The latter is a variable that is passed on: `password=user.password`.
    if not names_secret(name):
        return may_name_secret(name) and is_random(value)
    given = match["quote"] != "" or match["scheme"] is not None or match["sign"] == "="
    return given or any(map(str.isdigit, value))


def _is_address(match: re.Match[str]) -> bool:
    return match[0].rpartition(".")[2].lower() not in _FILE_TYPES


def _is_card(match: re.Match[str]) -> bool:
    """The check digit of card numbers (ISO/IEC 7812-1), and their length."""
    digits = [int(character) for character in match[0] if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(digits) >= 14 and len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_phone(match: re.Match[str]) -> bool:
    start, end = _secret(match)
    number = match.string[start:end]
    digits = sum(map(str.isdigit, number))
    fewest = 7 if "secret" in match.re.groupindex else 9
    return fewest <= digits <= 15 and not re.fullmatch(r"\+?\d{1,3}(?:\.\d{3})+", number)


_SECRET_NAME = re.compile(
    r"(?:(?:password|passwd|passphrase|passcode|pwd|secret|credential|authorization|cookie)s?|(?:^|db_|smtp_|user_)pass"
    r"|(?:api|access|account|private|secret|signing|encryption|auth)_?keys?"
    r"|(?:access|auth|refresh|id|session|bearer|api|bot)_?tokens?)(?:_(?:value|hash|\d+))?$"
)
_WEAK_NAME = re.compile(r"(?:^|_)(?:key|token|auth|sig|signature|jwt|bearer)(?:_|$)")
_TOKEN = re.compile(r"[\w+/=.~%-]+")
_DIGEST = re.compile(r"(?:sha\d+:)?[0-9a-f]{32,128}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PLACEHOLDER = re.compile(
    r"(?i)none|null|true|false|str(?:ing)?|bytes|required|optional|[*x.]+|<.*>|your[\w-]*|my[_-][\w-]*|example"
)
_NAMES = ("pass", "pwd", "secret", "key", "token", "credential", "auth", "cookie", "sig", "jwt", "bearer")
# An assignment, and how many tokens were read and written, stand in the record of every run.
_BEFORE_SIGN = re.compile(
    rf"(?:{'|'.join(_NAMES)})(?<!assig(?=nment))(?<!put_token(?=s))(?<!cached_token(?=s))"
    r"\w{0,12}[\"'\\]{0,5} {0,3}(?:\n|$)"
)
_DOMAIN = re.compile(r"@[\w-]+\.")
_WORD = bytes(ord("w") if byte >= 128 or chr(byte).isalnum() or chr(byte) in "_-" else 32 for byte in range(256))
_DIGIT = bytes(ord("d") if chr(byte) in "0123456789" else 32 for byte in range(256))
_FILE_TYPES = {"png", "jpg", "jpeg", "gif", "svg", "webp", "json", "jsonl", "toml", "yaml", "yml", "txt", "log", "css"}

KEYS = (
    Pattern(
        "key",
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----(?:.*?-----END [A-Z ]*PRIVATE KEY[A-Z ]*-----|.*)", re.S),
        has_long_word,
        ("PRIVATE KEY",),
    ),
    Pattern(
        "key",
        re.compile(r"://[^\s/:@\"'<>\\\[]{0,80}:(?P<secret>[^\s/@\"'<>\\\[]{1,200})@"),
        has_at,
        ("://", ":\\/\\/"),
    ),
    Pattern(
        "key",
        re.compile(r"(?<![\w-])(?:sk-[\w-]{20,}|[srp]k_(?:live|test)_\w{16,}|whsec_\w{16,})"),
        has_long_word,
        ("sk-", "k_live_", "k_test_", "whsec_"),
        _has_letters_and_digits,
    ),
    Pattern(
        "key",
        re.compile(r"(?<![A-Za-z0-9])A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])"),
        has_long_word,
        ("AKIA", "ASIA"),
    ),
    Pattern(
        "key",
        re.compile(r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,})"),
        has_long_word,
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
    ),
    Pattern(
        "key",
        re.compile(r"(?<!\w)xox[abeoprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/(?P<secret>[A-Za-z0-9/]{20,})"),
        has_long_word,
        ("xox", "hooks.slack.com"),
    ),
    Pattern(
        "key",
        re.compile(r"(?<!\w)(?:AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,})"),
        has_long_word,
        ("AIza", "ya29.", "GOCSPX-"),
    ),
    Pattern(
        "key",
        re.compile(r"(?<!\w)(?:hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|SG\.[\w-]{16,}\.[\w-]{16,})"),
        has_long_word,
        ("hf_", "npm_", "pypi-", "SG."),
    ),
    Pattern(
        "key",
        re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{4,}\.[\w-]{8,}"),
        has_long_word,
        ("eyJ",),
    ),
    Pattern(
        "key",
        re.compile(r"(?i)\bbearer {1,3}(?P<secret>[\w.~+/-]{16,}=*)"),
        has_long_word,
        ("earer ", "EARER "),
        _has_letters_and_digits,
    ),
    Pattern(
        "key",
        re.compile(
            r"(?i)(?<![\w.-])(?P<name>[\w.-]{0,40}(?:pass|pwd|secret|key|token|credential|auth|cookie|sig|jwt|bearer)\w{0,12})"
            r"[\"']?(?P<sign>=| {0,3}[:=]>? {0,3})(?P<quote>[\"']?)(?P<scheme>(?:basic|bearer|token) {1,3})?"
            r"(?P<secret>(?<=[\"'])[^\"'\\\n\[]{4,200}(?=[\"'])"
            r"|(?<![\"'])[^\s\"'\\,;&<>{}()\[\]$]{4,200}(?![^\s\"'\\,;&<>{}()\[\]$])(?! ?[(\[]))"
        ),
        has_named_value,
        check=_is_given_a_value,
    ),
)
EMAIL = (
    Pattern(
        "email",
        re.compile(r"(?<![\w.+%-])(?!git@)[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])"),
        has_address,
        check=_is_address,
    ),
)
CARD = (
    Pattern(
        "card",
        re.compile(
            r"(?=[2-6])(?<![\w.,-])"
            r"(?:[2-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{2,4}(?:\1\d{1,3})?|3[47]\d{2}([ -])\d{6}\2\d{5})"
            r"(?![\w-]|[.,]\d)"
        ),
        has_digits,
        check=_is_card,
    ),
)
PHONE = (
    Pattern(
        "phone",
        re.compile(
            r"(?=[+(\d])(?<![\w.,/:+-])(?:"
            r"\+[1-9](?:[ ().\-/]{0,2}\d){7,14}"
            r"|(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}"
            r"|\(?0\d{1,4}\)?[ /-]\d{3,8}(?:[ -]\d{2,8}){0,2}"
            r"|0[1-9](?:[ .]\d{2}){4}"
            r")(?!\w|[-.,/]\d)"
        ),
        has_digits,
        check=_is_phone,
    ),
    Pattern(
        "phone",
        re.compile(
            r"(?i)(?<!\w)(?:(?:tele)?phone|tel|mobile|cell|fax|whatsapp|call|dial|sms)[ .:#(]{1,3}"
            r"(?P<secret>\d[\d .-]{5,14}\d)(?!\w|[-.,/]\d)"
        ),
        has_digits,
        check=_is_phone,
    ),
)

PATTERNS: dict[str, tuple[Pattern, ...]] = {"keys": KEYS, "email": EMAIL, "card": CARD, "phone": PHONE}
"""By the name that `[traces] redact` knows them by, in the order in which they are looked for."""
