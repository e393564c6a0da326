import os
from pathlib import Path

import pytest

from appliance import settings
from appliance.core.errors import InvalidSettings
from appliance.settings import (
    AdminSettings,
    BackupSettings,
    BooksSettings,
    EngineSettings,
    HubSettings,
    Settings,
    TlsSettings,
)


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch):
    for variable in list(os.environ):
        if variable.startswith(("GIGAROUTER_", "HF_")):
            monkeypatch.delenv(variable)


@pytest.fixture
def load(tmp_path, monkeypatch):
    def run(*, file=None, env=None, **flags):
        if file is not None:
            (tmp_path / "config.toml").write_text(file, encoding="utf-8")
        for variable, value in (env or {}).items():
            monkeypatch.setenv(variable, value)
        return settings.load(tmp_path, {name.replace("__", "."): v for name, v in flags.items()})

    return run


def test_with_nothing_chosen_the_defaults_serve_this_machine_only(load):
    assert load() == Settings()
    assert Settings().host == "127.0.0.1"
    assert not Settings().admin.allow_remote
    assert not Settings().fake_engine


def test_a_flag_beats_the_environment_and_the_environment_beats_the_file(load):
    chosen = load(
        file='port = 1001\nhost = "::1"\nthreads = 3\nlog_format = "json"\n',
        env={"GIGAROUTER_PORT": "1002", "GIGAROUTER_HOST": "127.0.0.2"},
        port=1003,
        host=None,
        threads=None,
    )
    assert chosen == Settings(host="127.0.0.2", port=1003, threads=3, log_format="json")


def test_every_setting_can_be_given_in_the_file_in_the_environment_and_as_a_flag(load):
    wanted = Settings(
        host="::1",
        port=1,
        lan=True,
        insecure_http=True,
        log_format="json",
        access_log=True,
        otlp_endpoint="http://127.0.0.1:4318",
        threads=2,
        hosts=("a.example", "b"),
        trusted_proxies=("10.0.0.0/8", "::1"),
        supervise=False,
        restart_pause_s=2.5,
        default_wait_s=3,
        default_models=("a/b", "c"),
        daily_budget_status=402,
        cors_origins=("https://app.example", "http://localhost:3000"),
        token_ids="own",
        tiktoken_dir="/srv/vocabularies",
        fake_engine=True,
        batch_delay_s=4,
        failpoint="after_send:1",
        admin=AdminSettings(allow_remote=True),
        tls=TlsSettings(cert="c.pem", key="k.pem"),
        engine=EngineSettings(
            calibrate=False,
            workers=2,
            max_batch_tokens=128,
            flash_attention="off",
            cache_mb=5,
            memory_mb=900,
            idle_s=60,
            isolation="process",
        ),
        backup=BackupSettings(every_h=6, keep=28),
        books=BooksSettings(keep_days=400),
        hub=HubSettings(endpoint="http://mirror.lan/hf", token="hf_x", offline=True),
    )
    values = {
        "host": "::1",
        "port": 1,
        "lan": True,
        "insecure_http": True,
        "log_format": "json",
        "access_log": True,
        "otlp_endpoint": "http://127.0.0.1:4318",
        "threads": 2,
        "hosts": ["a.example", "b"],
        "trusted_proxies": ["10.0.0.0/8", "::1"],
        "supervise": False,
        "restart_pause_s": 2.5,
        "default_wait_s": 3,
        "default_models": ["a/b", "c"],
        "daily_budget_status": 402,
        "cors_origins": ["https://app.example", "http://localhost:3000"],
        "token_ids": "own",
        "tiktoken_dir": "/srv/vocabularies",
        "fake_engine": True,
        "batch_delay_s": 4,
        "failpoint": "after_send:1",
        "admin.allow_remote": True,
        "tls.cert": "c.pem",
        "tls.key": "k.pem",
        "engine.calibrate": False,
        "engine.workers": 2,
        "engine.max_batch_tokens": 128,
        "engine.flash_attention": "off",
        "engine.cache_mb": 5,
        "engine.memory_mb": 900,
        "engine.idle_s": 60,
        "engine.isolation": "process",
        "backup.every_h": 6,
        "backup.keep": 28,
        "books.keep_days": 400,
        "hub.endpoint": "http://mirror.lan/hf",
        "hub.token": "hf_x",
        "hub.offline": True,
    }
    # A new setting belongs here too.
    assert sorted(values) == sorted(settings.names())
    assert load(**{name.replace(".", "__"): value for name, value in values.items()}) == wanted
    toml = "".join(
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}\n"
        for name, value in values.items()
    )
    assert load(file=toml) == wanted
    env = {
        "GIGAROUTER_" + name.replace(".", "_").upper(): ", ".join(value)
        if isinstance(value, list)
        else str(value)
        for name, value in values.items()
    }
    assert load(file="", env=env) == wanted


