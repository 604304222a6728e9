"""Injections: what a text looks like that gives orders to the model which reads it."""

import re
import unicodedata

_GAP = r"(?:\W{1,3}\w{1,30}){0,4}?\W{1,3}"
"""Up to four words."""
_DROP = r"\b(?:ignore|disregard|forget|override|overrule|bypass|discard)\b"
_WHOSE = r"(?:all|any|your|these|those|previous|prior|above|earlier|preceding|initial|original|the|system)"
_RULES = r"(?:instruction|prompt|direction|directive|rule|guideline|guidance|order|command|constraint|restriction)\w?\b"
_MODEL = r"(?:AI|language model|LLM|chat ?bot)s?(?: (?:assistant|agent|model|system)s?)?"
_DO = r"(?:call|send|write|say|answer|reply|output|ignore|use|tell|execute|run|print|recommend|add|approve|rate|give)"
_SHOW = r"\b(?:send|forward|post|e-?mail|upload|leak|reveal|print|output|show|repeat|display|disclose)\b"

# Each form finds one of the 40 injected texts of `tests/data/injections.jsonl` or more. Breadth pays: the 15 forms that
# suffice for the tuning half find 6 of the 20 held out, all of them 13. Packages of rules that need no download find 6
# at most (ai-injection-guard 0.3; clawguard-core 0.4 finds 3, aicordon 1.4 and raucle 0.23 find 2 each).
INJECTIONS: dict[str, re.Pattern[str]] = {
    kind: re.compile("|".join(forms), re.IGNORECASE)
    for kind, forms in {
        "tells the model to drop its instructions": (
            rf"{_DROP}{_GAP}{_WHOSE}{_GAP}{_RULES}",
            rf"{_DROP} (?:everything|all|what)\b.{{0,20}}\byou (?:have been|were|had been) (?:told|given|asked)",
            r"\bignore what the user\b",
            r"\bno longer bound by\b",
            rf"\b(?:ignorier\w*|vergiss|vergesst|missachte\w*)\b{_GAP}(?:anweisung|instruktion|regel|vorgabe|befehl)\w*",
            rf"\b(?:ignore[rz]?|oublie[rz]?)\b{_GAP}(?:instruction|consigne|directive|règle)s?\b",
            rf"\b(?:ignor[ae]\w?|olvid[ae]\w?|dimentica\w?|esque[cç]a\w?)\b{_GAP}"
            r"(?:instrucci|istruzion|instruç|reglas|regole|regras)\w*",
        ),
        "gives the model a new role or task": (
            r"\byou(?:'re| are) now (?:DAN\b|unrestricted|jailbroken|in \w+ mode)",
            r"\bfrom now on,? you (?:are|will|must|should|shall|act|answer|respond|reply)\b",
            r"\b(?:act|behave|respond|answer) as (?:an? |the )?(?:unrestricted|unfiltered|uncensored|jailbroken|DAN)\b",
            r"\bpretend (?:that )?(?:you are|to be)\b",
            r"\byour (?:new|real|only|actual) (?:task|role|goal|objective|job|instruction)s?\b",
            r"\bnew (?:system )?(?:instruction|prompt|directive)s? ?:",
            r"\b(?:stop|abandon|abort) (?:the|your) current task\b",
        ),
        "imitates the marks of a chat template": (
            r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\|>",
            r"\[/?INST\]|<</?SYS>>|</?tool_(?:result|response|call)s?>",
            r"#{2,} ?(?:new |updated |system )?(?:instructions?|prompt) ?:",
            r"\bsystem ?: ?(?:you|ignore|your|the assistant)\b",
        ),
        "speaks to the model that reads it": (
            rf"\b(?:note|message|memo|instructions?) (?:to|for) (?:the |all |any |every )?{_MODEL}\b",
            rf"\b(?:attention|dear|hey|hello),? (?:all )?{_MODEL}\b",
            rf"\bif you(?:'re| are) (?:an? |the )?(?:large )?{_MODEL}\b",
            rf"\b{_MODEL} (?:that |which |who )?(?:read|process|summari[sz]|review|pars)(?:s|es|ing)? this\b",
            rf"\b{_MODEL} (?:must|should|shall|has to|needs to) (?:\w{{1,20}} ){{0,2}}{_DO}\b",
            r"\bwhen you, the (?:assistant|model|AI|agent), read this\b",
        ),
        "asks for what the model must not give": (
            rf"{_SHOW}{_GAP}(?:system (?:prompt|message)|hidden (?:prompt|instruction)s?)\b",
            rf"{_SHOW}{_GAP}your (?:\w{{1,20}} )?(?:prompt|instructions|conversation|memory)\b",
            rf"{_SHOW}{_GAP}(?:API keys?|credentials|passwords?|secrets) (?:that )?(?:you|stored in your)\b",
        ),
        "wants to be kept from the user": (
            rf"\b(?:do not|don't|never)\b{_GAP}(?:tell|mention|inform|alert|notify|reveal)\b{_GAP}the user\b",
            r"\b(?:secret|hidden|hide this) from the user\b",
            r"\bwithout asking the user for (?:confirmation|permission)\b",
        ),
        "claims priority over other instructions": (
            r"\bthis (?:instruction|message|prompt)\b.{0,30}\b(?:highest priority|overrides|takes precedence)\b",
            r"\bmust comply with the above\b",
        ),
    }.items()
}
"""What such a text does, as the end of a sentence that begins with "it", and the forms that it takes."""

_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
# The flags of England, Scotland and Wales are written with six of these.
_HIDDEN = re.compile("[\U000e0020-\U000e007f]{8}")


def injection(text: str) -> str | None:
    """What the first form that is found does, e.g. `wants to be kept from the user`; None where none is."""
    if _HIDDEN.search(text):
        return "hides text in invisible characters"
    plain = visible(text)
    return next((kind for kind, form in INJECTIONS.items() if form.search(plain)), None)


def visible(text: str) -> str:
    """`text` on one line, in plain characters."""
    return " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).split())
