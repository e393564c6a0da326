from contextlib import closing
from dataclasses import replace

import pytest

from appliance.accounts import credential, keyring
from appliance.accounts.key import Key, KeyLimits, Retired
from appliance.accounts.keyring import Keyring
from appliance.core.errors import InvalidKey, InvalidRequest, KeyNotFound, MissingKey
from appliance.core.limits import Limits
from appliance.ledger import books
from appliance.ledger.books import open_books
from appliance.ledger.schema import MIGRATIONS
from appliance.ledger.transfer import read_balance
from appliance.store.database import connect
from appliance.store.datadir import DataDir
from appliance.wire.keys import MintedKey
from tests.appliance import HandClock

NOW = 1_790_000_000_000_000


def key_for(text, key_id="key_a", **fields):
    made = Key(
        id=key_id,
        name="name",
        digest=credential.digest(text),
        hint=credential.hint(text),
        unlimited=False,
        limits=KeyLimits(),
        created_us=NOW,
        expires_us=None,
        revoked_us=None,
    )
    return replace(made, **fields)


def ring(*keys, keys_max=100):
    return Keyring(keys, keys_max=keys_max)


def test_the_plaintext_opens_its_own_key_and_no_other():
    texts = [credential.mint() for _ in range(50)]
    made = ring(*(key_for(text, f"key_{index}") for index, text in enumerate(texts)))
    for index, text in enumerate(texts):
        assert made.authenticate(text, NOW).id == f"key_{index}"


@pytest.mark.parametrize("text", [None, ""])
def test_no_text_is_a_missing_key(text):
    with pytest.raises(MissingKey):
        ring().authenticate(text, NOW)


def test_unknown_expired_and_revoked_keys_are_refused_with_the_same_words():
    unknown, expired, revoked = (credential.mint() for _ in range(3))
    made = ring(
        key_for(expired, "key_e", expires_us=NOW), key_for(revoked, "key_r", revoked_us=NOW - 1)
    )
    said = set()
    for text in (unknown, expired, revoked, "gr-short", "x" * 100_000):
        with pytest.raises(InvalidKey) as refusal:
            made.authenticate(text, NOW)
        said.add(refusal.value.message)
    assert len(said) == 1


def test_a_key_works_until_the_microsecond_of_its_expiry():
    text = credential.mint()
    made = ring(key_for(text, expires_us=NOW + 5))
    assert made.authenticate(text, NOW + 4).id == "key_a"
    with pytest.raises(InvalidKey):
        made.authenticate(text, NOW + 5)


def test_a_bad_checksum_is_refused_without_hashing_or_looking_anything_up(monkeypatch):
    def forbidden(*_):
        raise AssertionError("the store was asked")

    class Untouchable(dict):
        get = __getitem__ = __contains__ = forbidden

    text = credential.mint()
    made = ring(key_for(text))
    made._by_digest = Untouchable(made._by_digest)
    monkeypatch.setattr(credential, "digest", forbidden)
    wrong = text[:-1] + ("0" if text[-1] != "0" else "1")
    with pytest.raises(InvalidKey):
        made.authenticate(wrong, NOW)
    with pytest.raises(AssertionError, match="the store was asked"):
        made.authenticate(text, NOW)


def test_a_revoked_key_is_refused_at_once_and_the_first_revocation_counts():
    text = credential.mint()
    made = ring(key_for(text))
    assert made.revoke("key_a", NOW).revoked_us == NOW
    with pytest.raises(InvalidKey):
        made.authenticate(text, NOW)
    assert made.revoke("key_a", NOW + 9).revoked_us == NOW
    assert made.get("key_a").revoked_us == NOW


def test_an_unknown_id_is_named():
    with pytest.raises(KeyNotFound, match="key_zzz"):
        ring().get("key_zzz")
    with pytest.raises(KeyNotFound, match="key_zzz"):
        ring().revoke("key_zzz", NOW)


def test_a_full_ring_takes_no_more_keys():
    made = ring(key_for(credential.mint()), keys_max=2)
    made.require_room()
    made.add(key_for(credential.mint(), "key_b"))
    with pytest.raises(InvalidRequest, match="2 keys at most"):
        made.require_room()


def test_only_live_keys_count_as_someone_who_could_call():
    made = ring(
        key_for(credential.mint(), "key_r", revoked_us=NOW),
        key_for(credential.mint(), "key_e", expires_us=NOW + 1),
    )
    assert made.has_live(NOW)
    assert not made.has_live(NOW + 1)
    assert not ring().has_live(NOW)


def test_keys_are_listed_oldest_first():
    made = ring(
        key_for(credential.mint(), "key_c", created_us=2),
        key_for(credential.mint(), "key_b", created_us=1),
        key_for(credential.mint(), "key_a", created_us=2),
    )
    assert [key.id for key in made] == ["key_b", "key_a", "key_c"]


