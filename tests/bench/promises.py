"""Promises: what reliability means here, one line each, and what tries to break it.

The ids are those of the project's goals: L money, K keys, R staying up, H the HTTP contract, O
overload, S security. A promise that nothing here tries to break says why.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """One promise; exactly one of `tests`, `bench` and `untried` is given."""

    id: str
    says: str
    tests: tuple[str, ...] = ()
    """Files or tests under `tests/`, for pytest."""
    bench: tuple[str, ...] = ()
    """A command of `tests.bench`, which fails if the promise was broken; `{}` is the size."""
    variable: str = ""
    """The variable that says how often the tests try; empty: each test is one trial."""
    small: int = 0
    large: int = 0
    untried: str = ""


PROMISES = (
    Promise(
        "L1",
        "balances are the sum of their entries after every step",
        tests=("unit/ledger/test_ledger_state.py",),
        variable="MODEL_STEPS",
        small=10_000,
        large=1_000_000,
    ),
    Promise("L2", "credits for K of 64 racing calls buy exactly K", tests=("money/test_race.py",)),
    Promise(
        "L3",
        "a hold resolves once, and the database refuses what must never happen",
        tests=("unit/ledger/test_ledger_table.py",),
    ),
    Promise(
        "L4",
        "a price is exact or refused, never rounded",
        tests=("unit/pricing/test_tariff.py", "unit/tasks/test_plan.py"),
    ),
    Promise("L5a", "what is refused costs nothing", tests=("api/test_error_table.py",)),
    Promise(
        "L5b",
        "who leaves at any moment pays only for an answer",
        tests=("money/test_hangup.py",),
        variable="HANGUPS",
        small=6,
        large=100,
    ),
    Promise(
        "L6, L8",
        "kill -9 loses no acknowledged call, charges none twice, leaves no hold open",
        tests=("money/test_kill.py",),
        variable="KILLS",
        small=80,
        large=1_000,
    ),
    Promise("L7", "the same after a loss of power", untried="no such disk is simulated here"),
    Promise(
        "L8b",
        "holds end with their process, and what they reserved is there at the next start",
        tests=("unit/ledger/test_ledger_table.py",),
    ),
    Promise(
        "L9",
        "damaged books are refused untouched or lack nothing",
        tests=("money/test_damage.py",),
        variable="COPIES",
        small=200,
        large=1_000,
    ),
    Promise(
        "L10",
        "an Idempotency-Key is charged once, also after a restart",
        tests=("api/test_idempotency.py", "unit/ledger/test_orders.py"),
    ),
    Promise("L11", "a full disk loses nothing and is survived", tests=("money/test_full_disk.py",)),
    Promise(
        "L12", "after a failed flush nothing is acknowledged", tests=("money/test_dying_disk.py",)
    ),
    Promise(
        "L13", "books that cannot be trusted stay as they are", tests=("money/test_faults.py",)
    ),
    Promise(
        "L14",
        "backups are whole and come back",
        tests=("unit/ledger/test_backup.py", "money/test_backup_under_load.py"),
    ),
    Promise("L15", "the books are cheap", untried="a figure: see what was measured"),
    Promise(
        "L16",
        "a clock that is set back moves no money and revives no key",
        tests=(
            (
                "unit/ledger/test_audit.py"
                "::test_a_clock_that_was_set_back_between_two_runs_is_not_followed"
            ),
            "unit/admin/test_keys.py::test_a_clock_that_is_set_back_revives_nothing_that_was_ended",
        ),
    ),
    Promise(
        "L17", "a store that we cannot trust is refused", tests=("unit/store/test_database.py",)
    ),
    Promise("L18", "the tests test", untried="mutations of the code are made by hand"),
    Promise("K1, S9", "no secret and no file is anybody else's", tests=("cli/test_private.py",)),
    Promise(
        "K2",
        "no call is accepted after the answer to a revocation",
        tests=("money/test_revoke.py",),
        variable="ROUNDS",
        small=200,
        large=1_000,
    ),
    Promise(
        "K3",
        "guessing keys is cheap for the server and slow for whoever guesses",
        tests=("unit/accounts/test_failed_auth.py", "api/test_pace.py"),
    ),
    Promise(
        "K4, K5, K6, S3",
        "every route lets in exactly who may use it, and credentials leave no trace",
        tests=("api/test_authorization.py",),
    ),
    Promise(
        "K7",
        "scanners find every key and tell it from its neighbours",
        tests=("unit/accounts/test_credential.py",),
    ),
    Promise(
        "R1, R2, H2",
        "no request ends the server, stalls its loop or gets a 500",
        bench=("fuzz", "--requests", "{}"),
        small=100,
        large=100_000,
    ),
    Promise(
        "R3",
        "sequences at every boundary are computed or refused",
        tests=("unit/engine/test_llama.py",),
    ),
    Promise("R4", "every text is tokenized", tests=("unit/engine/test_tokenizer.py",)),
    Promise(
        "R5",
        "the death of a model's process is a clean 503 for its calls alone",
        tests=("unit/engine/test_isolated_weights.py", "money/test_child_death.py"),
    ),
    Promise(
        "R6",
        "a killed server is back without a refused connection, its books exact",
        bench=("deaths", "--rounds", "{}"),
        small=4,
        large=100,
    ),
    Promise(
        "R7",
        "a model that crashed twice is set aside and the others go on",
        tests=(
            (
                "cli/test_supervised.py"
                "::test_a_model_that_crashes_the_server_twice_is_set_aside_and_the_others_go_on"
            ),
        ),
    ),
    Promise("R8", "a hostile file ends its trial alone", tests=("unit/engine/test_trial.py",)),
    Promise(
        "R9",
        "each vector is its own text's, whatever its company",
        bench=("equality", "--inputs", "{}"),
        small=2_000,
        large=100_000,
    ),
    Promise(
        "R10",
        "memory, descriptors and threads are flat under load (minutes)",
        bench=("soak", "--minutes", "{}"),
        small=3,
        large=60,
    ),
    Promise(
        "R11",
        "slow, silent and never-reading clients take nobody else's place",
        tests=("api/test_idle.py", "api/test_connections.py", "api/test_held_bytes.py"),
    ),
    Promise(
        "R12", "a drain answers what is in flight and ends in time", tests=("cli/test_stop.py",)
    ),
    Promise("R13", "of two servers one is refused", tests=("cli/test_port.py",)),
    Promise(
        "R14",
        "the terminal is as it was after the console is gone",
        tests=("tui/test_terminal.py", "tui/test_hangup.py"),
    ),
    Promise(
        "R15", "only right bytes get a model's name", tests=("unit/hub/test_fetch_promise.py",)
    ),
    Promise(
        "H1", "hostile bodies get an error that names the field", tests=("api/test_bad_input.py",)
    ),
    Promise(
        "H3, H4",
        "who is limited and waits as told is served",
        tests=("api/test_rates.py", "unit/scheduler/test_admission.py"),
    ),
    Promise("H6", "the official clients work", tests=("api/test_clients.py",)),
    Promise(
        "O1, O2, O3",
        "ten times the load leaves nine tenths of the best goodput (seconds for each load)",
        bench=("overload", "--seconds", "{}"),
        small=30,
        large=60,
    ),
    Promise(
        "O4",
        "a flood leaves a quiet key twice its latency and one batch (seconds)",
        bench=("flood", "--seconds", "{}"),
        small=5,
        large=20,
    ),
    Promise(
        "O6",
        "keys and tiers share as promised through any history",
        tests=("unit/scheduler/test_queue.py",),
    ),
    Promise(
        "S1", "foreign names and pages are refused on every route", tests=("api/test_hosts.py",)
    ),
    Promise("S2", "a hostile page in a real browser gets nothing", bench=("hostile_page",)),
    Promise(
        "S4", "a server is not opened to the network by accident", tests=("cli/test_exposure.py",)
    ),
    Promise(
        "S5",
        "the hub's client connects where it was told to",
        tests=("unit/hub/test_connection.py",),
    ),
    Promise(
        "S6",
        "paths from outside lead nowhere",
        tests=("cli/test_paths.py", "cli/test_planted.py"),
    ),
    Promise("S7", "no text steers a terminal", tests=("cli/test_hostile_text.py",)),
    Promise(
        "S8",
        "a model file's template is never rendered",
        tests=(
            (
                "api/test_rerankers.py"
                "::test_text_that_spells_special_tokens_or_fields_of_the_template_is_text"
            ),
        ),
    ),
    Promise(
        "S10", "what is installed is locked, hashed and licensed", tests=("house/test_supply.py",)
    ),
)
