"""A server in memory: what screens ask of one, answered from lists that a test can change."""

from decimal import Decimal

import msgspec

from appliance.client.errors import ServerLost, ServerRefused
from appliance.client.paid import Hit, Ranking, Vectors
from appliance.wire.additions import AdditionList, AdditionView
from appliance.wire.doctor import Finding, Report
from appliance.wire.downloads import CheckView, DownloadList, DownloadView, RemovedView
from appliance.wire.engines import DeviceView, EngineList, EngineView
from appliance.wire.keys import KeyList, KeyView, MintedKey, RotatedKey
from appliance.wire.logs import LogLine, LogView
from appliance.wire.models import ModelList, ModelView, PriceView
from appliance.wire.stats import Activity, CallView, ModelHistory, Point, Quantiles, Stats
from appliance.wire.usage import UsageReport, UsageRow

NASTY = "\x1b[31m[red]evil[/]\u202e\u0007"
KEY = "gr-" + "A" * 38
LOST = "the server does not answer: connection refused"


def model(name, **facts):
    return ModelView(
        **{
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "o",
            "task": "embeddings",
            "params": 22_600_000,
            "pricing": PriceView(Decimal("0.008"), Decimal("0.004"), "1M tokens"),
            "available": True,
            "loaded": False,
            "max_input_tokens": 256,
            "license": "apache-2.0",
            "description": "A model.",
            "aliases": (),
            "quantization": "F16",
            "dimensions": 384,
            **facts,
        }
    )


def key(name, **facts):
    return KeyView(
        **{
            "id": f"key_{name}",
            "name": name,
            "hint": "gr-AbCd\u2026wxyz",
            "credit": Decimal(5),
            "spent_today": Decimal("0.001"),
            "daily_budget": None,
            "rpm": 60,
            "tpm": None,
            "concurrency": None,
            "models": None,
            "created": "2026-11-25T08:00:00Z",
            "expires": None,
            "revoked": None,
            "scopes": ("infer", "usage"),
            **facts,
        }
    )