FULL = {
    "name": "Zoë; DROP TABLE keys",
    "unlimited": True,
    "expires_us": NOW + 1,
    "revoked_us": NOW + 2,
    "limits": KeyLimits(rpm=1, tpm=2, concurrency=3, daily_budget=4, models=("a/b", 'c"d')),
    "scopes": ("usage", "admin"),
}


@pytest.mark.parametrize("fields", [{}, FULL, {"limits": KeyLimits(daily_budget=0)}])
def test_a_key_comes_back_from_the_store_as_it_went_in(tmp_path, fields):
    directory, clock = DataDir(tmp_path / "data"), HandClock()
    key = key_for(credential.mint(), **fields)
    with directory.locked():
        with open_books(directory, clock, Limits()) as opened:
            opened.writer.call(books.mint(key, 0, NOW))
            assert list(opened.keyring) == []
        with open_books(directory, clock, Limits()) as opened:
            assert list(opened.keyring) == [key]


def test_a_revocation_is_in_the_store_and_keeps_its_first_moment(tmp_path):
    directory = DataDir(tmp_path / "data")
    with directory.locked(), open_books(directory, HandClock(), Limits()) as opened:
        opened.writer.call(books.mint(key_for(credential.mint()), 0, NOW))
        opened.writer.call(books.revoke("key_a", NOW + 1))
        opened.writer.call(books.revoke("key_a", NOW + 2))
        [stored] = opened.writer.call(keyring.load)
    assert stored.revoked_us == NOW + 1


def test_the_plaintext_is_in_no_repr_and_in_no_byte_of_the_store(tmp_path):
    directory, text = DataDir(tmp_path / "data"), credential.mint()
    key = key_for(text)
    secret = text[3:35]
    with directory.locked(), open_books(directory, HandClock(), Limits()) as opened:
        opened.writer.call(books.mint(key, 10**12, NOW))
        opened.keyring.add(key)
        for shown in (repr(key), repr(opened.keyring), repr(opened), repr(opened.writer)):
            assert secret not in shown
        files = [path for path in directory.path.rglob("*") if path.is_file()]
        assert any(path.name.endswith("-wal") and path.stat().st_size for path in files)
        for path in files:
            assert secret.encode() not in path.read_bytes(), path
    for path in directory.path.rglob("*.db*"):
        assert secret.encode() not in path.read_bytes(), path


def test_the_answer_to_mint_does_not_print_the_plaintext_by_accident():
    text = credential.mint()
    answer = MintedKey(
        id="key_a",
        name="n",
        key=text,
        credit=None,
        daily_budget=None,
        rpm=None,
        tpm=None,
        concurrency=None,
        models=None,
        created="",
        expires=None,
    )
    assert text[3:35] not in f"{answer!r} {answer} {answer.__rich_repr__()}"
    assert "key_a" in repr(answer)


def test_two_keys_can_never_share_a_digest_or_an_id(tmp_path):
    directory, text = DataDir(tmp_path / "data"), credential.mint()
    with directory.locked(), open_books(directory, HandClock(), Limits()) as opened:
        opened.writer.call(books.mint(key_for(text), 0, NOW))
        for twin in (key_for(text, "key_b"), key_for(credential.mint(), "key_a")):
            with pytest.raises(Exception, match="UNIQUE constraint failed"):
                opened.writer.call(books.mint(twin, 5, NOW))
        assert len(opened.writer.call(keyring.load)) == 1
    assert directory.database.stat().st_mode & 0o077 == 0


# -- credentials --------------------------------------------------------------------------------


def rotated(key, text, *ends_us):
    """Return a key with a new credential and its old ones ending at these moments."""
    older = (key.digest, *(old.digest for old in key.retired))
    retired = tuple(Retired(digest, end) for digest, end in zip(older, ends_us, strict=False))
    return replace(key, digest=credential.digest(text), hint=credential.hint(text), retired=retired)


def opens(made, text, now_us):
    try:
        return made.authenticate(text, now_us).id
    except InvalidKey:
        return None


def test_of_a_rotated_key_the_new_text_works_and_the_old_one_until_its_end():
    old, new = credential.mint(), credential.mint()
    made = ring(key_for(old))
    made.add(rotated(made.get("key_a"), new, NOW + 10))
    assert [opens(made, text, NOW + 9) for text in (old, new)] == ["key_a", "key_a"]
    assert [opens(made, text, NOW + 10) for text in (old, new)] == [None, "key_a"]
    assert made.get("key_a").hint == credential.hint(new)


def test_a_credential_that_a_key_no_longer_has_is_not_even_looked_for():
    texts = [credential.mint() for _ in range(3)]
    made = ring(key_for(texts[0]))
    made.add(rotated(made.get("key_a"), texts[1], NOW + 10))
    made.add(replace(rotated(made.get("key_a"), texts[2]), retired=()))
    assert [opens(made, text, NOW) for text in texts] == [None, None, "key_a"]
    assert set(made._by_digest) == {credential.digest(texts[2])}


