import hashlib
import random
import re
import string
import tomllib
import zlib
from pathlib import Path

import pytest

from appliance.accounts import credential

ROOT = Path(__file__).resolve().parents[3]

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
[RULE] = tomllib.loads((ROOT / "packaging/gitleaks.toml").read_text())["rules"]
SCANNER = re.compile(RULE["regex"], re.ASCII)
"""As published for secret scanners."""
SCANNED = 100_000
MINTED = 10_000


def checksum(secret):
    value = zlib.crc32(secret.encode())
    return "".join(BASE62[value // 62**place % 62] for place in reversed(range(6)))


def test_every_minted_key_has_the_published_form_and_checksum_and_is_new():
    keys = [credential.mint() for _ in range(MINTED)]
    assert len(set(keys)) == MINTED
    for key in keys:
        assert SCANNER.fullmatch(key), key
        assert credential.PATTERN.fullmatch(key), key
        assert checksum(key[:-6]) == key[-6:], key
        assert credential.is_well_formed(key), key


def test_the_secret_uses_the_whole_alphabet_evenly():
    drawn = "".join(credential.mint()[3:35] for _ in range(MINTED))
    expected = len(drawn) / 62
    for char in BASE62:
        # Six standard deviations: one false alarm in ten million runs.
        assert abs(drawn.count(char) - expected) < 6 * expected**0.5, char


def test_a_scanner_finds_a_key_in_running_text():
    key = credential.mint()
    for text in (f'key = "{key}"', f"Bearer {key}\n", f"https://host/account?key={key}&x=1"):
        assert SCANNER.findall(text) == [key]


def test_text_that_only_looks_like_a_key_is_never_taken_for_one():
    source = random.Random(62)
    for _ in range(20_000):
        text = "gr-" + "".join(source.choices(BASE62, k=38))
        assert SCANNER.fullmatch(text)
        assert not credential.is_well_formed(text), text


def test_every_single_mistyped_character_is_noticed():
    key = credential.mint()
    for position in range(3, len(key)):
        for char in BASE62:
            typed = key[:position] + char + key[position + 1 :]
            assert credential.is_well_formed(typed) == (typed == key), typed


def test_every_pair_of_swapped_neighbours_is_noticed():
    for _ in range(50):
        key = credential.mint()
        for position in range(3, len(key) - 1):
            swapped = f"{key[:position]}{key[position + 1]}{key[position]}{key[position + 2 :]}"
            assert credential.is_well_formed(swapped) == (swapped == key), swapped


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key[:0],
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: key + "\n",
        lambda key: " " + key,
        lambda key: key + " ",
        lambda key: key.upper(),
        lambda key: "GR-" + key[3:],
        lambda key: "sk-" + key[3:],
        lambda key: key[3:],
        lambda key: key[:10] + "٣" + key[11:],
        lambda key: key[:10] + "é" + key[11:],
        lambda key: key[:10] + "\x00" + key[11:],
        lambda key: key[:10] + "-" + key[11:],
        lambda key: key * 1000,
    ],
)
def test_anything_but_the_exact_text_is_not_well_formed(change):
    key = credential.mint()
    assert not credential.is_well_formed(change(key))


def test_a_key_is_known_by_the_sha_256_of_its_text():
    key = credential.mint()
    assert credential.digest(key) == hashlib.sha256(key.encode()).digest()
    assert len(credential.digest("clé")) == 32


def test_a_hint_shows_four_characters_of_the_secret_and_four_of_the_checksum():
    key = credential.mint()
    shown = credential.hint(key)
    assert shown == f"{key[:7]}…{key[-4:]}"
    assert len(shown) == 12


def test_the_scanners_rule_has_what_gitleaks_asks_of_one():
    assert set(RULE) == {"id", "description", "regex", "keywords"}
    assert SCANNER.pattern == r"\bgr-[0-9A-Za-z]{38}\b"
    # gitleaks looks for these words, in lower case, before it tries the expression.
    assert RULE["keywords"] == [credential.PREFIX]


def test_a_scanner_finds_every_one_of_100_000_keys_and_can_tell_each_from_its_neighbours():
    source = random.Random(7)
    for _ in range(SCANNED):
        key = credential.mint()
        found = SCANNER.findall(f"API_KEY={key}\n")
        assert found == [key]
        assert credential.is_well_formed(key)
        at = source.randrange(3, len(key))
        other = source.choice(BASE62.replace(key[at], ""))
        assert not credential.is_well_formed(key[:at] + other + key[at + 1 :])
