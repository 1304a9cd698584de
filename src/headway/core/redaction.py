"""Takes secrets out of texts, URLs and JSON before anything is stored, ranked or logged.

Two ideas: a value is secret because of the *key* beside it (`_SECRET_KEY`), or because of its own *shape* (`SHAPES`).
A clean text costs one search of `_TRIGGER` over its lower-cased form; only a text that may hold a secret pays for more.
Where it is unsure, it redacts. Pure: doors call it before an observation is built, logging before a line is written.
The rule not to break: work is linear in the input, so every repeat is bounded, or possessive and consuming what it
scanned; `test_cost_is_linear_on_hostile_input` guards it.
"""

import functools
import itertools
import re
import string
import typing
import urllib.parse

JsonValue: typing.TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"

REDACTED = "[redacted]"
_MAX_DEPTH = 128  # deeper JSON is replaced, not walked: it is no payload of a pipeline
_CACHED_KEY = 64  # characters: longer keys are judged each time, so that the cache stays small
_OVERLAP = 96  # characters
_ROUNDS = 4  # redaction is repeated until nothing changes, which makes it idempotent

# ---- Keys, in snake_case: which names promise a secret, and which only look like it -------------------------------
_KEY_KINDS = (
    "api|access|account|private|secret|shared|signing|encryption|decryption|master|app|application|admin|auth|fernet|hmac|jwt"
    "|ssh|deploy|consumer|integration|license|subscription|write|session"
)
_SECRET_KEY = re.compile(
    r"pass_?(?:word|wd|phrase|code)|pwd|storepass"
    r"|secret(?!ar|i[ov]|ly|s?_?manager)"  # not secretary, secretion, secretly, AWS Secrets Manager
    r"|token(?!s|i[sz])|(?:api|access|auth|refresh|bearer|personal|session|secret)_?tokens"  # plain `tokens` are counts
    rf"|(?:{_KEY_KINDS})_?keys?(?![a-z])"
    r"|authorization|credential|cookies?(?![a-z])|jwt(?![a-z])|sess(?:ion)?_?id"
    r"|(?:^|_)(?:auth|creds?|sig|signature|sas|dsn|pass|bearer|otp)(?:_(?:header|value|data|string|code|raw|b64|base64|\d+))*$"
    r"|signature$|(?<=_)pat$"
)
_SECRET_URL_KEY = re.compile(
    r"(?:conn(?:ection)?|database|db|postgres(?:ql)?|pg|mysql|redis|mongo(?:db)?|amqp|broker|jdbc|sqlalchemy|sas)"
    r"_?(?:str|string|ur[il]|dsn)$"
)
_HARMLESS_KEY = re.compile(
    r"^(?:max|min|num|number_of|total|avg|count|no|skip|without)_"
    r"|_(?:counts?|total|limit|budget|usage|used|length|len|size|policy|enabled|disabled|required|valid|expired|expires|expiry"
    r"|expiration|ttl|timeout|age|lifetime|duration|types?|kind|format|version|names?|arn|ur[il]|endpoint|path|file|filename"
    r"|dir|location|provider|manager|service|server|worker|job|method|mode|algorithm|scopes?|status|state|errors?|exception"
    r"|failures?|attempts|retries|rotation|reset|prompt|hint|field|column|index|position|offset|at|in|on|stdin|rate|ms|seconds"
    r"|days|consent|domain)$"
)
_SOURCE_FILE = re.compile(r"\.(?:py|java|kt|scala|js|ts|go|rb|rs|sql|txt|log|md)$")  # token.py:12
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_WORD = re.compile(r"[^a-z0-9]++")

