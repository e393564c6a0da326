"""The recipes of packages and images: what they promise, and their own tools' word on them."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from appliance.service.unit import MARK
from tests.unit.service.test_unit import values

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "packaging/image"


def script(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "packaging" / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recipe():
    return (IMAGE / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((IMAGE / "compose.yml").read_text(encoding="utf-8"))


def instructions(recipe: str, name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", recipe, re.MULTILINE)


def test_an_image_has_a_user_a_volume_and_a_look_at_its_health(recipe):
    last = recipe[recipe.rindex("FROM ") :]
    assert instructions(last, "USER") == ["64642:64642"]
    assert instructions(last, "VOLUME") == ["/data"]
    assert instructions(last, "HEALTHCHECK")[0].endswith(
        'CMD ["gigarouter", "doctor", "--running"]'
    )
    assert instructions(last, "ENTRYPOINT") == ['["gigarouter"]']
    assert "GIGAROUTER_DATA_DIR=/data" in last


def test_an_images_engine_runs_on_any_processor_and_its_libraries_are_locked(recipe):
    targets = script("engines/targets.py")
    assert f'CMAKE_ARGS="{targets.VARIANTS} ${{ENGINE}}"' in recipe
    assert "--require-hashes" in recipe
    assert "HOST" not in recipe, "it is open to a network only where somebody says so"


def test_what_an_image_is_made_of_is_in_the_project(recipe):
    copied = [line.split() for line in instructions(recipe, "COPY") if "--from" not in line]
    sources = [ROOT / source for words in copied for source in words[:-1]]
    assert len(sources) > 5
    assert [path for path in sources if not path.exists()] == []


def test_a_composition_shares_one_loopback_and_no_right_of_root(compose):
    ours, proxy = compose["services"]["gigarouter"], compose["services"]["proxy"]
    assert proxy["network_mode"] == "service:gigarouter"
    assert all(port.startswith(("80:", "443:")) for port in ours["ports"])
    for service in (ours, proxy):
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert "cap_add" not in ours
    assert proxy["cap_add"] == ["NET_BIND_SERVICE"]
    assert (IMAGE / ours["build"]["context"] / ours["build"]["dockerfile"]).exists()
    assert (IMAGE / "Caddyfile").exists()
    named = {word.partition(":")[0] for each in (ours, proxy) for word in each["volumes"]}
    assert {name for name in named if not name.startswith(".")} == set(compose["volumes"])


def test_the_proxy_passes_nothing_of_the_operators_on():
    text = (IMAGE / "Caddyfile").read_text(encoding="utf-8")
    assert "@operator path /admin /admin/* /metrics" in text
    assert "respond @operator 404" in text
    assert "reverse_proxy 127.0.0.1:8642 {" in text


def test_a_debian_package_has_the_unit_that_the_command_writes(tmp_path, monkeypatch):
    deb = script("deb.py")
    monkeypatch.setattr(deb, "architecture", lambda: "amd64")
    (tmp_path / "usr/lib/gigarouter").mkdir(parents=True)
    (tmp_path / "usr/lib/gigarouter/program").write_bytes(b"x")
    deb.describe(tmp_path, "1.2.3", (3, 13))
    unit = (tmp_path / "usr/lib/systemd/system/gigarouter.service").read_text()
    assert unit.startswith(MARK)
    found = values(unit)
    assert found["DynamicUser"] == found["PrivateTmp"] == found["ProtectHome"] == ["yes"]
    assert found["ExecStart"][0].startswith(':"/usr/lib/gigarouter/bin/python" ')
    control = (tmp_path / "DEBIAN/control").read_text()
    assert "Version: 1.2.3\nArchitecture: amd64\n" in control
    assert "Depends: python3 (>= 3.13), python3 (<< 3.14)," in control
    sums = (tmp_path / "DEBIAN/md5sums").read_text()
    assert f"{hashlib.md5(b'x').hexdigest()}  usr/lib/gigarouter/program\n" in sums
    assert "DEBIAN" not in sums
    for name in ("postinst", "prerm", "postrm"):
        assert subprocess.run(["sh", "-n", tmp_path / "DEBIAN" / name], check=False).returncode == 0
    assert "/var/lib" not in (tmp_path / "DEBIAN/postrm").read_text(), "books are never removed"
    assert str(tmp_path) not in unit + control


@pytest.fixture
def formula(tmp_path):
    sdist = tmp_path / "gigarouter-1.tar.gz"
    sdist.write_bytes(b"sources")
    return script("homebrew/formula.py").formula(
        sdist, 'https://example.com/a"#{b}.tar.gz', "https://example.com"
    )


def test_a_formula_names_the_file_that_was_given_and_installs_what_is_locked(formula):
    assert f'sha256 "{hashlib.sha256(b"sources").hexdigest()}"' in formula
    assert 'url "https://example.com/a\\"\\#{b}.tar.gz"' in formula
    assert 'license "Apache-2.0"' in formula
    assert '"--require-hashes",' in formula
    for path in re.findall(r'"(packaging/[^"]+)"', formula):
        assert (ROOT / path).exists(), path


@pytest.mark.skipif(shutil.which("ruby") is None, reason="there is no ruby here")
def test_a_formula_is_ruby(formula):
    ended = subprocess.run(
        ["ruby", "-wc"], input=formula, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("caddy") is None, reason="there is no caddy here")
def test_the_proxys_file_is_valid_and_formatted(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "DOMAIN": "example.com"}
    for words in (["adapt", "--validate", "--config"], ["fmt", "--diff"]):
        ended = subprocess.run(
            ["caddy", *words, str(IMAGE / "Caddyfile")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="there is no hadolint here")
def test_the_images_recipe_has_no_finding():
    ended = subprocess.run(
        ["hadolint", str(IMAGE / "Containerfile")], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "")
