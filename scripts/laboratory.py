"""Run the experiments of examples/ at their full size and keep what they show for the pages of the site.

    python scripts/laboratory.py                # those whose script has changed since, one after another
    python scripts/laboratory.py 05 11          # these, whether or not

Figures go to docs/laboratory/NAME.png, the words to docs/laboratory/results.json together with the fingerprint of
the script that said them; tests/test_laboratory.py notices a script that has changed since.
"""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from tinycnn.files import write_bytes

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "laboratory"
RESULTS = PAGES / "results.json"


def experiments() -> list[Path]:
    return sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))


def fingerprint(script: Path) -> str:
    return hashlib.sha256(script.read_bytes()).hexdigest()[:16]


def recorded() -> dict[str, dict]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def run(script: Path) -> dict:
    """Run one experiment; what it says is shown while it says it."""
    figure, start = PAGES / f"{script.stem}.png", time.perf_counter()
    command = [sys.executable, "-u", script.name, "--out", str(figure)]
    said = []
    with subprocess.Popen(command, cwd=script.parent, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line.replace(str(figure), figure.name))
    if process.returncode:
        sys.exit(f"{script.name} ended with {process.returncode}: nothing of it is kept")
    seconds = round(time.perf_counter() - start)
    return {"script": fingerprint(script), "seconds": seconds, "said": "".join(said).strip()}


def main(wanted: list[str]) -> None:
    PAGES.mkdir(exist_ok=True)
    for script in experiments():
        known = recorded().get(script.stem, {})
        if script.stem[:2] in wanted or (not wanted and known.get("script") != fingerprint(script)):
            print(f"=== {script.stem}", flush=True)
            found = run(script)
            text = json.dumps(dict(sorted({**recorded(), script.stem: found}.items())), indent=1, ensure_ascii=False)
            write_bytes(RESULTS, f"{text}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])