# ---- Shapes: what is a secret wherever it stands. (who, how it starts in lower case, pattern). --------------------
# The group `s` is what goes; without one, all that matched. A start is a regular expression that begins with a literal.
SHAPES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("Headway API keys", ("hw_",), r"hw_[\w-]{43,}+"),
    ("AWS key ids: the secret half is found by its name", ("kia[a-z0-9]{16}", "sia[a-z0-9]{16}"), r"A(?:K|S)IA[A-Z0-9]{16,}+"),
    ("GitHub", ("gh[pousr]_", "github_pat_"), r"(?:gh[pousr]_[A-Za-z0-9]{20}|github_pat_\w{20})[\w.-]*+"),
    ("GitLab", ("gl[a-z]{2,5}-",), r"gl(?:pat|ptt|dt|rtr?|soat|cbt|ft|imt|agent|oas|ffct)-[\w.-]{16,}+"),
    ("Slack", ("xox[a-z]-", "xapp-"), r"(?:xox[a-z]|xapp)-[\w-]{10,}+"),
    ("Stripe", ("k_(?:live|test)_", "hsec_"), r"(?<![A-Za-z0-9])(?:[sr]k_(?:live|test)_|whsec_)[\w+/=]{16,}+"),
    ("OpenAI, Anthropic", ("k-(?<=sk-)[a-z0-9]",), r"(?<![A-Za-z0-9])sk-(?:(?:proj|ant|svcacct|admin|or)-[\w-]{16,}+|[A-Za-z0-9]{20,}+)"),
    ("Google API keys, OAuth", ("za(?<=aiza)", "29\\.(?<=ya29\\.)", "cspx-"), r"AIza[\w-]{30,}+|(?:ya29\.|GOCSPX-)[\w.-]{20,}+"),
    ("Package registries", ("pm_(?<=npm_)", "pypi-"), r"npm_[A-Za-z0-9]{30,}+|pypi-(?:AgE[\w-]{8,}+|[\w-]{40,}+)"),
    ("dbt Cloud", ("dbt[cu]_",), r"dbt[cu]_[\w=-]{20,}+"),
    ("Databricks", ("dapi", "dose"), r"d(?:api|ose)[0-9a-fA-F]{32}[0-9a-fA-F]*+(?:-\d)?"),
    ("Prefect, Hugging Face", ("pn[ub]_", "hf_"), r"(?:pn[ub]_|\bhf_)[A-Za-z0-9]{30,}+"),
    ("Vault, Grafana, DigitalOcean", ("hvs\\.", "glsa_", "dop_v1_"), r"(?:\bhvs\.|glsa_|dop_v1_)\w{20,}+"),
    ("SendGrid", ("sg\\.",), r"\bSG\.[\w-]{16,}+\.[\w-]{16,}+"),
    ("JWTs: one part alone is ordinary base64 and stays", ("j(?<=eyj)[\\w-]{5}",), r"(?P<s>eyJ[\w-]{5,}+\.[\w-]++(?:\.[\w-]*+){0,3}+)|eyJ[\w-]*+"),
    ("Telegram bots", ("bot\\d{6}",), r"\bbot(?P<s>\d{6,12}:[\w-]{30,}+)"),
    ("Slack-like hooks", ("hooks\\.", "hooks/\\w"), r"\bhooks(?:\.slack\.com/(?:services|workflows|triggers)/|\.zapier\.com/hooks/catch/|/(?=\w{16}))(?P<s>[\w/.-]++)"),
    ("Discord, Teams", ("hookb2/",), r"\bwebhook(?:s/\d{1,24}+/|b2/)(?P<s>[\w/.@-]++)"),
    ("Authorization schemes in prose", ("bearer\\s",), r"(?i:\bbearer)\s{1,4}+(?!(?i:tokens?|auth\w{0,20}|realm|scheme|header|error|method|format|type|is|was|not|and|or|for|challenge|credentials?|access)\b)(?P<s>[\w.~+/=-]{4,}+)"),
    ("Basic: never one plain word, as in `basic authentication`", ("basic\\s{1,4}[\\w+/-]{4}",), r"(?i:\bbasic)\s{1,4}+(?![A-Za-z]?[a-z]*+\b(?![+/=\d-])|[A-Z]++\b|\d++\b)(?P<s>[\w+/-]{4,}+={0,2})"),
    ("curl -u; 1000:1000 is a uid and a gid", (), r"(?<![\w-])(?:-[uU]|--(?:proxy-)?user)[ =]{0,4}+[\"']?(?!\d{1,10}:\d{1,10}(?!\S))[^\s:\"'/=-][^\s:\"'/]{0,127}+:(?!//)(?P<s>[^\s\"']++)"),
    ("mysql -psecret: glued only, else it asks", (), r"\b(?:mysql|mariadb)(?:dump|admin|import|-dump)?(?=\s)[^\n;|]{0,200}?\s-p(?P<s>[^\s;|]++)"),
    ("Tools whose -p or -a is a password", (), r"\b(?:(?:sshpass|docker login)\s[^\n;|]{0,99}?-p|sqlcmd\s[^\n;|]{0,99}?-P|redis-cli\s[^\n;|]{0,99}?-a)\s{0,4}+(?P<s>[^\s;|]++)"),
    ("SQL: PASSWORD '…', IDENTIFIED BY '…'", ("password\\s{1,4}['\"]", "dentified\\s"), r"(?i:\bpassword|\bidentified\s{1,4}by)\s{1,4}+['\"](?P<s>[^'\"\n]++)"),
    ("Oracle thin URLs", (":(?<=oracle:)",), r"\boracle:\w{1,8}:[\w$#.]{1,64}+/(?P<s>[^\s@]{1,128}+)(?=@)"),
    ("Go database sources", ("@tcp\\(", "@unix\\("), r":(?P<s>[^\s:@]{1,128}+)(?=@(?:tcp|unix)\()"),
    ("Keys of Azure functions in URLs", ("code=",), r"(?<=[?&]code=)[\w%=-]{20,}+"),
)  # fmt: skip
_PEM = re.compile(  # the block to its END line; cut before it, to a quote or to the end
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[^\"'`<>-]++|-(?!----END ))*+(?:-----END [A-Z0-9 ]{0,60}+(?:-{1,5}+)?)?"
)
_SHAPES = [re.compile(pattern, re.ASCII) for _, _, pattern in SHAPES]
_IN_CONTEXT = [
    shape for shape in _SHAPES if shape.pattern.find("(?P<s>") > 0
]  # needs the words before it, so goes first
_ALONE = [shape for shape in _SHAPES if shape.pattern.find("(?P<s>") <= 0]

# ---- Keys and their values in running text ------------------------------------------------------------------------
# What a secret key has in it, to find candidates; `is_secret_key` then judges the whole key. They begin at their rarest
# letter (the k of token), as do the starts of SHAPES: letters that are not in the set cost next to nothing to skip.
_PAIR_WORDS = (
    *("pass", "pwd", "p(?<=otp)", "pat", "k(?<=tok)en", "key(?!error)", "k(?<=cook)ie", "secret", "sas", "sig"),
    *("uth(?<=auth)", "cred", "dsn", "bearer", "jwt", "sess(?:ion)?[ _.-]?id", "conn(?:ection)?[ _.-]?(?:str|ur[il])"),
    *("database[ _.-]?ur[il]", "db[ _.-]?ur[il]", "postgres(?:ql)?[ _.-]?ur[il]"),
)
_PAIR_END = r"[\w.-]{0,64}+((?:\\{0,7}[\"'`]|%22|&quot;)?+)\]?[ \t]{0,16}+(=>|:=|==?|:|%3[ad]|>)"
_FLAG = r"-(?<![\w-]-)-?[a-z][\w.-]{1,64}+[ \t]{1,4}+(?![\s-])"  # `--password value`
_FLAG_ITEM = re.compile(r"--?[a-zA-Z][\w.-]{0,64}+", re.ASCII)
_KEY_CHARS = string.ascii_letters + string.digits + "_.-"


def _any_of(words: typing.Iterable[str], end: str = "", others: typing.Iterable[str] = ()) -> str:
    """One alternation of `words` (each followed by `end`) and `others`, by first letter: that is what `re` searches fast."""
    starts = sorted([(word[0], 0, word[1:]) for word in words] + [(word[0], 1, word[1:]) for word in others])
    letters = []
    for letter, group in itertools.groupby(starts, key=lambda start: start[0]):
        kinds = {
            kind: "|".join(rest for _, _, rest in same)
            for kind, same in itertools.groupby(group, key=lambda start: start[1])
        }
        rests = [f"(?:{rest}){end if kind == 0 else ''}" for kind, rest in kinds.items()]
        letters.append(f"{re.escape(letter)}(?:{'|'.join(rests)})")
    return "|".join(letters)


_TRIGGER = re.compile(
    _any_of(
        _PAIR_WORDS,
        _PAIR_END,
        ["-----begin ", r"-(?<![\w-]-)-?[a-z]", *itertools.chain.from_iterable(s for _, s, _ in SHAPES)],
    ),
    re.ASCII,
)
_PAIR = re.compile(f"{_any_of(_PAIR_WORDS, _PAIR_END)}|{_FLAG}", re.ASCII)
_BLANK = re.compile(r"[ \t]{0,64}+")
_BLANK_LINES = re.compile(r"\s{0,64}+")
_QUOTE = re.compile(r"(?:[bBrRuUfF]{1,2}(?=[\"']))?(\\{0,7}(?:\"\"\"|'''|[\"'`]))")
_LINE = re.compile(r"(?:[^\r\n\\]|\\(?![rn]))*+")
_SCHEME = re.compile(
    r"(?i:bearer|basic|token|api-?key|key|negotiate|geniekey|splunk|ssws)[ \t]{1,4}+[^\s\"',;]++", re.ASCII
)
_SOFT = r"[,;&)\]}>\"'`|<\\]"  # ends a bare value where a new key, a bracket or a blank follows; else part of it
_BARE = re.compile(
    rf"(?:\[redacted\]|\[|\\ |[^\s,;&)\]}}>\"'`|<\\\[]++|{_SOFT}++(?!\s|\Z|[\[({{]|[\w.-]{{1,40}}+[\"'\\]{{0,8}}\s?[=:]))++",
    re.ASCII,
)
_SEMICOLON = re.compile(r"(?:[^;\"'\r\n]++|[\"'](?=\w))*+", re.ASCII)
_YAML_BLOCK = re.compile(r"[|>][+-]?[ \t]{0,8}+\r?\n[ \t]++(?P<s>[^\n]*+(?:\n[ \t]++[^\n]*+)*+)")
_NAME = re.compile(r"(?:[a-z_-]++|[A-Z_-]++|[A-Z]?[a-z]++(?:[A-Z][a-z]++)?)[:=]?")
_NAME_GOES_ON = re.compile(r"(?<=:)|(?<==)(?=[^\s=])|[\"']?[ \t]?(?::|=(?!=))")
_REST_OF_LINE = re.compile(r"[^\r\n]*+")
_ELEMENT = re.compile(r"[^<\r\n]*+")
_NESTED = re.compile(r"[^\"'\[\](){}\n]++|\"(?:[^\"\\\n]|\\.)*+\"?|'(?:[^'\\\n]|\\.)*+'?|.", re.DOTALL)
_NO_SECRET = re.compile(r"(?i:null|none|nil|true|false|undefined|nan|\*{3,})[.,]?|--?\w?|\[redacted\]", re.ASCII)
_PROSE = re.compile(  # what follows `token: ` in a sentence, where no value does
    r"(?:(?i:expired?|invalid|missing|required|not|no|is|was|has|have|unknown|empty|incorrect|wrong|denied|rejected|refused|revoked"
    r"|failed|failure|error|connection|could|cannot|can't|unable|timed|timeout|unauthori[sz]ed|forbidden|bad|permission|access|request"
    r"|server|host|http|the|a|an|must|should|got|expected|unexpected|user|ok|okay|str|int|bool|bytes)(?=[\s,.;:)\]]|\Z)"
    r"|[A-Za-z_.]{1,80}+(?:(?<=Error)|(?<=Exception)|(?<=Warning))(?=[\s:(]|\Z)|\w{1,60}+(?<=Pool)\(|[1-5]\d\d [A-Z])",
    re.ASCII,
)
_NUMBERS = re.compile(r"[\d./%,]++")
_TO_LINE_END = re.compile(r"cookie|authorization|auth_header|conn(?:ection)?_?str|passphrase")
_URL = re.compile(r"://(?:[^\s\"'<>]++|[\"'](?=[\w!#$%^*]))++", re.ASCII)
_LONE_TOKEN = re.compile(r"[\w.~%!$*+=-]++", re.ASCII)
_PARAMETER = re.compile(r"(?<=[?&#])([^=&#\s]{1,128}+)=([^&#]++)")
_PLACEHOLDERS = ("", "x", "x-oauth-basic")  # as a password, where the token is the user
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def redact_text(text: str) -> str:
    """Running text (an error, a log, a traceback, a command line) without its secrets; the same object if it has none."""
    low = text.lower()
    if not (_TRIGGER.search(low) or ("@" in low and "://" in low)):
        return text
    result = text
    for _ in range(_ROUNDS):
        before, result = result, _redact_once(result)
        if result == before:
            break
    return text if result == text else result


def redact_url(url: str) -> str:
    """A URL without passwords, tokens before its host, secret parameters and secret paths; the rest byte for byte as it was."""

    def parameter(match: re.Match[str]) -> str:
        name, value = match.groups()
        secret = is_secret_key(urllib.parse.unquote_plus(name)) and not _NO_SECRET.fullmatch(value)
        return f"{name}={REDACTED}" if secret else match[0]

    result = url
    for _ in range(_ROUNDS):
        before, result = result, redact_text(_PARAMETER.sub(parameter, result) if "=" in result else result)
        if result == before:
            break
    return url if result == url else result


def redact_value(value: JsonValue) -> JsonValue:
    """Parsed JSON without its secrets, in keys and values; the same object if there are none."""
    return _redact_value(value, 0)


def has_secret(text: str) -> bool:
    """Whether redaction would take something out of a text or URL, such as the destination of an alert."""
    return redact_url(text) != text


def is_secret_key(key: str) -> bool:
    """Whether a value under this key (camelCase, SCREAMING, kebab, snake, with dots or blanks) must not be kept."""
    return _is_secret_key_cached(key) if len(key) <= _CACHED_KEY else _is_secret_key(key)


def _is_secret_key(key: str) -> bool:
    snake = _NOT_WORD.sub("_", _CAMEL.sub("_", key).lower()).strip("_")
    flat = _NOT_WORD.sub("_", key.lower()).strip("_")
    if _SECRET_URL_KEY.search(snake) or _SECRET_URL_KEY.search(flat):
        return True
    if _HARMLESS_KEY.search(snake) or _SOURCE_FILE.search(key):
        return False
    return bool(_SECRET_KEY.search(snake) or _SECRET_KEY.search(flat))


_is_secret_key_cached = functools.lru_cache(maxsize=4096)(_is_secret_key)


def _judge_key(key: str) -> tuple[bool, str]:
    """Whether the value under a JSON key goes, and the key as it is kept; judged in both forms, so that twice is as once."""
    kept = redact_text(key)
    return _is_secret_key(key) or (kept != key and _is_secret_key(kept)), kept


_judge_key_cached = functools.lru_cache(maxsize=4096)(_judge_key)


def _redact_value(value: JsonValue, depth: int) -> JsonValue:
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return _redact_dict(value, depth + 1) if depth < _MAX_DEPTH else REDACTED
    if isinstance(value, list):
        return _redact_list(value, depth + 1) if depth < _MAX_DEPTH else REDACTED
    return value


def _redact_dict(value: dict[str, JsonValue], depth: int) -> dict[str, JsonValue]:
    name = value.get("name", value.get("key")) if "value" in value else None  # {"name": "DB_PASSWORD", "value": "…"}
    named = isinstance(name, str) and _judge_key(name)[0]
    result: dict[str, JsonValue] = {}
    changed = False
    for key, item in value.items():
        secret, new_key = (_judge_key_cached if len(key) <= _CACHED_KEY else _judge_key)(key)
        if secret or (named and key == "value"):
            new = item if _may_stay(key, item) else REDACTED
        else:
            new = _redact_value(item, depth)
        while new_key is not key and new_key in result:  # two keys that were secrets do not become one
            new_key = f"{new_key} {len(result)}"
        changed = changed or new is not item or new_key != key
        result[new_key] = new
    return result if changed else value


def _may_stay(key: str, item: JsonValue) -> bool:
    counts = isinstance(item, int | float) and key.lower() == "pass"  # {"pass": 12, "fail": 3}
    return item is None or isinstance(item, bool) or counts or item == REDACTED


def _redact_list(value: list[JsonValue], depth: int) -> list[JsonValue]:
    result: list[JsonValue] = []
    changed = False
    flag = ""  # what the item before was
    for item in value:
        new = _redact_value(item, depth)
        if isinstance(new, str):  # ["--password", "…"], ["-u", "user:…"]
            after_user = flag in {"-u", "--user"} and ":" in new
            if new[:1] != "-" and new != REDACTED and (after_user or (flag and is_secret_key(flag))):
                new = REDACTED
            flag = new if _FLAG_ITEM.fullmatch(new) else ""
        changed = changed or new is not item
        result.append(new)
    return result if changed else value


def _redact_once(text: str) -> str:
    if "-----BEGIN " in text:
        text = _PEM.sub(REDACTED, text)
    if "@" in text and "://" in text:
        text = _URL.sub(_redact_user_info, text)
    for shape in _IN_CONTEXT:
        text = shape.sub(_redact_shape, text)
    text = _redact_pairs(text)
    for shape in _ALONE:
        text = shape.sub(_redact_shape, text)
    return text


def _redact_shape(match: re.Match[str]) -> str:
    if match.re.groups == 0:
        return REDACTED
    secret = match["s"]
    if not secret or secret.startswith(REDACTED):
        return match[0]
    start, end = match.span("s")
    if _NAME.fullmatch(secret) and _NAME_GOES_ON.match(match.string, end) and is_secret_key(secret):
        return match[0]  # no secret but the name of the next one: `Bearer token: …`
    return match.string[match.start() : start] + REDACTED + match.string[end : match.end()]


def _redact_user_info(match: re.Match[str]) -> str:
    """`://user:password@`, or `https://token@`, in a run of URLs without a blank between them."""
    before = match.string[max(0, match.start() - 5) : match.start()]
    pieces = match[0].split("://")
    for number, piece in enumerate(pieces[1:], start=1):
        web = before.lower().endswith(("http", "https"))
        before = piece[-5:]
        authority = re.split(r"[/?#;]", piece, maxsplit=1)[0]
        user_info, at, _ = authority.rpartition("@")
        user, colon, password = user_info.partition(":")
        if not at:  # a password with a raw slash: but host:port/path@… is none
            user, colon, password = authority.partition(":")
            if not colon or user[:1] == "[" or password.isdigit() or not password or "@" not in piece:
                continue
            user_info = piece.rpartition("@")[0]
            password = user_info.partition(":")[2]
        if web and password in _PLACEHOLDERS and _LONE_TOKEN.fullmatch(user):
            pieces[number] = REDACTED + piece[len(user_info) :]
        elif colon and password:
            pieces[number] = f"{user}:{REDACTED}{piece[len(user_info) :]}"
    return "://".join(pieces)


def _redact_pairs(text: str) -> str:
    low = text.lower()
    if len(low) != len(text):  # a few letters grow when lowered; offsets must not move
        low = text.translate(_ASCII_LOWER)
    parts: list[str] = []
    done = position = 0
    while match := _PAIR.search(low, position):
        position = match.end()
        span = _find_value(text, match)
        if span and span[1] >= done:
            if span[0] >= done:
                parts += text[done : span[0]], REDACTED
            done = span[1]
            position = max(
                position, done - _OVERLAP
            )  # what was taken for a value may end in a key: `token: password: …`
    return "".join([*parts, text[done:]]) if parts else text


def _find_value(text: str, match: re.Match[str]) -> tuple[int, int] | None:
    """Where the value beside a candidate key stands; None if the key is harmless or no secret follows."""
    begin, group = match.start(), match.lastindex
    if group is None:  # a flag
        key, closing, separator = match[0].strip(), "", " "
    else:
        head = text[max(0, begin - 64) : begin]
        begin -= len(head) - len(head.rstrip(_KEY_CHARS))
        key, closing, separator = text[begin : match.start(group - 1)], match[group - 1], match[group]
    if text[begin - 1 : begin] == " " and key[:3].lower() == "key":  # `api key: …`
        word = text[max(0, begin - 21) : begin - 1]
        word = word[len(word.rstrip(_KEY_CHARS)) :]
        begin, key = begin - len(word) - 1, f"{word} {key}"
    opener = text[begin - 1 : begin]
    if not is_secret_key(key) or (separator == ">" and opener not in {"<", ":"}):
        return None
    blank = (_BLANK_LINES if closing else _BLANK).match(text, match.end())
    start = blank.end() if blank else match.end()
    first = text[start : start + 1]
    after = start + len(REDACTED)
    if text.startswith(REDACTED, start) and not text[after : after + 1].isalnum():
        return None
    if quote := _QUOTE.match(text, start):
        start, end = quote.end(), _find_quote_end(text, quote)
    elif block := _YAML_BLOCK.match(text, start):
        return block.span("s")
    elif (first == "(" and separator == ":") or (
        separator == ":" and start > match.end() and not closing and _PROSE.match(text, start)
    ):
        return None
    elif first and first in "[{(":
        return start, _find_bracket_end(text, start, across_lines=bool(closing))
    else:
        end = _find_bare_end(text, start, key, opener, separator)
    counts = key.lower() == "pass" and (_NUMBERS.fullmatch(text, start, end) or (key == "PASS" and separator == ":"))
    return None if counts or _NO_SECRET.fullmatch(text, start, end) or (start == end and not quote) else (start, end)


def _find_quote_end(text: str, quote: re.Match[str]) -> int:
    closing = _closing(quote[1]).search(text, quote.end())
    return closing.start() if closing else _end(_REST_OF_LINE, text, quote.end())


@functools.lru_cache(maxsize=64)
def _closing(quote: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\\){re.escape(quote)}")


def _find_bracket_end(text: str, start: int, *, across_lines: bool) -> int:
    """The end of a list, dict or call that begins at `start`; what never closes goes to the end of its line or text."""
    depth = 0
    for match in _NESTED.finditer(text, start):
        if match[0] in {"[", "{", "("}:
            depth += 1
        elif match[0] in {"]", "}", ")"}:
            depth -= 1
            if depth <= 0:
                return _end(_BARE, text, match.end()) if text[match.end() : match.end() + 1].isalnum() else match.end()
        elif match[0] == "\n" and not across_lines:
            return match.start()
    return len(text)


def _find_bare_end(text: str, start: int, key: str, opener: str, separator: str) -> int:
    if separator == ">":
        return _end(_ELEMENT, text, start)
    if end := _end(_SCHEME, text, start, default=0):  # `token: Bearer …` is two words
        return end
    if separator == ":" and _TO_LINE_END.search(_NOT_WORD.sub("_", key.lower())):  # a header, a phrase
        end = _end(_LINE, text, start)
        closing = text.find(opener, start, end) if opener and opener in "\"'" else -1
        return start + len(text[start : end if closing < 0 else closing].rstrip(" \t\\"))
    if separator == "=" and opener == ";":
        return _end(_SEMICOLON, text, start)
    return _end(_BARE, text, start)


def _end(pattern: re.Pattern[str], text: str, start: int, default: int | None = None) -> int:
    match = pattern.match(text, start)
    if match:
        return match.end()
    return start if default is None else default
