"""Formula: renders gigarouter.rb for Homebrew, from the project's version, its sdist and its lock.

    python packaging/homebrew/formula.py --sdist DIST.tar.gz --url URL > gigarouter.rb

URL is where the sdist is published; its sha256 is taken from the file. What Python installs is
what packaging/lock/run.txt names, with its hashes: the formula has the lock from the sdist.
"""

import argparse
import hashlib
import json
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "3.13"
TEMPLATE = """\
class Gigarouter < Formula
  desc {summary}
  homepage {homepage}
  url {url}
  sha256 {sha256}
  license {licence}

  depends_on "cmake" => :build
  depends_on "ninja" => :build
  depends_on "python@{python}"

  def install
    python = libexec/"bin/python"
    system Formula["python@{python}"].opt_bin/"python{python}", "-m", "venv", libexec
    ENV["CI"] = "true" # an engine that does not compile ends the installation
    system python, "packaging/engine.py"
    system python, "-m", "pip", "install", "--no-cache-dir", "--require-hashes",
           "--requirement", "packaging/lock/run.txt"
    system python, "-m", "pip", "install", "--no-cache-dir", "--no-deps",
           "--no-build-isolation", "."
    bin.install_symlink libexec/"bin/gigarouter"
  end

  def caveats
    <<~EOS
      To start it now and whenever you log in, with launchd or systemd:
        gigarouter service install
    EOS
  end

  test do
    ENV["GIGAROUTER_DATA_DIR"] = testpath/"data"
    assert_match version.to_s, shell_output("#{{bin}}/gigarouter --version")
    assert_match "gr-", shell_output("#{{bin}}/gigarouter keys mint tester --credit 1")
    assert_match "all-MiniLM-L6-v2", shell_output("#{{bin}}/gigarouter models list")
  end
end
"""


def formula(sdist: Path, url: str, homepage: str) -> str:
    """Return the formula's text; `sdist` is the file that `url` gives."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return TEMPLATE.format(
        summary=quoted("Embeddings and reranking behind an OpenAI-compatible API"),
        homepage=quoted(homepage),
        url=quoted(url),
        sha256=quoted(hashlib.sha256(sdist.read_bytes()).hexdigest()),
        licence=quoted(project["license"]),
        python=PYTHON,
    )


def quoted(text: str) -> str:
    """Return a text as a literal of Ruby, in which nothing is replaced."""
    return json.dumps(text, ensure_ascii=False).replace("#", "\\#")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sdist", type=Path, required=True)
    parser.add_argument("--url", required=True, help="where it is published")
    parser.add_argument("--homepage", help="[default: the beginning of --url]")
    chosen = parser.parse_args()
    homepage = chosen.homepage or "/".join(chosen.url.split("/")[:3])
    sys.stdout.write(formula(chosen.sdist, chosen.url, homepage))


if __name__ == "__main__":
    main()
