"""Keys and tokens by the form that their issuer gives them, whatever is said around."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlx_plastic.memory.privacy.page import Page
from mlx_plastic.memory.privacy.randomness import is_random
from mlx_plastic.memory.privacy.spans import CERTAIN, LIKELY, POSSIBLE, Span

# A prefix and a body that nothing else has.
_OWN = """
(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z2-7]{16}
gh[pousr]_[A-Za-z0-9]{30,255}
github_pat_\\w{22,255}
gl(?:pat|ptt|rt|dt|ft|soat|cbt|imt|agent|oas|ffct)-[\\w-]{20,300}(?:\\.[a-z0-9]{9})?
GR1348941[\\w-]{20}
sk-(?:ant-|proj-|svcacct-|admin-|or-v1-)[\\w-]{20,200}
sk-[A-Za-z0-9]{32,64}
(?:sk|rk|pk)_(?:test|live|prod)_[A-Za-z0-9]{10,99}
whsec_[A-Za-z0-9+/=]{24,64}
AIza[\\w-]{35}
ya29\\.[\\w-]{20,400}
GOCSPX-[\\w-]{20,40}
1//0[\\w-]{30,120}
xox[abeoprs]-[A-Za-z0-9-]{10,250}
xapp-\\d-[A-Za-z0-9-]{8,200}
xoxe\\.xox[bp]-\\d-[A-Za-z0-9-]{20,200}
hf_[A-Za-z]{34}
api_org_[A-Za-z]{34}
npm_[A-Za-z0-9]{36}
pypi-[\\w-]{50,1000}
SG\\.[\\w=.-]{48,96}
(?:pub)?key-[0-9a-f]{32}
(?:SK|AC|AP)[0-9a-f]{32}
sq0[a-z]{3}-[\\w-]{22,60}
EAAA[\\w-]{50,80}
EAA[A-Za-z0-9]{80,300}
shp(?:at|ca|pa|ss|tka|ua)_[A-Fa-f0-9]{32}
do[opr]_v1_[a-f0-9]{64}
dapi[a-f0-9]{32}(?:-\\d)?
dp\\.(?:pt|st|ct|sa|scim|audit)\\.[\\w.-]{30,80}
hv[bs]\\.[\\w-]{24,300}
lin_(?:api|oauth)_[A-Za-z0-9]{32,64}
ntn_[A-Za-z0-9]{40,50}
pat[A-Za-z0-9]{14}\\.[a-f0-9]{64}
pscale_(?:tkn|pw|oauth)_[\\w=.-]{32,64}
PMAK-[a-f0-9]{24}-[a-f0-9]{34}
pul-[a-f0-9]{40}
pnu_[A-Za-z0-9]{36}
rubygems_[a-f0-9]{48}
rdme_[a-z0-9]{70}
sntry[su]_[\\w+/=-]{40,400}
glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}
glc_[A-Za-z0-9+/=]{32,400}
xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}
pplx-[A-Za-z0-9]{32,64}
gsk_[A-Za-z0-9]{40,60}
r8_[A-Za-z0-9]{37,40}
nvapi-[\\w-]{40,80}
tvly-[\\w-]{20,60}
fo1_[\\w-]{43}
fm[12][ar]?_[A-Za-z0-9+/=]{60,800}
EZ[AT]K[A-Za-z0-9]{54}
LTAI[A-Za-z0-9]{12,24}
AKCp[A-Za-z0-9]{60,75}
AKID[A-Za-z0-9]{13,40}
ABSK[A-Za-z0-9+/=]{40,270}
dt0c01\\.[A-Za-z0-9]{24}\\.[A-Za-z0-9]{64}
[A-Za-z0-9]{14}\\.atlasv1\\.[\\w=-]{60,70}
A3-[A-Z0-9]{6}-[A-Z0-9]{6,11}-[A-Z0-9-]{11,23}
ops_eyJ[\\w+/=-]{50,2000}
AGE-SECRET-KEY-1[A-Z0-9]{58}
HRKU-[\\w-]{30,70}
AT[AC]TT3[\\w=-]{50,250}
NRAK-[A-Z0-9]{27}
NRJS-[a-f0-9]{19}
sha256~[\\w-]{43}
tk-us-[\\w-]{48}
ico-[A-Za-z0-9]{32}
fio-u-[\\w=-]{64}
shippo_(?:live|test)_[a-f0-9]{40}
duffel_(?:test|live)_[\\w=-]{43}
FLWSECK(?:_TEST)?-[A-Za-z0-9-]{12,40}
sm_[aps]at_[A-Za-z0-9]{16}
[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk
sgp_[A-Za-z0-9_]{40,70}
CLOJARS_[a-z0-9]{60}
cmVmd[A-Za-z0-9]{59}
v1\\.0-[a-f0-9]{24}-[a-f0-9]{60,146}
[0-9a-f]{32}-us\\d{1,2}
eyJ[\\w-]{8,2000}\\.eyJ[\\w-]{4,4000}(?:\\.[\\w-]{0,1000})?
ey[A-Za-z0-9]{17,2000}\\.ey[\\w/\\\\-]{17,4000}\\.[\\w/\\\\-]{10,1000}={0,2}
\\$2[aby]\\$\\d\\d\\$[./A-Za-z0-9]{53}
\\$argon2(?:id|i|d)\\$[\\w$=,+/-]{20,200}
\\$[156]\\$[\\w./-]{1,32}\\$[./A-Za-z0-9]{20,90}
xprv[1-9A-HJ-NP-Za-km-z]{100,112}
[01]/\\d{16}:[0-9a-f]{32}
[ps]k\\.eyJ[\\w-]{20,200}\\.[\\w-]{16,40}
dckr_[op]at_[\\w-]{27,32}
lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}
sl\\.(?:u\\.)?[\\w=-]{60,1500}
A{21,22}[\\w%]{40,120}
CFPAT-[\\w-]{43}
oy2[a-z0-9]{43}
cio[A-Za-z0-9]{32}
re_[A-Za-z0-9]{6,10}_[A-Za-z0-9]{20,30}
pcsk_[A-Za-z0-9]{4,8}_[A-Za-z0-9]{40,70}
[sp]k-lf-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}
CCI(?:PAT|PRJ)_[A-Za-z0-9]{22}_[0-9a-f]{40}
amzn1\\.[a-z0-9.-]{10,60}\\.v1\\.[0-9a-f]{60,70}
bkua_[0-9a-f]{40}
b\\.AAAA[\\w-]{90,300}
[ps]at\\.[\\w-]{22}\\.[A-Za-z0-9]{24}\\.[A-Za-z0-9]{20}
\\d{15,16}(?:\\||%)[\\w-]{27,40}
[\\w~.]{3}\\dQ~[\\w~.-]{31,34}
(?:sc|ext|scauth|authress)_[A-Za-z0-9]{5,30}\\.[A-Za-z0-9]{4,6}\\.acc[_-][A-Za-z0-9-]{10,32}\\.[\\w+/=-]{30,120}
_gitlab_session=[\\w%-]{32,120}
p8e-[a-z0-9]{32}
s-s4t2(?:ud|af)-[0-9a-f]{64}
access-(?:sandbox|development|production)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}
""".split()
# A form that words may have as well: what looks like one must not be made of words.
_SHARED = """
sk-[\\w-]{20,200}
(?:sk|rk|pk|secret|token|key|api|auth|access|live|test|prod)[_-][A-Za-z0-9]{16,99}
[a-z][a-z0-9]{1,11}_(?:[a-z0-9]{2,8}_){0,2}[A-Za-z0-9]{20,120}
[a-z]{2,8}-(?:[a-z]{2,8}-)?[A-Za-z0-9]{20,120}
[a-z]{2,8}_(?:[a-z]{2,8}_)?[A-Za-z0-9][\\w-]{24,120}
s\\.[A-Za-z0-9]{24}
API-[A-Z0-9]{24,32}
[a-z]{2,8}_(?:live|test|prod)_[A-Za-z0-9]{12,99}
ATBB[A-Za-z0-9]{24,40}
[MNO][A-Za-z\\d]{23,27}\\.[\\w-]{6}\\.[\\w-]{27,40}
\\d{8,10}:[\\w-]{35}
[5KL][1-9A-HJ-NP-Za-km-z]{50,51}
""".split()
_FORMS = re.compile(rf"(?<![A-Za-z0-9])(?:({'|'.join(_OWN)})|({'|'.join(_SHARED)}))(?![A-Za-z0-9])")
_RUN = re.compile(r"[^\s\"'<>`,;(){}]{14,}")  # only in such a run can one be

_PEM = re.compile(r"-----BEGIN[ A-Z0-9_-]{0,60}(?:PRIVATE KEY|PGP MESSAGE)[ A-Z]{0,10}-----")
_PEM_END = re.compile(r"-----END[ A-Z0-9_-]{0,60}-----")
_LONGEST_KEY = 20_000  # characters of a key whose end is missing
_URLS = (  # with a password, or that are one: whoever has the address may post there
    re.compile(
        r"[a-z][a-z0-9+.\-]{1,20}://[^\s/@:]{0,64}:[^\s/@]{1,128}@[\w\[][^\s\"'<>`)]{0,300}", re.IGNORECASE
    ),
    re.compile(
        r"https?://(?:hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/"
        r"|[a-z0-9]{1,40}\.webhook\.office\.com/|hooks\.zapier\.com/hooks/|[0-9a-f]{32}@[\w.]{1,60}/)[\w/@\-]{4,300}"
    ),
)
_QUERY = re.compile(
    r"[?&;](?:api_?key|key|token|access_token|auth|secret|password|pwd|passwd|sig|signature|client_secret|"
    r"code)="
    r"([^\s&#\"'<>]{6,500})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?:bearer|basic|token)\s+([A-Za-z0-9_\-.+/=]{16,2000})")
_BEARERS = ("bearer", "basic", "token")
_SHELL = re.compile(  # curl -u me:pw, mysql -u me -ppw, --password=pw
    r"(?:\s-u\s+|--user[ =])[\"']?[\w.@\-]{1,64}:([^\s\"']{3,128})"
    r"|\b(?:mysql\w{0,8}|mariadb|sshpass|7za?|zip|psql)\s[^\n]{0,80}?(?<!\S)-[pP][\"']?([^\s\"'-][^\s\"']{3,127})"
    r"|\s--?(?:pass(?:word|wd|phrase)?|token|secret|api-?key)[ =][\"']?([^\s\"'-][^\s\"']{3,127})"
)
_OPTIONS = (" -u", " -p", " --user", " --pass", " -pass", "token", "secret", "api-key", "apikey")
_NAMED = re.compile(r"[$%<{\[(]|[A-Z_]+\Z|(?i:your|file|stdin)")  # where it is, not what it is


def forms(page: Page) -> Iterator[Span]:
    text = page.text
    for run in _RUN.finditer(text):
        for match in _FORMS.finditer(text, *run.span()):
            if match[1] or is_random(match[0]):
                yield Span(*match.span(), "secret", CERTAIN)
    if "-----BEGIN" in text:
        yield from _pems(text)
    if "://" in text:
        for pattern in _URLS:
            for match in pattern.finditer(text):
                end = match.start() + len(match[0].rstrip(".,;:!?"))
                yield Span(match.start(), end, "secret", CERTAIN)
    if "=" in text:
        for match in _QUERY.finditer(text):
            yield Span(*match.span(1), "secret", LIKELY if is_random(match[1]) else POSSIBLE)
    for match in _BEARER.finditer(page.low) if page.says(_BEARERS) else ():
        if is_random(text[slice(*match.span(1))]):
            yield Span(*match.span(1), "secret", CERTAIN)
    if " -" in text and page.says(_OPTIONS):
        for match in _SHELL.finditer(text):
            if not _NAMED.match(match[match.lastindex or 1]):
                yield Span(*match.span(match.lastindex or 1), "secret", LIKELY)


def _pems(text: str) -> Iterator[Span]:
    """Private keys with all their lines; one without an end takes what follows."""
    at = 0
    while match := _PEM.search(text, at):
        stop = _PEM_END.search(text, match.end(), match.end() + _LONGEST_KEY)
        at = stop.end() if stop else min(len(text), match.end() + _LONGEST_KEY)
        yield Span(match.start(), at, "secret", CERTAIN)