def test_revoking_a_rotated_key_ends_all_of_its_credentials_at_once():
    old, new = credential.mint(), credential.mint()
    made = ring(key_for(old))
    made.add(rotated(made.get("key_a"), new, NOW + 10**12))
    made.revoke("key_a", NOW)
    assert [opens(made, text, NOW) for text in (old, new)] == [None, None]


def test_a_key_that_was_authenticated_is_looked_at_again_as_it_is_now():
    made = ring(key_for(credential.mint(), expires_us=NOW + 5))
    key = made.get("key_a")
    made.require_live(key, NOW + 4)
    with pytest.raises(InvalidKey):
        made.require_live(key, NOW + 5)
    made.revoke("key_a", NOW)
    assert key.is_live(NOW)  # what the call was given before
    with pytest.raises(InvalidKey):
        made.require_live(key, NOW)


def test_credentials_come_back_from_the_store_oldest_first(tmp_path):
    directory, texts = DataDir(tmp_path / "data"), [credential.mint() for _ in range(3)]
    key = key_for(texts[0])
    with directory.locked():
        with open_books(directory, HandClock(), Limits()) as opened:
            opened.writer.call(books.mint(key, 0, NOW))
            key = rotated(key, texts[1], NOW + 30)
            key = replace(
                rotated(key, texts[2]),
                retired=(*key.retired, Retired(credential.digest(texts[1]), NOW + 20)),
            )
            opened.writer.call(lambda connection: keyring.write_credentials(connection, key))
        with open_books(directory, HandClock(), Limits()) as opened:
            assert list(opened.keyring) == [key]
            assert [opens(opened.keyring, text, NOW + 19) for text in texts] == ["key_a"] * 3
            assert [opens(opened.keyring, text, NOW + 20) for text in texts] == [
                "key_a",
                None,
                "key_a",
            ]


def test_an_expiry_comes_back_from_the_store_and_so_does_its_end(tmp_path):
    directory = DataDir(tmp_path / "data")
    with directory.locked(), open_books(directory, HandClock(), Limits()) as opened:
        opened.writer.call(books.mint(key_for(credential.mint()), 0, NOW))
        for moment in (NOW + 7, None):
            opened.writer.call(
                lambda connection, at=moment: keyring.write_expiry(connection, "key_a", at)
            )
            [stored] = opened.writer.call(keyring.load)
            assert stored.expires_us == moment


def test_of_a_forgotten_key_nothing_is_left_that_tells_whose_it_was(tmp_path):
    directory, texts = DataDir(tmp_path / "data"), [credential.mint() for _ in range(2)]
    key = key_for(texts[0], name="Alice of Example Street")
    gone = [key.name, *map(credential.hint, texts), *map(credential.digest, texts)]
    with directory.locked():
        with open_books(directory, HandClock(), Limits()) as opened:
            opened.writer.call(books.mint(key, 10**12, NOW))
            key = rotated(key, texts[1], NOW + 10**12)
            opened.writer.call(lambda connection: keyring.write_credentials(connection, key))
            opened.keyring.add(key)
            for moment in (NOW + 1, NOW + 2):
                opened.writer.call(
                    lambda connection, at=moment: keyring.forget(connection, "key_a", at)
                )
                forgotten = opened.keyring.forget("key_a", moment)
            assert [opens(opened.keyring, text, NOW) for text in texts] == [None, None]
            assert opened.keyring._by_digest == {}
        with open_books(directory, HandClock(), Limits()) as opened:
            [stored] = opened.keyring
            assert [opens(opened.keyring, text, NOW) for text in texts] == [None, None]
            balance = opened.writer.call(lambda c: read_balance(c, "key_a", NOW))
    assert balance.posted == 10**12
    for each in (forgotten, stored):
        assert (each.name, each.hint, each.retired) == ("forgotten", "", ())
        assert (each.revoked_us, each.forgotten_us) == (NOW + 1, NOW + 1)
    content = directory.database.read_bytes()
    assert not directory.database.with_name("gigarouter.db-wal").exists()
    for trace in gone:
        assert (trace.encode() if isinstance(trace, str) else trace) not in content


def test_a_revocation_that_came_first_keeps_its_moment_when_the_key_is_forgotten():
    made = ring(key_for(credential.mint()))
    made.revoke("key_a", NOW)
    assert made.forget("key_a", NOW + 5).revoked_us == NOW


def test_a_store_of_the_first_release_opens_with_its_keys_as_they_were(tmp_path):
    directory, text = DataDir(tmp_path / "data"), credential.mint()
    with directory.locked():
        with closing(connect(directory.database, MIGRATIONS[:1])) as connection:
            connection.execute(
                "INSERT INTO keys (id, name, digest, hint, unlimited, created_us)"
                " VALUES ('key_a', 'old', ?, 'gr-AbCd…wxyz', 1, ?)",
                (credential.digest(text), NOW),
            )
        with open_books(directory, HandClock(), Limits()) as opened:
            key = opened.keyring.authenticate(text, NOW)
    assert (key.name, key.scopes, key.retired) == ("old", ("infer", "usage"), ())