@pytest.mark.parametrize(
    ("file", "key", "reason"),
    [
        ("prot = 1", "prot", "unknown field"),
        ("[admin]\nallow_remot = true", "admin", "unknown field `allow_remot`"),
        ("[amdin]\nallow_remote = true", "amdin", "unknown field"),
        ('port = "8642"', "port", "Expected `int`, got `str`"),
        ("port = 0", "port", ">= 1"),
        ("port = 65536", "port", "<= 65535"),
        ("port = 80.5", "port", "Expected `int`, got `float`"),
        ("host = 1", "host", "Expected `str`"),
        ("threads = -1", "threads", ">= 0"),
        ("default_wait_s = 61", "default_wait_s", "<= 60"),
        ("hosts = ['a b']", "hosts", "matching regex"),
        ("trusted_proxies = ['x']", "trusted_proxies", "no network"),
        ("restart_pause_s = -1", "restart_pause_s", ">= 0"),
        ('log_format = "xml"', "log_format", "xml"),
        ("fake_engine = 1", "fake_engine", "Expected `bool`"),
        ("admin = true", "admin", "Expected `object`"),
        ('[tls]\ncert = "c.pem"', "tls", "both"),
        ('[tls]\nkey = "k.pem"', "tls", "both"),
        ("port = \nhost = 1\n", "file", "line 1"),
        ("port = 1\nport = 2\n\n", "file", "line 2"),
    ],
)
def test_a_mistake_in_the_file_names_the_file_and_the_key(load, tmp_path, file, key, reason):
    with pytest.raises(InvalidSettings) as refusal:
        load(file=file)
    assert refusal.value.message.startswith(f"{tmp_path / 'config.toml'}: ")
    assert key in refusal.value.message
    assert reason in refusal.value.message
    assert "\n" not in refusal.value.message


def test_a_file_that_is_not_text_is_refused_by_name(load, tmp_path):
    (tmp_path / "config.toml").write_bytes(b"port = \xff")
    with pytest.raises(InvalidSettings, match=r"config\.toml: file"):
        load()


def test_a_file_that_cannot_be_read_is_refused_by_name(load, tmp_path):
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(InvalidSettings, match=r"config\.toml: file"):
        load()


@pytest.mark.parametrize(
    ("variable", "value", "key", "reason"),
    [
        ("GIGAROUTER_PROT", "1", "GIGAROUTER_PROT", "GIGAROUTER_PORT"),
        ("GIGAROUTER_KERNELS", "sse2", "GIGAROUTER_KERNELS", "is one of amx"),
        ("GIGAROUTER_", "1", "GIGAROUTER_", "is not a setting"),
        ("GIGAROUTER_ADMIN", "1", "GIGAROUTER_ADMIN", "is not a setting"),
        ("GIGAROUTER_TLS_PORT", "1", "GIGAROUTER_TLS_PORT", "is not a setting"),
        ("GIGAROUTER_PORT", "many", "port", "Expected `int`"),
        ("GIGAROUTER_PORT", "0", "port", ">= 1"),
        ("GIGAROUTER_PORT", "", "port", "Expected `int`"),
        ("GIGAROUTER_FAKE_ENGINE", "perhaps", "fake_engine", "Expected `bool`"),
        ("GIGAROUTER_LOG_FORMAT", "xml", "log_format", "xml"),
        ("GIGAROUTER_TLS_CERT", "c.pem", "tls", "both"),
    ],
)
def test_a_mistake_in_the_environment_names_the_setting(load, variable, value, key, reason):
    with pytest.raises(InvalidSettings) as refusal:
        load(env={variable: value})
    assert key in refusal.value.message
    assert reason in refusal.value.message


@pytest.mark.parametrize(
    ("flags", "reason"),
    [({"port": 0}, "command line: port"), ({"log_format": "xml"}, "command line: log_format")],
)
def test_a_mistake_in_a_flag_says_so(load, flags, reason):
    with pytest.raises(InvalidSettings, match=reason):
        load(**flags)


def test_the_words_for_true_and_false_in_the_environment_are_read(load):
    for word, value in (("true", True), ("1", True), ("false", False), ("0", False)):
        assert load(env={"GIGAROUTER_FAKE_ENGINE": word}).fake_engine is value


def test_other_programs_variables_are_left_alone(load):
    chosen = load(env={"PORT": "1", "HOST": "x", "gigarouter_port": "2", "MYGIGAROUTER_PORT": "3"})
    assert chosen == Settings()