class FakeServer:
    """Answers like a server; `lost` and `refusal` make it fail."""

    url = "http://127.0.0.1:8642"

    def __init__(self):
        self.lost = False
        self.refusal = None
        self.refusal_param = None
        self.refused_path = ""
        """Only orders whose path ends so are refused."""
        self.sent = []
        self.keys = [
            key("alice"),
            key("bob", credit=None),
            key(NASTY, revoked="2026-11-25T09:00:00Z"),
        ]
        gone = "its file x.gguf is not on this machine"
        self.models = [
            model("sentence-transformers/all-MiniLM-L6-v2", loaded=True),
            model("BAAI/bge-small-en-v1.5", available=False, reason=gone, missing=True),
            model(
                "Qwen/Qwen3-Embedding-0.6B",
                available=False,
                reason=gone,
                missing=True,
                params=596_000_000,
            ),
            model(
                f"own/{NASTY}", available=False, reason="its file is bad: [bold]x", license="mit"
            ),
        ]
        self.spent = {"key_alice": Decimal(5)}
        self.downloads = []
        self.additions = []
        self.cores = 4
        self.run = "first"
        self.lines = [
            LogLine(1, "2026-11-25T08:59:59Z", "info", "gigarouter.serve", "listening"),
            LogLine(2, "2026-11-25T09:00:01Z", "warning", "gigarouter.hub", f"slow {NASTY}"),
            LogLine(
                3, "2026-11-25T09:00:02Z", "error", "gigarouter.engine", "it failed\nTraceback"
            ),
        ]
        self.engines = [
            EngineView(
                "sentence-transformers/all-MiniLM-L6-v2",
                "loaded",
                208_000_000,
                False,
                1,
                0,
                0.0,
                1.0,
                None,
            )
        ]
        self.stats = Stats(
            now="2026-11-25T10:00:00Z",
            uptime_s=3_700,
            version="0.1.0",
            calls_per_s=51.6,
            tokens_per_s=4_400,
            documents_per_s=51.6,
            errors_per_s=0.0,
            free_per_s=0.0,
            stages={name: Quantiles(1.5, 1_250.0) for name in ("tokenize", "queue", "total")},
            models=[Activity("sentence-transformers/all-MiniLM-L6-v2", 90, 9_000, 0, 0)],
            keys=[Activity("alice", 90, 9_000, 0, 0), Activity(NASTY, 3, 30, 0, 1)],
            recent=[
                CallView(
                    "2026-11-25T09:59:59Z",
                    200,
                    "",
                    "alice",
                    "all-MiniLM-L6-v2",
                    "realtime",
                    231,
                    "0.000001848",
                    66.3,
                    "req_1",
                ),
                CallView(
                    "2026-11-25T09:59:58Z",
                    402,
                    "insufficient_credit",
                    NASTY,
                    "",
                    "",
                    0,
                    "0",
                    0.4,
                    "req_2",
                ),
            ],
            history=[Point(1, float(n % 17) * 300, 0, 0) for n in range(60)],
            step_s=1,
            highest=Point(1, 4_800.0, 0, 0),
            has_keys=True,
            charged="0.00341",
            spent_today="0.0123",
            refusals={"402 insufficient_credit": 3},
            devices=[DeviceView("CPU", "A processor", "cpu", 25_000_000_000, 24_000_000_000)],
            in_flight=3,
            waiting_tokens=298,
            batch_fill=0.35,
            workers_busy=2,
            workers=2,
            memory_taken=208_000_000,
            memory_max=19_000_000_000,
            process_bytes=237_000_000,
        )

    async def close(self):
        pass

    async def do(self, verb, *names, order=None):
        assert order is None or isinstance(order, verb.order)
        if self.lost:
            raise ServerLost(LOST)
        path = verb.path.format(*names)
        if self.refusal and verb.method != "GET" and path.endswith(self.refused_path):
            raise ServerRefused(self.refusal, param=self.refusal_param)
        if verb.method != "GET":
            self.sent.append((verb.method, path, msgspec.to_builtins(order)))
        return self.answer(path, names, verb.answer, order)

    def answer(self, path, names, kind, order):  # noqa: C901, PLR0911, PLR0912 - one a kind
        if kind is Stats:
            return self.stats
        if kind is ModelHistory:
            points = [Point(1, n * 10.0, 0, 0) for n in range(25)]
            return ModelHistory(names[1], int(names[0]), 3600, Point(1, 777.0, 0, 0), points)
        if kind is KeyList:
            return KeyList(list(self.keys))
        if kind is ModelList:
            return ModelList("list", list(self.models))
        if kind is EngineList:
            devices = [DeviceView("CPU", "A processor", "cpu", 25_000_000_000, 24_000_000_000)]
            return EngineList(list(self.engines), 208_000_000, 19_000_000_000, devices, self.cores)
        if kind is AdditionList:
            return AdditionList(list(self.additions))
        if kind is AdditionView:
            return self.additions[0]
        if kind is DownloadList:
            return DownloadList(list(self.downloads))
        if kind is MintedKey:
            self.keys.append(key(order.name))
            return MintedKey(
                f"key_{order.name}",
                order.name,
                KEY,
                None,
                None,
                None,
                None,
                None,
                None,
                "now",
                None,
            )
        if kind is RotatedKey:
            return RotatedKey("key_alice", "alice", KEY, "gr-New", "tomorrow")
        if kind is UsageReport and names[0] == "key" and names[2] == "all":
            rows = [
                UsageRow(key_id, key_id, 3, 30, 0, amount, 0, Decimal(0))
                for key_id, amount in self.spent.items()
            ]
            total = UsageRow("", None, 3, 30, 0, sum(self.spent.values()), 0, Decimal(0))
            return UsageReport("key", "2026-11-11", None, None, rows, total)
        if kind is UsageReport:
            row = UsageRow("2026-11-25", None, 3, 30, 0, Decimal("0.01"), 0, Decimal(0))
            return UsageReport("day", "2026-11-11", None, None, [row], row)
        if kind is Report:
            return Report(
                False,
                [
                    Finding("files", "ok", "they are their owner's alone"),
                    Finding("keys", "warn", f"no live key {NASTY}", "gigarouter keys mint NAME"),
                    Finding("disk", "fail", "0.1 GB are free on the disk", "free some"),
                ],
            )
        if kind is LogView:
            run, _, number = names[0].partition("-")
            known = int(number) if run == self.run else 0
            lines = [line for line in self.lines if line.number > known]
            return LogView(lines, f"{self.run}-{len(self.lines)}")
        if kind is DownloadView and order is None:
            return self.downloads[0]
        if kind is DownloadView:
            view = DownloadView(
                "dl_1", order.id if order else "m", "fetching", 0, 1000, 0.0, None, None
            )
            self.downloads = [view]
            return view
        if kind is KeyView:
            found = path.split("/")[2]
            changed = {}
            if path.endswith("/revoke"):
                changed = {"revoked": "now"}
            elif path.endswith("/expire"):
                changed = {"expires": None if order.expires == "never" else "2026-12-25T09:00:00Z"}
            elif path.endswith("/limits"):
                changed = msgspec.to_builtins(order)
            elif order is None:
                changed = {"name": "forgotten", "revoked": "now", "forgotten": "now"}
            self.keys = [
                msgspec.structs.replace(k, **changed) if k.id == found else k for k in self.keys
            ]
            return next(k for k in self.keys if k.id == found)
        if kind is EngineView:
            return self.engines[0]
        if kind is CheckView:
            return CheckView(order.id, "x.gguf", 1, "a" * 64, True)
        if kind is RemovedView:
            return RemovedView(order.id, 1, True)
        if kind is ModelView:
            return self.models[0]
        raise AssertionError(kind)

    async def rerank(self, secret, _model, _query, documents):
        self._paid(secret)
        return Ranking([Hit(0.9, text) for text in documents], "0.000000024", 12.5)

    async def embed(self, secret, _model, texts):
        self._paid(secret)
        return Vectors([[0.6, 0.8] for _ in texts], "0.000000056", 32.1)

    def _paid(self, secret):
        if self.lost:
            raise ServerLost(LOST)
        assert secret == KEY


def moved(gateway, **facts):
    """Give the only download other facts."""
    gateway.downloads = [msgspec.structs.replace(gateway.downloads[0], **facts)]