def test_the_data_directory_is_the_flag_else_the_environments_else_this_users(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert settings.data_dir(None).name == "gigarouter"
    monkeypatch.setenv("GIGAROUTER_DATA_DIR", str(tmp_path / "env"))
    assert settings.data_dir(None) == tmp_path / "env"
    assert settings.data_dir(tmp_path / "flag") == tmp_path / "flag"
    monkeypatch.chdir(tmp_path)
    assert settings.data_dir(Path("here")) == tmp_path / "here"


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_data_directory_is_not_the_working_directory(monkeypatch, empty):
    monkeypatch.setenv("GIGAROUTER_DATA_DIR", empty)
    with pytest.raises(InvalidSettings, match="GIGAROUTER_DATA_DIR: is empty"):
        settings.data_dir(None)


def test_an_empty_host_is_refused_by_its_name(load):
    for chosen in ({"file": 'host = ""'}, {"env": {"GIGAROUTER_HOST": " "}}, {"host": ""}):
        with pytest.raises(InvalidSettings, match="host: is empty"):
            load(**chosen)


KUBERNETES = {
    "GIGAROUTER_SERVICE_HOST": "10.0.0.1",
    "GIGAROUTER_SERVICE_PORT": "8642",
    "GIGAROUTER_SERVICE_PORT_HTTP": "8642",
    "GIGAROUTER_PORT": "tcp://10.0.0.1:8642",
    "GIGAROUTER_PORT_8642_TCP": "tcp://10.0.0.1:8642",
    "GIGAROUTER_PORT_8642_TCP_PROTO": "tcp",
    "GIGAROUTER_PORT_8642_TCP_PORT": "8642",
    "GIGAROUTER_PORT_8642_TCP_ADDR": "10.0.0.1",
    "GIGAROUTER_PORT_53_UDP": "udp://10.0.0.1:53",
    # Of a service named gigarouter-metrics.
    "GIGAROUTER_METRICS_SERVICE_HOST": "fd00::17",
    "GIGAROUTER_METRICS_PORT": "tcp://[fd00::17]:9090",
    "GIGAROUTER_METRICS_PORT_9090_TCP_ADDR": "fd00::17",
}
DOCKER = {
    "GIGAROUTER_NAME": "/web/gigarouter",
    "GIGAROUTER_ENV_PATH": "/usr/bin:/bin",
    "GIGAROUTER_ENV_GIGAROUTER_PORT": "8642",
    "GIGAROUTER_PORT_8642_TCP_START": "tcp://172.17.0.2:8642",
    "GIGAROUTER_PORT_8643_TCP_END": "tcp://172.17.0.2:8643",
    "GIGAROUTER_PORT_8642_TCP_PORT_START": "8642",
    "GIGAROUTER_PORT_8643_TCP_PORT_END": "8643",
}


def test_the_variables_of_a_service_or_a_link_of_our_name_are_ignored_and_named(load):
    chosen = load(env={**KUBERNETES, **DOCKER, "GIGAROUTER_THREADS": "3"})
    assert chosen == Settings(threads=3)
    assert settings.injected_variables() == sorted({**KUBERNETES, **DOCKER})


def test_a_port_that_is_set_on_purpose_counts_among_the_variables_of_a_service(load):
    chosen = load(env={**KUBERNETES, "GIGAROUTER_PORT": "1002"})
    assert chosen.port == 1002


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GIGAROUTER_PORT", "tcp://"),
        ("GIGAROUTER_PORT", "http://10.0.0.1:8642"),
        ("GIGAROUTER_PROT", "tcp://10.0.0.1:8642"),
        ("GIGAROUTER_SERVICE_HOST", "my host"),
        ("GIGAROUTER_SERVICE_PORT", "many"),
        ("GIGAROUTER_SERVICE_HOSTS", "10.0.0.1"),
        ("GIGAROUTER_PORT_8642", "tcp://10.0.0.1:8642"),
        ("GIGAROUTER_PORT_8642_TCP_ADR", "10.0.0.1"),
        ("GIGAROUTER_PORT_HTTP_TCP", "tcp://10.0.0.1:8642"),
        ("GIGAROUTER_NAME", "gigarouter"),
        ("GIGAROUTER_ENV_PATH", "/usr/bin"),  # no link's name beside it
    ],
)
def test_what_only_resembles_them_is_still_an_error(load, variable, value):
    with pytest.raises(InvalidSettings):
        load(env={variable: value})


def test_the_data_directory_is_no_setting(load):
    chosen = load(env={"GIGAROUTER_DATA_DIR": "/x"})
    assert chosen == Settings()


def test_the_hubs_own_variables_beat_the_file_and_ours_beat_them(load):
    chosen = load(
        file='[hub]\nendpoint = "http://file"\ntoken = "of the file"\n',
        env={
            "HF_ENDPOINT": "http://theirs",
            "HF_TOKEN": "theirs",
            "HF_HUB_OFFLINE": "1",
            "GIGAROUTER_HUB_TOKEN": "ours",
        },
    )
    assert chosen.hub == HubSettings(endpoint="http://theirs", token="ours", offline=True)
    assert load(env={"HF_HUB_OFFLINE": "0"}).hub.offline is False


def test_settings_under_their_old_names_are_accepted_for_a_while(load):
    assert load(file="[engine]\nlanes = 3\nbin_tokens = 64\n").engine == EngineSettings(
        workers=3, max_batch_tokens=64
    )
    assert load(env={"GIGAROUTER_ENGINE_LANES": "2"}).engine.workers == 2
    both = load(file="[engine]\nlanes = 3\nworkers = 4\n", env={})
    assert both.engine.workers == 2, "the environment beats the file, under either name"
